from __future__ import annotations

import errno
import mmap
import os
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch

from stalign.models.config import MINI
from stalign.train import fit, history, slide_reader
from stalign.train.cache import SectionCache
from stalign.train.config import DataConfig, SectionSpec
from stalign.train.slides import as_slides
from stalign.train.store import open_store

DISK = DataConfig(min_spots=20, store="disk")


@pytest.fixture
def on_disk(toy2, tmp_path):
    toy2.write_h5ad(tmp_path / "toy.h5ad")
    return as_slides([SectionSpec("toy.h5ad", library_key="library")], root=tmp_path)


def mapped(array):
    while array is not None:
        if isinstance(array, (np.memmap, mmap.mmap)):
            return True
        array = getattr(array, "base", None)
    return False


def test_sections_on_disk_are_those_in_memory(on_disk, tmp_path, monkeypatch):
    memory = open_store(on_disk, replace(DISK, store="memory"), MINI.input)
    first = open_store(on_disk, DISK, MINI.input, folder=tmp_path / "store")

    def fails(*_):
        raise AssertionError

    monkeypatch.setattr(slide_reader, "open_slide", fails)
    again = open_store(on_disk, DISK, MINI.input, folder=tmp_path / "store")  # reads no slide
    for store in (first, again):
        assert store.vocabulary == memory.vocabulary and store.fingerprint() == memory.fingerprint()
        assert store.report == memory.report
        for a, b in zip(memory.sections, store.sections, strict=True):
            rows = a.rows[::7]
            rng = [np.random.default_rng(0) for _ in range(2)]
            x, y = (s.reader.batch(rows, keep=0.5, rng=r) for s, r in zip((a, b), rng, strict=True))
            for name in ("spot_image", "niche_image", "image_mean", "spot_gene", "niche_gene", "basis"):
                assert torch.equal(getattr(x, name), getattr(y, name)), name
            assert mapped(b.reader.image.pixels()) and mapped(b.reader.expression.counts.data)
            assert mapped(b.reader.expression.scores) and mapped(b.reader.expression.counts.indices)


def test_what_has_changed_is_made_anew(on_disk, toy2, tmp_path):
    folder = tmp_path / "store"
    open_store(on_disk, DISK, MINI.input, folder=folder)
    n = len(list(folder.iterdir()))
    open_store(on_disk, replace(DISK, max_genes=100), MINI.input, folder=folder)
    assert len(list(folder.iterdir())) == n + 2  # two sections in another vocabulary, the same survey
    fewer = toy2[: toy2.n_obs - 5].copy()
    fewer.write_h5ad(tmp_path / "toy.h5ad")
    store = open_store(on_disk, DISK, MINI.input, folder=folder)
    assert store.n_spots == fewer.n_obs
    for content in ('{"class": "half', "{}", "[]"):
        for index in folder.glob("section-*/index.json"):
            index.write_text(content)
        assert open_store(on_disk, DISK, MINI.input, folder=folder).n_spots == fewer.n_obs
    for array in folder.glob("section-*/*coords*.npy"):
        array.write_bytes(b"")
    assert open_store(on_disk, DISK, MINI.input, folder=folder).n_spots == fewer.n_obs


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_what_cannot_be_read_is_left_alone(tmp_path, monkeypatch, number):
    cache = SectionCache(tmp_path / "store")
    cache.put("a", {"x": np.arange(3)})
    with monkeypatch.context() as patch:

        def fails(*_, **__):
            raise OSError(number, os.strerror(number))

        patch.setattr(np, "load", fails)
        assert cache.get("a", MINI.input) is None
        cache.put("a", {"x": np.arange(4)})
    assert cache.get("a", MINI.input)["x"].tolist() == [0, 1, 2]
    assert [path.name for path in cache.folder.iterdir()] == ["a"]
    next(cache.folder.glob("a/*.npy")).write_bytes(b"half")
    assert cache.get("a", MINI.input) is None and not list(cache.folder.iterdir())


def test_another_image_beside_the_same_table_is_read(toy2, tmp_path):
    from PIL import Image

    one = toy2[toy2.obs["library"] == "toy_1"].copy()
    entry = one.uns["spatial"]["toy_1"]
    pixels = entry.pop("images")["hires"]
    entry["metadata"] = {"image_file": "toy.png", "image_key": "hires"}
    one.uns["spatial"] = {"toy_1": entry}
    one.write_h5ad(tmp_path / "toy.h5ad")
    colours = []
    for shade in (1, 2):
        Image.fromarray(pixels // shade).save(tmp_path / "toy.png")
        store = open_store(as_slides(["toy.h5ad"], root=tmp_path), DISK, MINI.input, folder=tmp_path / "store")
        colours.append(store.sections[0].reader.image_mean)
    np.testing.assert_allclose(colours[1], colours[0] / 2, atol=0.01)


def test_a_run_from_disk_has_the_same_losses(on_disk, tiny, tmp_path):
    runs = []
    for where in ("memory", "disk"):
        config = tiny(out=str(tmp_path / where), data=replace(DISK, store=where), run={"steps": 3})
        fit(on_disk, config)
        runs.append(history(config.out)["loss/total"].to_numpy())
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_full_disk_is_not_taken_for_a_bad_slide(on_disk, tmp_path, on_error):
    folder = tmp_path / "store"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))  # writing more fails as on a full disk
    try:
        with pytest.raises(OSError, match=r"Cannot write to the store of sections in .*Make room"):
            open_store(on_disk, replace(DISK, on_error=on_error), MINI.input, folder=folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list(folder.glob(".*"))  # no half-written section is left
    assert len(open_store(on_disk, DISK, MINI.input, folder=folder).sections) == 2
