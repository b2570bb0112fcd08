"""What users get wrong: each case raises an error that says what to do, or gives the result that is documented.

After an error the user's object is as it was.
"""

from __future__ import annotations

import shutil

import anndata
import numpy as np
import pytest
from scipy import sparse

import stalign
from stalign._constants import Keys
from stalign.data import open_sections as sections
from stalign.data import section_row
from stalign.models import save

ALL = (Keys.EMBED, Keys.EMBED_IMAGE, Keys.EMBED_GENE)


@pytest.fixture(scope="session")
def _slide():
    return stalign.datasets.toy(n_rows=12)


@pytest.fixture
def slide(_slide):
    return _slide.copy()


@pytest.fixture(scope="session")
def weights(small_weights):
    return small_weights()


@pytest.fixture
def refused(snapshot):
    """Check that a call raises an error of one line, and leaves the object as it was."""

    def check(function, data, error, match, *args, **options):
        before = snapshot(data)
        with pytest.raises(error, match=match) as caught:
            function(data, *args, **options)
        assert "\n" not in str(caught.value)
        assert snapshot(data) == before

    return check


def modality(adata):
    return dict(adata.uns[Keys.UNS]["embed"]["sections"][["section", "modality"]].to_numpy())


def set_counts(adata, rows, value):
    matrix = adata.X.tolil()
    matrix[rows] = value
    adata.X = matrix.tocsr()


class TestImages:
    def test_a_coarse_image_falls_back_to_the_genes(self, slide, small_weights, log):
        fine, coarse = small_weights(), small_weights(max_mpp=1.5)
        slide.obs["before"] = 1
        genes = stalign.tl.embed(slide, fine, image=False, copy=True)
        stalign.tl.embed(slide, coarse)
        assert "2.0 µm per px, coarser than the 1.5 µm per px" in log.text
        assert modality(slide) == {"toy": "gene"}
        np.testing.assert_array_equal(slide.obsm[Keys.EMBED], genes.obsm[Keys.EMBED])
        assert Keys.EMBED_IMAGE not in slide.obsm

    def test_a_coarse_image_and_no_counts(self, slide, small_weights, refused):
        slide.X = None
        refused(stalign.tl.embed, slide, ValueError, "too coarse.*at most 1.5 µm per px", small_weights(max_mpp=1.5))

    def test_no_image(self, slide, weights):
        del slide.uns[Keys.UNS_SPATIAL]
        stalign.tl.embed(slide, weights)
        assert modality(slide) == {"section": "gene"}

    def test_no_image_where_patches_are_asked_for(self, slide, refused):
        del slide.uns[Keys.UNS_SPATIAL]["toy"]["images"]["hires"]
        refused(stalign.pp.patches, slide, ValueError, "Expected an image to cut patches from")

    def test_no_counts(self, slide, weights):
        slide.X = None
        stalign.tl.embed(slide, weights)
        assert modality(slide) == {"toy": "image"}

    def test_neither(self, slide, weights, refused):
        slide.X = None
        del slide.uns[Keys.UNS_SPATIAL]
        refused(stalign.tl.embed, slide, ValueError, "Expected an image or counts.*Put raw counts in", weights)

    def test_both_switched_off(self, slide, weights, refused):
        refused(stalign.tl.embed, slide, ValueError, "`image` and `genes`", weights, image=False, genes=False)

    def test_an_unknown_image(self, slide, weights, refused):
        for function, args in ((stalign.pp.patches, ()), (stalign.tl.embed, (weights,))):
            refused(function, slide, KeyError, "'fullres'.*Available: 'hires'", *args, image_key="fullres")

    def test_no_scale_factor(self, slide, weights, refused):
        del slide.uns[Keys.UNS_SPATIAL]["toy"]["scalefactors"]["tissue_hires_scalef"]
        refused(stalign.tl.embed, slide, KeyError, "tissue_hires_scalef", weights)


