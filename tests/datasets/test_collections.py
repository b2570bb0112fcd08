"""Slides of the large collections, fetched from a server on this machine that holds small folders in their layouts."""

from __future__ import annotations

import functools
import http.server
import threading

import numpy as np
import pandas as pd
import pytest
from tests.io import folders

import stalign
from stalign.datasets import _collections, _fetch

SLIDE = "Human_Brain_Toy_01012020_Visium_A1"


class Handler(http.server.SimpleHTTPRequestHandler):
    asked: list[tuple[str, str | None]] = []
    closed = False

    def do_GET(self):
        Handler.asked.append((self.path, self.headers.get("Authorization")))
        if Handler.closed and self.headers.get("Authorization") != "Bearer right":
            self.send_error(401)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path):
    root = tmp_path / "mirror"
    root.mkdir()
    Handler.asked, Handler.closed = [], False
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.delenv(_fetch.ENVIRONMENT, raising=False)
    with stalign.settings.override(cache_dir=tmp_path / "cache"):
        yield


@pytest.fixture
def stimage(mirror):
    root, url = mirror
    made, slide = folders.write_stimage(root, slide=SLIDE)
    table = root / "meta" / "meta_all_gene02122025.csv"
    pd.read_csv(table).assign(tech="Visium", spot_num=made.n_obs).to_csv(table, index=False)
    names = [f"{slide}_{name}" for name in made.obs_names]
    labels = pd.DataFrame({"V2": ["L1", "", "WM"] * 100, "sample_name": slide}).iloc[: len(names)].set_axis(names)
    labels.loc["Human_Brain_Toy_01012020_Visium_A10_x"] = ["L6", "Human_Brain_Toy_01012020_Visium_A10"]
    (root / "annotation").mkdir()
    labels.to_csv(root / "annotation" / "Human_Brain_Toy_01012020_Visium_anno.csv", sep="\t")
    return made, url


def test_a_slide_of_stimage_with_its_labels(stimage):
    made, url = stimage
    table = stalign.datasets.stimage_table(base_url=url)
    assert table["slide"].tolist() == [SLIDE] and table["species"].tolist() == ["human"]
    assert [path for path, _ in Handler.asked] == ["/meta/meta_all_gene02122025.csv"]
    adata = stalign.datasets.stimage(SLIDE, base_url=url)
    np.testing.assert_array_equal(adata.X.toarray(), made.X.toarray())
    assert list(adata.obs["annotation"].cat.categories) == ["L1", "WM"]
    assert adata.obs["annotation"].isna().iloc[1] and adata.obs["annotation"].iloc[2] == "WM"
    assert adata.uns["spatial"][SLIDE]["metadata"]["tech"] == "Visium"
    asked = len(Handler.asked)
    again = stalign.datasets.stimage(SLIDE, base_url="http://127.0.0.1:9")  # nothing is asked of the network
    assert len(Handler.asked) == asked and again.n_obs == adata.n_obs
    manifest = stalign.train.curate_stimage(stalign.settings.cache_dir / "datasets" / "stimage")
    assert manifest["kept"].tolist() == [True]


def test_a_slide_without_labels_and_image(stimage, mirror):
    root, url = mirror
    (root / "annotation" / "Human_Brain_Toy_01012020_Visium_anno.csv").unlink()
    (root / "Visium" / "image" / f"{SLIDE}.png").unlink()
    adata = stalign.datasets.stimage(SLIDE, image=False, base_url=url)
    assert "annotation" not in adata.obs
    assert stalign.datasets.stimage(SLIDE, image=False, base_url="http://127.0.0.1:9").n_obs == adata.n_obs
    with pytest.raises(FileNotFoundError, match="404"):
        stalign.datasets.stimage(SLIDE, base_url=url)


def test_names_that_are_not_there(stimage):
    _, url = stimage
    with pytest.raises(ValueError, match=f"(?s)name of a slide.*{SLIDE}.*stimage_table"):
        stalign.datasets.stimage("toy", base_url=url)
    with pytest.raises(ValueError, match="name of a section"):
        stalign.datasets.stnet("BC1", base_url=url)


def test_stnet_is_a_slide_of_stimage(mirror):
    root, url = mirror
    _, slide = folders.write_stimage(root, slide="Human_Breast_He_06222020_ST_BC1_C1", technology="ST")
    table = root / "meta" / "meta_all_gene02122025.csv"
    pd.read_csv(table).assign(tech="ST").to_csv(table, index=False)
    adata = stalign.datasets.stnet("BC1_C1", base_url=url)
    assert list(adata.uns["spatial"]) == [slide]


@pytest.fixture
def hest(mirror):
    root, url = mirror
    made, sample = folders.write_hest(root)
    table = pd.DataFrame({"id": [sample], "organ": ["Brain"]})
    table.to_csv(root / "HEST_v1_1_0.csv", index=False, encoding="utf-8-sig")
    return made, sample, url


def test_a_sample_of_hest(hest):
    made, sample, url = hest
    adata = stalign.datasets.hest(sample, base_url=url)
    assert adata.n_obs == made.n_obs and adata.uns["spatial"][sample]["metadata"]["image_key"] == "downscaled_fullres"
    assert not any("wsis" in path for path, _ in Handler.asked)
    assert stalign.datasets.hest(sample, base_url="http://127.0.0.1:9").n_obs == made.n_obs
    whole = stalign.datasets.hest(sample, image=True, base_url=url)
    assert whole.uns["spatial"][sample]["metadata"]["image_key"] == "fullres"
    with pytest.raises(ValueError, match="(?s)name of a sample.*hest_table"):
        stalign.datasets.hest("NONE1", base_url=url)


def test_hest_is_gated_and_the_token_goes_to_its_host_alone(hest, monkeypatch):
    made, sample, url = hest
    Handler.closed = True
    monkeypatch.setattr(_collections, "source_of", lambda name: {"url": url})
    monkeypatch.setattr(_collections, "_token", lambda: None)
    with pytest.raises(PermissionError, match=r"\(1\) sign in .*MahmoodLab/hest.*\(2\).*\(3\) call again"):
        stalign.datasets.hest(sample)
    monkeypatch.setattr(_collections, "_token", lambda: "right")
    assert stalign.datasets.hest(sample).n_obs == made.n_obs
    Handler.asked.clear()
    with pytest.raises(PermissionError):
        stalign.datasets.hest(sample, image=True, base_url=f"{url}/")
    assert [token for _, token in Handler.asked] == [None]
    monkeypatch.setenv(_fetch.ENVIRONMENT, url)
    with pytest.raises(PermissionError):
        stalign.datasets.hest(sample, image=True)
    assert [token for _, token in Handler.asked] == [None, None]


def test_a_file_that_changed_since_its_first_download_is_refused(hest, mirror):
    _, sample, url = hest
    stalign.datasets.hest(sample, base_url=url)
    (stalign.settings.cache_dir / "datasets" / "hest" / "metadata" / f"{sample}.json").write_text("{}")
    (mirror[0] / "metadata" / f"{sample}.json").write_text("{ }")
    with pytest.raises(ValueError, match="sha256"):
        stalign.datasets.hest(sample, base_url=url)
