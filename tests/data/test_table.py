from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from stalign.data import gene_ids, has_counts, read_counts, read_totals, table_of
from stalign.data.table import library_column


def make(matrix=None, **var):
    matrix = np.array([[0, 2, 1], [3, 0, 0]]) if matrix is None else matrix
    adata = AnnData(X=matrix)
    for name, values in var.items():
        adata.var[name] = values
    return adata


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_counts_come_as_csr_float32_whatever_the_storage(kind):
    dense = np.array([[0, 2, 1], [3, 0, 0]])
    counts, totals = read_counts(make(kind(dense)))
    assert isinstance(counts, sparse.csr_matrix)
    assert counts.dtype == np.float32
    assert totals is None
    np.testing.assert_array_equal(counts.toarray(), dense)


def test_counts_of_a_layer_and_not_of_x():
    adata = make(np.array([[0.5, 0.5, 0.5], [-1.0, 0, 0]]))
    adata.layers["raw"] = sparse.csr_matrix([[1, 0, 4], [0, 0, 2]])
    counts, _ = read_counts(adata, layer="raw")
    np.testing.assert_array_equal(counts.toarray(), [[1, 0, 4], [0, 0, 2]])


def test_reading_counts_leaves_the_table_alone():
    unsorted = sparse.csr_matrix((np.array([1.0, 2.0, 3.0]), np.array([2, 0, 0]), np.array([0, 2, 3])), shape=(2, 3))
    unsorted.has_canonical_format = False
    unsorted = unsorted.astype(np.float32)
    adata = make(unsorted)
    before = adata.X.indices.copy()
    counts, _ = read_counts(adata)
    np.testing.assert_array_equal(adata.X.indices, before)
    np.testing.assert_array_equal(counts.toarray(), [[2, 0, 1], [3, 0, 0]])


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        (np.array([[0.0, -1.0]]), "negative values down to -1"),
        (np.array([[0.0, np.nan]]), "1 NaN or infinite"),
        (np.array([[np.inf, 1.0]]), "1 NaN or infinite"),
    ],
)
def test_bad_counts_raise(matrix, says):
    with pytest.raises(ValueError, match=says):
        read_counts(AnnData(X=matrix))


def test_counts_that_are_not_whole_warn_and_are_not_rounded():
    with pytest.warns(UserWarning, match="not whole numbers"):
        counts, _ = read_counts(AnnData(X=np.array([[0.5, 1.0]])))
    np.testing.assert_array_equal(counts.toarray(), [[0.5, 1.0]])


def test_normalised_counts_point_to_raw():
    adata = AnnData(X=np.array([[0.5, 1.0]]))
    adata.raw = AnnData(X=np.array([[1.0, 2.0]]))
    with pytest.warns(UserWarning, match="in `.raw`"):
        read_counts(adata)
    adata.layers["counts"] = adata.raw[:, adata.var_names].X
    np.testing.assert_array_equal(read_counts(adata, layer="counts")[0].toarray(), [[1, 2]])


@pytest.mark.parametrize("data", ["section.h5ad", pathlib.Path("outs")])
def test_a_path_is_to_be_read_first(data):
    with pytest.raises(TypeError, match="stalign.io.read_h5ad"):
        table_of(data)


def test_unknown_layer_lists_layers_also_when_only_asking():
    adata = make()
    adata.layers["counts"] = adata.X
    for call in (read_counts, has_counts):
        with pytest.raises(KeyError, match="'nope'.*'counts'"):
            call(adata, layer="nope")


def test_no_counts_are_said_or_raise():
    without_x = AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=["g"]))
    without_genes = AnnData(obs=pd.DataFrame(index=["a"]))
    assert not has_counts(without_x)
    assert not has_counts(without_genes)
    assert has_counts(make())
    with pytest.raises(ValueError, match="no matrix"):
        read_counts(without_x)