class TestCounts:
    def test_an_unknown_layer(self, slide, weights, refused):
        slide.layers["raw"] = slide.X.copy()
        refused(stalign.tl.embed, slide, KeyError, "'counts'.*Available: 'raw'", weights, layer="counts")

    def test_negative_counts(self, slide, weights, refused):
        slide.X = slide.X.astype(np.float32)
        slide.X.data[5] = -2.5
        refused(stalign.tl.embed, slide, ValueError, "negative values down to -2.5.*`layer=`", weights)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_counts_that_are_not_finite(self, slide, weights, refused, value):
        slide.X = slide.X.astype(np.float32)
        slide.X.data[5] = value
        refused(stalign.tl.embed, slide, ValueError, "1 NaN or infinite", weights)

    def test_counts_that_are_not_whole(self, slide, weights):
        whole = stalign.tl.embed(slide, weights, copy=True)
        slide.layers["raw"] = slide.X
        slide.X = slide.X * 0.3
        with pytest.warns(UserWarning, match="not whole numbers.*Available: 'raw'") as caught:
            stalign.tl.embed(slide, weights)
        assert len(caught) == 1
        # they are used as they are, and only their ratios matter
        np.testing.assert_allclose(slide.obsm[Keys.EMBED], whole.obsm[Keys.EMBED], atol=1e-3)

    def test_all_zero_and_no_image(self, slide, weights, refused):
        slide.X = sparse.csr_matrix(slide.shape, dtype=np.float32)
        refused(
            stalign.tl.embed, slide, ValueError, "at least one spot with counts in section 'toy'", weights, image=False
        )

    def test_all_zero_with_an_image(self, slide, weights):
        slide.X = sparse.csr_matrix(slide.shape, dtype=np.float32)
        stalign.tl.embed(slide, weights)
        assert modality(slide) == {"toy": "image"}

    def test_spots_without_counts(self, slide, weights):
        stalign.tl.embed(slide, weights)
        coords = sections(slide)[0].coords_um
        around = np.flatnonzero(np.linalg.norm(coords - coords[30], axis=1) < 250)  # three times 80 µm are its niche
        set_counts(slide, around, 0)
        both = stalign.tl.embed(slide, weights, copy=True)
        assert both.obs[Keys.VALID].all()
        assert np.isfinite(both.obsm[Keys.EMBED]).all()
        assert np.isnan(both.obsm[Keys.EMBED_GENE][30]).all()
        with pytest.warns(UserWarning, match="could not be embedded") as caught:
            stalign.tl.embed(slide, weights, image=False)
        assert len(caught) == 1
        valid = slide.obs[Keys.VALID].to_numpy()
        assert not valid[30]
        np.testing.assert_array_equal(np.isnan(slide.obsm[Keys.EMBED]).any(axis=1), ~valid)
        np.testing.assert_array_equal(np.isnan(slide.obsm[Keys.EMBED]).all(axis=1), ~valid)

    @pytest.mark.parametrize(
        "form", ["dense", "float64", "int64", "csc", "explicit zeros", "array", "unsorted", "uint16"]
    )
    def test_the_storage_of_the_counts(self, slide, weights, form):
        expected = stalign.tl.embed(slide, weights, copy=True)
        counts = slide.X
        if form == "explicit zeros":
            zero = sparse.csr_matrix(np.where(counts.toarray() == 0, 1.0, 0.0)[:, :50])
            counts = (sparse.hstack([zero, sparse.csr_matrix((slide.n_obs, 820))]) + counts).tocsr()
            counts.data[np.isin(counts.indices, np.arange(50)) & (slide.X.toarray()[counts.nonzero()] == 0)] = 0
            assert (counts.data == 0).sum() > 100
        if form == "unsorted":
            counts = counts.copy()
            for start, end in zip(counts.indptr, counts.indptr[1:], strict=False):
                counts.indices[start:end] = counts.indices[start:end][::-1].copy()
                counts.data[start:end] = counts.data[start:end][::-1].copy()
            counts.has_sorted_indices = False
        slide.X = {
            "dense": lambda: counts.toarray(),
            "float64": lambda: counts.astype(np.float64),
            "int64": lambda: counts.astype(np.int64),
            "uint16": lambda: counts.toarray().astype(np.uint16),
            "csc": lambda: counts.tocsc(),
            "array": lambda: sparse.csr_array(counts),
        }.get(form, lambda: counts)()
        stalign.tl.embed(slide, weights)
        for key in ALL:
            np.testing.assert_allclose(slide.obsm[key], expected.obsm[key], atol=1e-4, err_msg=key)

    @pytest.mark.parametrize(
        ("values", "error", "match"),
        [
            (None, KeyError, "`total_counts` to name a column"),
            (["many"], ValueError, "Expected numbers"),
            ([-1.0], ValueError, "negative or missing"),
            ([np.nan], ValueError, "negative or missing"),
        ],
    )
    def test_bad_totals(self, slide, weights, refused, values, error, match):
        if values is not None:
            slide.obs["sum_umi"] = values * slide.n_obs
        refused(stalign.tl.embed, slide, error, match, weights, total_counts="sum_umi")


