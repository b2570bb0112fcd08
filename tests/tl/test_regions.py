import anndata as ad
import numpy as np
import pytest

import stalign


@pytest.fixture
def adata():
    adata = stalign.datasets.toy(12)
    rng = np.random.default_rng(0)
    domain = adata.obs["domain"].cat.codes.to_numpy()
    for key in ("image", "gene"):
        adata.obsm[key] = (np.eye(8)[domain] + 0.05 * rng.normal(size=(adata.n_obs, 8))).astype(np.float32)
    return adata


def test_regions_follow_place_and_features(adata):
    stalign.tl.regions(adata, use_rep=("image", "gene"))
    found = adata.obs["stalign_region"]
    counts = found.value_counts(sort=False)
    assert list(found.cat.categories) == [str(i) for i in range(1, len(counts) + 1)]
    assert counts.is_monotonic_decreasing and 3 <= len(counts) <= 15
    assert len(adata.uns["stalign_region_colors"]) == len(counts)
    assert adata.uns["stalign_region"]["params"]["use_rep"] == ["image", "gene"]
    again = stalign.tl.regions(adata, use_rep=("image", "gene"), copy=True)
    assert again.obs["stalign_region"].equals(found)


def test_no_region_lies_in_two_sections_and_each_is_cut_alone(adata):
    other = adata.copy()
    other.obs_names = [f"{name}b" for name in other.obs_names]
    both = ad.concat([adata, other], label="section", keys=["a", "b"], uns_merge="first")
    both.obs["section"] = both.obs["section"].astype("category")
    stalign.tl.regions(both, use_rep=("image", "gene"), library_key="section")
    stalign.tl.regions(adata, use_rep=("image", "gene"))
    codes = both.obs["stalign_region"].cat.codes.to_numpy()
    n, k = adata.n_obs, adata.obs["stalign_region"].cat.categories.size
    np.testing.assert_array_equal(codes[:n], adata.obs["stalign_region"].cat.codes)
    np.testing.assert_array_equal(codes[n:], codes[:n] + k)


def test_spots_without_features_have_no_region(adata):
    adata.obsm["image"][:2] = np.nan
    adata.obsm["gene"][1:3] = np.nan
    stalign.tl.regions(adata, use_rep=["image", "gene"])
    assert np.flatnonzero(adata.obs["stalign_region"].isna()).tolist() == [1]


def test_wrong_input_is_refused(adata):
    with pytest.raises(KeyError, match="X_stalign_image.*tl.embed"):
        stalign.tl.regions(adata)
    with pytest.raises(ValueError, match="not both 0"):
        stalign.tl.regions(adata, use_rep="image", alpha=0, beta=0)
    adata.obsm["image"][:] = np.nan
    with pytest.raises(ValueError, match="NaN for all"):
        stalign.tl.regions(adata, use_rep="image")


def test_regions_of_several_updates_are_drawn_side_by_side(adata):
    for seed in (0, 1):
        stalign.tl.regions(adata, use_rep="image", random_state=seed, key_added=f"epoch {25 + 10 * seed}")
    axes = stalign.pl.regions(adata, ["epoch 25", "epoch 35"], show=False)
    assert [ax.get_title() for ax in axes] == ["epoch 25", "epoch 35"]