def test_totals_are_read_and_checked():
    adata = make()
    adata.obs["sum_umi"] = [10, 20]
    adata.obs["bad"] = [1.0, np.nan]
    adata.obs["text"] = ["a", "b"]
    np.testing.assert_array_equal(read_totals(adata, "sum_umi"), [10.0, 20.0])
    with pytest.raises(KeyError, match="'nope'.*'sum_umi', 'bad'"):
        read_counts(adata, total_counts="nope")
    with pytest.raises(ValueError, match="1 negative or missing"):
        read_totals(adata, "bad")
    with pytest.raises(ValueError, match="numbers in obs"):
        read_totals(adata, "text")


def test_symbols_win_over_ensembl_ids_and_fill_gaps():
    adata = make(gene_name=["SNAP25", np.nan, ""])
    adata.var_names = ["ENSG00000132639.15", "ENSG00000000002", "ENSG00000000003"]
    assert gene_ids(adata) == (["SNAP25", "ENSG00000000002", "ENSG00000000003"], "ensembl")
    adata.var["gene_name"] = ["SNAP25", "MBP", ""]
    assert gene_ids(adata) == (["SNAP25", "MBP", "ENSG00000000003"], "symbol")
    assert gene_ids(adata.copy()[:, :0].copy())[0] == []


def test_gene_names_without_symbols_and_by_column():
    adata = make(other=["A", "B", "C"])
    assert gene_ids(adata) == (["0", "1", "2"], "symbol")
    assert gene_ids(adata, "other") == (["A", "B", "C"], "symbol")
    adata.var_names = ["0", "1", np.nan]
    assert gene_ids(adata) == (["0", "1", "nan"], "symbol")
    adata.var_names = ["ENSMUSG00000000001", "ENSMUSG00000000002", "ENSMUSG00000000003.2"]
    assert gene_ids(adata)[1] == "ensembl"
    with pytest.raises(KeyError, match="'nope'.*'other'"):
        gene_ids(adata, "nope")


def test_table_of_refuses_what_it_cannot_use(tmp_path):
    with pytest.raises(TypeError, match="Found: list"):
        table_of([make()])
    make().write_h5ad(tmp_path / "a.h5ad")
    import anndata

    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"to_memory\(\)"):
        table_of(backed)
    backed.file.close()


def test_table_of_spatialdata_needs_a_name_only_where_there_is_a_choice():
    import stalign

    sdata = stalign.datasets.toy(n_rows=8, spatialdata=True)
    assert table_of(sdata) is sdata.tables["table"]
    sdata.tables["other"] = make()
    assert table_of(sdata) is sdata.tables["table"]
    assert table_of(sdata, "other") is sdata.tables["other"]
    with pytest.raises(KeyError, match="'nope'.*'other', 'table'"):
        table_of(sdata, "nope")
    sdata.tables["third"] = make()
    del sdata.tables["table"]
    with pytest.raises(KeyError, match="table_key"):
        table_of(sdata)


def test_library_column_orders_and_complains():
    adata = AnnData(X=np.zeros((4, 1)))
    adata.obs["text"] = ["b", "a", "b", "a"]
    adata.obs["cat"] = pd.Categorical(["b", "a", "b", "a"], categories=["z", "b", "a"])
    adata.obs["gap"] = pd.Categorical(["b", None, "b", "a"])
    adata.obs["number"] = [1, 2, 1, 2]
    names, codes = library_column(adata, "text")
    assert names == ["a", "b"]
    np.testing.assert_array_equal(codes, [1, 0, 1, 0])
    names, codes = library_column(adata, "cat")
    assert names == ["b", "a"]
    np.testing.assert_array_equal(codes, [0, 1, 0, 1])
    assert library_column(adata, "number")[0] == ["1", "2"]
    with pytest.raises(KeyError, match="'nope'.*'text', 'cat', 'gap'"):
        library_column(adata, "nope")
    with pytest.raises(ValueError, match="1 missing"):
        library_column(adata, "gap")