class TestGenes:
    @pytest.mark.filterwarnings("ignore:Variable names are not unique")
    def test_duplicate_names_are_summed(self, slide, weights):
        expected = stalign.tl.embed(slide, weights, copy=True)
        half = sparse.csr_matrix(np.floor(slide.X.toarray() / 2))
        names = slide.var_names
        slide = anndata.concat([slide, slide], axis=1, merge="first", uns_merge="first")
        slide.X = sparse.hstack([half, expected.X - half]).tocsr()
        slide.var_names = [*names, *names]
        stalign.tl.embed(slide, weights)
        np.testing.assert_allclose(slide.obsm[Keys.EMBED], expected.obsm[Keys.EMBED], atol=1e-4)
        assert section_row(slide, "embed", "toy")["n_genes"] == 2 * len(names)

    def test_no_known_gene(self, slide, weights, refused):
        slide.var_names = [f"gene_{i}" for i in range(slide.n_vars)]
        refused(stalign.tl.embed, slide, ValueError, "such as .*SNAP25.*gene_0", weights)

    def test_numbers_for_names(self, slide, weights, refused):
        slide.var["symbol"] = slide.var_names
        slide.var_names = [str(i) for i in range(slide.n_vars)]
        refused(stalign.tl.embed, slide, ValueError, "These are numbers.*`gene_key=`", weights)
        stalign.tl.embed(slide, weights, gene_key="symbol")
        assert section_row(slide, "embed", "toy")["gene_coverage"] == 1

    def test_few_known_genes_warn(self, slide, weights):
        names = [name if i < 50 else f"gene_{i}" for i, name in enumerate(slide.var_names)]
        slide.var_names = names
        with pytest.warns(UserWarning, match=r"50 of 870 \(6%\).*gene_50"):
            stalign.tl.embed(slide, weights)
        assert section_row(slide, "embed", "toy")["n_genes"] == 50

    def test_an_unknown_column_of_names(self, slide, weights, refused):
        slide.var["gene_name"] = slide.var_names
        refused(stalign.tl.embed, slide, KeyError, "'symbols'.*Available: 'gene_name'", weights, gene_key="symbols")

    @pytest.mark.parametrize("versioned", [False, True])
    def test_ensembl_ids(self, slide, small_weights, versioned):
        ids = [f"ENSG{i:011d}" for i in range(slide.n_vars)]
        weights = small_weights(genes=slide.var_names, ensembl=ids)
        expected = stalign.tl.embed(slide, weights, copy=True)
        slide.var_names = [f"{name}.{i % 20}" if versioned else name for i, name in enumerate(ids)]
        stalign.tl.embed(slide, weights)
        np.testing.assert_array_equal(slide.obsm[Keys.EMBED], expected.obsm[Keys.EMBED])

    def test_ensembl_ids_with_weights_that_know_none(self, slide, weights, refused):
        slide.var_names = [f"ENSG{i:011d}" for i in range(slide.n_vars)]
        refused(stalign.tl.embed, slide, ValueError, "Ensembl ids where symbols are expected", weights)

    def test_ensembl_ids_beside_a_column_of_symbols(self, slide, weights, log):
        expected = stalign.tl.embed(slide, weights, copy=True)
        slide.var["gene_name"] = slide.var_names
        slide.var_names = [f"ENSG{i:011d}" for i in range(slide.n_vars)]
        stalign.tl.embed(slide, weights)
        assert "symbols are read from var['gene_name']" in log.text
        np.testing.assert_array_equal(slide.obsm[Keys.EMBED], expected.obsm[Keys.EMBED])

    def test_mouse_symbols_match_without_regard_to_case(self, slide, weights):
        expected = stalign.tl.embed(slide, weights, copy=True)
        slide.var_names = [name.capitalize() for name in slide.var_names]
        stalign.tl.embed(slide, weights)
        np.testing.assert_allclose(slide.obsm[Keys.EMBED], expected.obsm[Keys.EMBED], atol=1e-5)

    def test_mouse_symbols_with_a_table_of_orthologs(self, slide, weights):
        expected = stalign.tl.embed(slide, weights, copy=True)
        table = {f"Mouse{i}": name for i, name in enumerate(slide.var_names)}
        slide.var_names = list(table)
        stalign.tl.embed(slide, weights, orthologs=table)
        np.testing.assert_allclose(slide.obsm[Keys.EMBED], expected.obsm[Keys.EMBED], atol=1e-5)


