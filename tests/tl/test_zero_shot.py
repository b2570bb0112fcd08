import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import stalign
from stalign.core.refine import neighbour_vote


@pytest.fixture
def adata():
    adata = stalign.datasets.toy(14)
    rng = np.random.default_rng(0)
    domain = adata.obs["domain"].cat.codes.to_numpy()
    features = np.eye(6)[domain] + 0.45 * rng.normal(size=(adata.n_obs, 6))
    adata.obsm["rep"] = (features * rng.uniform(1, 9, (adata.n_obs, 1))).astype(np.float32)
    return adata


def test_the_protocol_step_by_step(adata):
    got = stalign.tl.zero_shot(adata, "domain", use_rep="rep", n_init=5, random_state=3)
    values = adata.obsm["rep"].astype(float)
    units = values / np.linalg.norm(values, axis=1, keepdims=True)
    raw = KMeans(7, n_init=5, max_iter=500, random_state=3).fit(units).labels_
    smooth = neighbour_vote(raw, adata.obsm["spatial"], 5)
    row = got.iloc[0]
    assert row["library"] == "toy" and row["n_domains"] == 7 and row["n_truth"] == 5
    for name, labels in (("", raw), ("_smoothed", smooth)):
        assert row[f"ARI{name}"] == pytest.approx(adjusted_rand_score(adata.obs["domain"], labels))
        assert row[f"NMI{name}"] == pytest.approx(normalized_mutual_info_score(adata.obs["domain"], labels))
    assert row["NMI_smoothed"] > row["NMI"]


def test_each_section_is_cut_alone_and_the_mean_is_over_sections(adata):
    adata.obs["section"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    options = {"use_rep": "rep", "n_domains": "labels", "n_init": 3}
    got = stalign.tl.zero_shot(adata, "domain", library_key="section", **options)
    assert got["library"].tolist() == ["a", "b", "mean"]
    alone = stalign.tl.zero_shot(adata[adata.obs["section"] == "b"].copy(), "domain", **options)
    assert got["ARI"].iloc[1] == pytest.approx(alone["ARI"].iloc[0])
    assert got["ARI"].iloc[2] == pytest.approx(got["ARI"].iloc[:2].mean())


def test_spots_without_label_are_cut_but_not_scored(adata):
    whole = stalign.tl.zero_shot(adata, "domain", use_rep="rep", n_init=3)
    adata.obs["some"] = adata.obs["domain"].astype(str).where(np.arange(adata.n_obs) > 30, "NA")
    adata.obsm["rep"][-2:] = np.nan
    got = stalign.tl.zero_shot(adata, "some", use_rep="rep", n_init=3)
    assert got["n_scored"].iloc[0] == adata.n_obs - 33
    assert got["n_spots"].iloc[0] == whole["n_spots"].iloc[0] == adata.n_obs


def test_wrong_input_is_refused(adata):
    with pytest.raises(KeyError, match="`truth`"):
        stalign.tl.zero_shot(adata, "layer", use_rep="rep")
    with pytest.raises(KeyError, match="X_stalign_image"):
        stalign.tl.zero_shot(adata, "domain")
    with pytest.raises(TypeError, match="`n_domains`"):
        stalign.tl.zero_shot(adata, "domain", use_rep="rep", n_domains="all")
    adata.obs["none"] = "NA"
    with pytest.raises(ValueError, match="labelled spots with an embedding"):
        stalign.tl.zero_shot(adata, "none", use_rep="rep")
