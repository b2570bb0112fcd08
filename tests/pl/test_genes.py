"""Measured against predicted expression."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import EllipseCollection
from scipy import sparse

from stalign.datasets import toy as make_toy
from stalign.pl import genes


@pytest.fixture
def predicted():
    adata = make_toy(n_rows=12)[:, ["MOBP", "PCP4", "CUX2", "GAPDH"]].copy()
    rng = np.random.default_rng(0)
    truth = np.log1p(adata.X.toarray()).astype(np.float32)
    adata.layers["truth"] = truth
    adata.X = (truth + rng.normal(0, [0.1, 0.5, 2.0, 9.0], truth.shape)).astype(np.float32)
    adata.var["pearson"] = [np.corrcoef(truth[:, i], adata.X[:, i])[0, 1] for i in range(4)]
    return adata


def circles(ax):
    return next(c for c in ax.collections if isinstance(c, EllipseCollection))


def test_best_genes_first_and_pearson_in_the_title(predicted):
    axes = genes(predicted, n=2, show=False)
    r = predicted.var["pearson"]
    assert [ax.get_title() for ax in axes] == [
        "MOBP measured",
        f"MOBP predicted, r = {r['MOBP']:.2f}",
        "PCP4 measured",
        f"PCP4 predicted, r = {r['PCP4']:.2f}",
    ]


def test_both_panels_share_one_scale(predicted):
    """Equal values have equal colours in both panels."""
    predicted.X[:, 0] = predicted.layers["truth"][:, 0]
    predicted.X[0, 0] += 100.0
    measured, found = genes(predicted, "MOBP", show=False)
    np.testing.assert_allclose(circles(measured).get_facecolors()[1:], circles(found).get_facecolors()[1:])
    assert not np.allclose(circles(measured).get_facecolors()[0], circles(found).get_facecolors()[0])
    assert len(measured.figure.axes) == 3  # one colour bar for both


def test_correlation_is_that_of_the_section_shown():
    adata = make_toy(n_rows=10, n_sections=2)[:, ["MOBP"]].copy()
    truth = np.log1p(adata.X.toarray()).astype(float)
    sign = np.where(adata.obs["library"] == "toy_1", 1.0, -1.0)[:, None]
    adata.layers["truth"], adata.X = truth, truth * sign
    axes = genes(adata, "MOBP", library_key="library", show=False)
    assert axes[1].get_title() == "toy_1: MOBP predicted, r = 1.00"
    assert axes[3].get_title() == "toy_2: MOBP predicted, r = -1.00"


def test_without_truth_one_panel_and_most_variable_genes(predicted):
    del predicted.layers["truth"], predicted.var["pearson"]
    axes = genes(predicted, n=2, show=False)
    assert [ax.get_title() for ax in axes] == ["GAPDH predicted", "CUX2 predicted"]


def test_sparse_truth_and_missing_values(predicted):
    predicted.layers["truth"] = sparse.csr_matrix(predicted.layers["truth"])
    predicted.X[:3, 0] = np.nan
    _, found = genes(predicted, "MOBP", show=False)
    np.testing.assert_allclose(circles(found).get_facecolors()[:3, :3], 0.7)
    assert "r = 0.9" in found.get_title() or "r = 1.0" in found.get_title()


def test_errors(predicted):
    with pytest.raises(KeyError, match="NOTAGENE"):
        genes(predicted, "NOTAGENE")
    with pytest.raises(ValueError, match="colour map"):
        genes(predicted, "MOBP", palette="nothing")


def test_the_most_reliable_genes_are_shown_and_the_figure_says_why(predicted):
    predicted.var["reliability"] = [0.12, 0.4, 0.6, 0.1]
    predicted.var["reliable"] = [False, True, True, False]
    record = {"held_out": "section", "n_patients": 1, "target": "counts", "reliable_within": "patient"}
    predicted.uns["stalign"] = {"predict_genes": record}
    del predicted.layers["truth"]
    figure = genes(predicted, n=2, show=False, return_fig=True)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["CUX2 predicted", "PCP4 predicted"]
    reason = figure.get_supxlabel()
    assert "the most reliable of 4" in reason and "CUX2 0.60, PCP4 0.40" in reason
    assert "held-out sections of the reference of one patient" in reason
    assert reason.endswith("Reliable within the reference's patient only.")
    assert figure.axes[-1].get_ylabel() == "log1p of counts"
    figure = genes(predicted, ["MOBP"], show=False, return_fig=True)
    assert figure.axes[0].get_title() == "MOBP predicted (not reliable)"
    assert "as asked for" in figure.get_supxlabel()


def test_what_a_prediction_was_fitted_to_stands_under_it(predicted, pixels):
    predicted.uns["stalign"] = {"predict_genes": {"split": "spot"}, "embed": {"weights": "stalign-mini"}}
    for options in ({}, {"title": "mine"}):
        measured, found = genes(predicted, "MOBP", show=False, **options)
        assert "Held-out spots of the same section" in found.get_xlabel().replace("\n", " ")
        assert not measured.get_xlabel() and "training" not in found.get_xlabel()
    predicted.uns["spatial"] = {"A1": predicted.uns["spatial"]["toy"]}
    predicted.uns["stalign"]["predict_genes"] = {"split": "patient", "split_key": "$x$"}
    measured, found = genes(predicted, "MOBP", show=False)
    said = found.get_xlabel().replace("\n", " ")
    assert "Fitted to other patients, each value of obs['$x$'] held out" in said
    assert "A section named A1 was in the training of stalign-mini" in said
    pixels(found.figure)
    inside = found.figure.bbox.get_points()
    box = found.xaxis.label.get_window_extent()
    assert box.y0 >= inside[0, 1] and box.x0 >= inside[0, 0] and box.x1 <= inside[1, 0]