class TestPositions:
    def test_none(self, slide, weights, refused):
        del slide.obsm[Keys.SPATIAL]
        for function, args in ((stalign.pp.niches, ()), (stalign.pp.patches, ()), (stalign.tl.embed, (weights,))):
            refused(function, slide, KeyError, "Expected coordinates in obsm", *args)

    def test_outside_the_image(self, slide, weights, refused):
        slide.obsm[Keys.SPATIAL] = slide.obsm[Keys.SPATIAL] + 9e4
        for function, args in ((stalign.pp.patches, ()), (stalign.tl.embed, (weights,))):
            refused(function, slide, ValueError, "inside its image 'hires'.*Check the scale factors", *args)

    @pytest.mark.filterwarnings("ignore:Expected the coordinates of section")
    def test_in_px_of_another_image(self, slide, weights, refused):
        slide.uns[Keys.UNS_SPATIAL]["toy"]["scalefactors"]["tissue_hires_scalef"] = 1.0
        refused(stalign.tl.embed, slide, ValueError, "They would fit with|Check the scale factors", weights)

    def test_x_and_y_swapped(self, weights, refused):
        wide = stalign.datasets.toy(n_rows=16)
        wide = wide[wide.obs["array_row"] < 7].copy()  # wider than high, as its image
        picture = wide.uns[Keys.UNS_SPATIAL]["toy"]["images"]
        picture["hires"] = picture["hires"][: picture["hires"].shape[0] // 2]
        stalign.tl.embed(wide, weights, copy=True)
        wide.obsm[Keys.SPATIAL] = wide.obsm[Keys.SPATIAL][:, ::-1]
        for function, args in ((stalign.pp.patches, ()), (stalign.tl.embed, (weights,))):
            refused(function, wide, ValueError, r"x and y look swapped: use obsm\['spatial'\]\[:, ::-1\]", *args)

    def test_nan(self, slide, weights):
        whole = stalign.tl.embed(slide, weights, copy=True)
        lost = [3, 77]
        slide.obsm[Keys.SPATIAL][lost] = np.nan
        with pytest.warns(UserWarning, match=f"2 of {slide.n_obs} spots could not be embedded") as caught:
            stalign.tl.embed(slide, weights)
        assert len(caught) == 1
        assert np.flatnonzero(~slide.obs[Keys.VALID]).tolist() == lost
        for key in ALL:
            assert np.isnan(slide.obsm[key][lost]).all()
            assert np.isfinite(np.delete(slide.obsm[key], lost, axis=0)).all()
        graph = slide.obsp[Keys.NICHE_GRAPH]
        assert graph[lost].nnz == 0
        assert graph[:, lost].nnz == 0
        # spots whose niches were not concerned look the same
        niches = whole.obsp[Keys.NICHE_GRAPH]
        far = np.flatnonzero(np.asarray(niches[:, lost].sum(axis=1)).ravel() == 0)
        cosine = _cosine(slide.obsm[Keys.EMBED_IMAGE][far], whole.obsm[Keys.EMBED_IMAGE][far])
        assert cosine.min() > 0.99

    def test_all_nan(self, slide, weights, refused):
        slide.obsm[Keys.SPATIAL] = np.full((slide.n_obs, 2), np.nan)
        refused(stalign.tl.embed, slide, ValueError, f"NaN for all of its {slide.n_obs} spots", weights)

    @pytest.mark.parametrize("mpp", [0, -1.0, np.nan])
    def test_a_scale_that_is_no_length(self, slide, weights, refused, mpp):
        refused(stalign.tl.embed, slide, ValueError, "`mpp` to be a positive number", weights, mpp=mpp)

    def test_another_shape(self, slide, weights, refused):
        slide.obsm[Keys.SPATIAL] = slide.obsm[Keys.SPATIAL][:, :1]
        refused(stalign.tl.embed, slide, ValueError, "Expected x and y", weights)


def _cosine(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


class TestFewSpots:
    @pytest.mark.parametrize("n", [2, 3])
    def test_fewer_spots_than_neighbours(self, slide, weights, n):
        few = slide[60 : 60 + n].copy()
        stalign.tl.embed(few, weights)
        for key in ALL:
            assert few.obsm[key].shape == (n, 16)
            assert np.isfinite(few.obsm[key]).all()
        graph = few.obsp[Keys.NICHE_GRAPH].toarray()
        np.testing.assert_allclose(graph, np.full((n, n), 1 / n), rtol=1e-6)

    @pytest.mark.parametrize("n", [1, 2])
    def test_genes_alone(self, slide, weights, n):
        few = slide[:n].copy()
        stalign.tl.embed(few, weights, image=False)
        assert np.isfinite(few.obsm[Keys.EMBED]).all()

    def test_none(self, slide, weights, refused):
        none = slide[:0].copy()
        refused(stalign.tl.embed, none, ValueError, "at least one spot", weights)

    def test_one_spot_needs_a_scale_for_its_image(self, slide, weights, refused):
        whole = stalign.tl.embed(slide, weights, copy=True)
        one = slide[60:61].copy()
        refused(stalign.tl.embed, one, ValueError, "physical scale.*Pass `mpp=`", weights)
        stalign.tl.embed(one, weights, mpp=0.5)
        np.testing.assert_allclose(one.obsm[Keys.SPOT_WINDOW][0], whole.obsm[Keys.SPOT_WINDOW][60], rtol=0.02)
        for key in ALL:
            assert one.obsm[key].shape == (1, 16)
            assert np.isfinite(one.obsm[key]).all()


class TestContainers:
    def test_a_view_becomes_a_copy_and_the_original_stays(self, slide, weights, snapshot):
        before = snapshot(slide)
        view = slide[10:90]
        with pytest.warns(anndata.ImplicitModificationWarning):
            stalign.tl.embed(view, weights)
        assert not view.is_view
        assert view.obsm[Keys.EMBED].shape == (80, 16)
        assert snapshot(slide) == before

    def test_a_view_is_left_alone_by_a_copy(self, slide, weights):
        view = slide[10:90]
        copy = stalign.tl.embed(view, weights, copy=True)
        assert view.is_view
        assert Keys.EMBED in copy.obsm
        own = slide[10:90].copy()
        stalign.tl.embed(own, weights)
        np.testing.assert_array_equal(copy.obsm[Keys.EMBED], own.obsm[Keys.EMBED])

    def test_a_backed_table(self, slide, weights, tmp_path):
        slide.write_h5ad(tmp_path / "slide.h5ad")
        backed = anndata.read_h5ad(tmp_path / "slide.h5ad", backed="r")
        for function in (stalign.pp.niches, stalign.pp.patches, stalign.tl.embed):
            with pytest.raises(ValueError, match=r"backed AnnData.*data = data.to_memory\(\)"):
                function(backed)
        loaded = backed.to_memory()
        backed.file.close()
        stalign.tl.embed(loaded, weights)
        assert Keys.EMBED in loaded.obsm

    @pytest.mark.parametrize("thing", [None, 3, "slide.h5ad", np.zeros((3, 2))])
    def test_no_table_at_all(self, thing, weights):
        for function in (stalign.pp.niches, stalign.pp.patches):
            with pytest.raises(TypeError, match="Expected an AnnData or a SpatialData"):
                function(thing)
        with pytest.raises(TypeError, match="Expected an AnnData or a SpatialData"):
            stalign.tl.embed(thing, weights)

    @pytest.mark.filterwarnings("ignore:Observation names are not unique")
    def test_names_of_spots_that_come_twice(self, slide, weights):
        expected = stalign.tl.embed(slide, weights, copy=True)
        slide.obs_names = ["spot"] * slide.n_obs
        stalign.tl.embed(slide, weights)
        stalign.tl.domains(slide, 3)
        np.testing.assert_array_equal(slide.obsm[Keys.EMBED], expected.obsm[Keys.EMBED])
        assert slide.obs[Keys.DOMAIN].notna().all()

    def test_several_sections_that_are_not_told_apart(self, weights, refused):
        pair = stalign.datasets.toy(n_rows=8, n_sections=2)
        refused(stalign.tl.embed, pair, KeyError, "Pass `library_key='library'`", weights)

    def test_an_unknown_column_of_sections(self, slide, weights, refused):
        refused(stalign.tl.embed, slide, KeyError, "'sample'.*Available.*'library'", weights, library_key="sample")

    def test_spots_without_a_section(self, slide, weights, refused):
        slide.obs["sample"] = ["a"] * (slide.n_obs - 1) + [None]
        refused(stalign.tl.embed, slide, ValueError, "1 missing values", weights, library_key="sample")


class TestWeights:
    @pytest.fixture
    def folder(self, weights, tmp_path):
        return save(tmp_path / "mine", weights.network, vocabulary=weights.vocabulary)

    def test_an_unknown_name(self, slide, refused):
        refused(stalign.tl.embed, slide, ValueError, "'stalign-maxi'.*Available: 'stalign-mini'", "stalign-maxi")

    def test_a_path_to_nothing(self, slide, refused, tmp_path):
        refused(stalign.tl.embed, slide, FileNotFoundError, "nothing at", tmp_path / "mine")

    def test_another_kind_of_file(self, slide, refused, tmp_path):
        path = tmp_path / "model.pt"
        path.write_bytes(b"PK\x03\x04")
        refused(stalign.tl.embed, slide, ValueError, "Expected a folder with config.json.*the file", path)

    def test_a_folder_of_something_else(self, slide, refused, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "vit"}')
        refused(stalign.tl.embed, slide, ValueError, "no weights.safetensors", tmp_path)
        (tmp_path / "weights.safetensors").write_bytes(b"")
        refused(stalign.tl.embed, slide, ValueError, "This is no stalign checkpoint", tmp_path)

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
    def test_truncated_weights(self, slide, refused, folder, share):
        file = folder / "weights.safetensors"
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])
        refused(stalign.tl.embed, slide, ValueError, "bytes in .*truncated", folder)

    def test_changed_weights(self, slide, refused, folder):
        file = folder / "weights.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 255
        file.write_bytes(bytes(content))
        refused(stalign.tl.embed, slide, ValueError, "Expected sha256.*changed", folder)

    def test_truncated_configuration(self, slide, refused, folder):
        file = folder / "config.json"
        file.write_text(file.read_text()[:-100])
        refused(stalign.tl.embed, slide, ValueError, "Expected JSON.*truncated", folder)

    def test_weights_of_another_network(self, slide, refused, folder, small_weights, tmp_path):
        other = small_weights(genes=["SNAP25", "MBP"])
        mixed = save(tmp_path / "other", other.network, vocabulary=other.vocabulary)
        shutil.copy(folder / "config.json", mixed / "config.json")
        refused(stalign.tl.embed, slide, ValueError, "bytes in|sha256", mixed)


