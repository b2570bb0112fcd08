from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from stalign.encoders.cache import FeatureCache


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def test_put_and_get(tmp_path, features):
    cache = FeatureCache(tmp_path, "uni")
    key = cache.key(np.arange(4), b"names")
    assert cache.get(key, (5, 3)) is None
    cache.put(key, features)
    np.testing.assert_array_equal(FeatureCache(tmp_path, "uni").get(key, (5, 3)), features)
    assert not list(tmp_path.rglob("*.part"))


def test_key_holds_content_type_shape_and_scope(tmp_path):
    cache = FeatureCache(tmp_path, "uni")
    array = np.arange(12, dtype=np.uint8)
    keys = {
        cache.key(array),
        cache.key(array.reshape(3, 4)),
        cache.key(array.astype(np.int8)),
        cache.key(array + 1),
        cache.key(array, b""),
        cache.key(array[:6], array[6:]),
        FeatureCache(tmp_path, "uni2").key(array),
    }
    assert len(keys) == 7
    assert cache.key(array.copy()) == cache.key(array)


def test_damaged_files_are_made_anew(tmp_path, features):
    cache = FeatureCache(tmp_path, "uni")
    cache.put("abcd", features)
    file = next(tmp_path.rglob("*.npy"))
    file.write_bytes(file.read_bytes()[:40])
    assert cache.get("abcd", (5, 3)) is None
    file.write_bytes(b"")
    assert cache.get("abcd", (5, 3)) is None
    cache.put("abcd", features)
    assert cache.get("abcd", (5, 3)) is not None
    assert cache.get("abcd", (5, 4)) is None


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_files_that_cannot_be_read_are_left_alone(tmp_path, features, monkeypatch, log, number):
    cache = FeatureCache(tmp_path, "uni")
    cache.put("abcd", features)
    with monkeypatch.context() as patch:

        def fails(*_, **__):
            raise OSError(number, os.strerror(number))

        patch.setattr(np, "load", fails)
        assert cache.get("abcd", (5, 3)) is None
        cache.put("abcd", features + 1)
    assert os.strerror(number) in log.text and "damaged" not in log.text
    np.testing.assert_array_equal(cache.get("abcd", (5, 3)), features)


def test_objects_are_never_unpickled(tmp_path):
    cache = FeatureCache(tmp_path, "uni")
    (tmp_path / "ab").mkdir()
    np.save(tmp_path / "ab" / "abcd.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert cache.get("abcd", (1, 1)) is None


def test_folder_that_cannot_be_written(tmp_path, features):
    (tmp_path / "file").write_text("")
    cache = FeatureCache(tmp_path / "file", "uni")
    cache.put("abcd", features)  # logged, not raised
    assert cache.folder is None
    assert FeatureCache(None, "uni").get("abcd", (5, 3)) is None