class TestArguments:
    @pytest.mark.parametrize("batch_size", [0, -5])
    def test_batches_of_no_spots(self, slide, weights, refused, batch_size):
        refused(stalign.tl.embed, slide, ValueError, "`batch_size` to be at least 1", weights, batch_size=batch_size)

    @pytest.mark.parametrize("device", ["nope", "cuda:99", "gpu"])
    def test_a_device_that_is_not_there(self, slide, weights, refused, device):
        refused(stalign.tl.embed, slide, ValueError, f"torch can use.*'{device}'.*device='cpu'", weights, device=device)

    @pytest.mark.parametrize("n_neighbors", [0, -1])
    def test_no_neighbours(self, slide, refused, n_neighbors):
        refused(stalign.pp.niches, slide, ValueError, "at least 1", n_neighbors)

    def test_neighbours_that_are_no_number(self, slide, refused):
        refused(stalign.pp.niches, slide, TypeError, "whole number", 2.5)

    def test_more_domains_than_spots(self, slide, weights, refused):
        few = slide[:5].copy()
        stalign.tl.embed(few, weights)
        refused(stalign.tl.domains, few, ValueError, "Expected at least 7 usable spots", 7)

    def test_domains_before_an_embedding(self, slide, refused):
        refused(stalign.tl.domains, slide, KeyError, "Run `stalign.tl.embed` first", 3)


@pytest.mark.real
def test_the_coarse_images_of_the_brain_sections_are_left_out(shared_data, packaged, log):
    adata = stalign.io.read_h5ad(shared_data / "dlpfc" / "151673.h5ad")[:400].copy()
    stalign.tl.embed(adata, packaged, gene_key="gene_name", total_counts="sum_umi")
    assert set(modality(adata).values()) == {"gene"}
    assert "coarser than the 8.0 µm per px" in log.text
