"""Learning of labels: what is chosen, what is kept, calibration, novelty and the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import sparse
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from stalign.core.annotation import fit_annotation
from stalign.core.annotation_choice import STRENGTHS, USUAL, USUAL_TEMPERATURE, fit_temperature
from stalign.core.annotation_features import PLAIN, SectionData, broad_views, fit_bases, view_features, views_of
from stalign.core.annotation_heads import fit_head
from stalign.core.annotation_model import AnnotationModel
from stalign.core.label_folds import label_groups, split_groups
from stalign.core.mean_field import mean_field
from stalign.core.novelty import fit_novelty
from stalign.core.refine import ring_graph
from stalign.core.scores import calibration_error, classification

NAMES = ("a", "b", "c")


def make(seed=0, n=18, noise=1.0, *, expression=False):
    """Three bands on a square grid; features are the band plus noise."""
    rng = np.random.default_rng(seed)
    coords = np.stack(np.meshgrid(range(n), range(n)), axis=-1).reshape(-1, 2).astype(float)
    labels = (coords[:, 1] * 3 // n).astype(np.intp)
    centers = 3 * np.random.default_rng(99).normal(size=(3, 6))
    rep = centers[labels] + noise * 3 * rng.normal(size=(len(coords), 6))
    values = None
    if expression:
        rates = np.random.default_rng(7).gamma(1.0, size=(3, 30))
        values = sparse.csr_matrix(np.log1p(rng.poisson(rates[labels])).astype(np.float32))
    return SectionData(rep, ring_graph(coords), labels, values, coords)


def few(section, each=8, seed=0):
    rng = np.random.default_rng(seed)
    kept = np.concatenate([rng.permutation(np.flatnonzero(section.labels == c))[:each] for c in range(3)])
    labels = np.full(len(section.labels), -1, dtype=np.intp)
    labels[kept] = section.labels[kept]
    return replace(section, labels=labels)


def fit(sections, **options):
    return fit_annotation(sections, NAMES, ["#000000"] * 3, use_rep="X", **options)


def right(model, section, truth, **options):
    return (model.predict(section, **options).probability.argmax(axis=1) == truth).mean()


def test_plain_classifier_is_that_of_scikit_learn():
    section = make()
    model = fit([section], choice=False, spatial=False)
    bases = fit_bases([section])
    features = view_features(section, bases, views_of(bases)[:1])
    x = next(iter(features.values()))
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, section.labels).predict_proba(x)
    np.testing.assert_array_equal(model.predict(section).probability.argmax(axis=1), expected.argmax(axis=1))
    assert model.strength == 0
    assert len(model.views) == 1


def test_smoothing_is_chosen_where_it_helps_and_not_where_labels_are_not_in_space():
    section = make(noise=1.5)
    chosen = fit([few(section, 20)])
    plain = fit([few(section, 20)], choice=False, spatial=False)
    assert chosen.strength > 0 or any(part.passes for view in chosen.views for part in view)
    assert right(chosen, section, section.labels) > right(plain, section, section.labels) + 0.05
    order = np.random.default_rng(1).permutation(len(section.labels))
    mixed = replace(section, rep=section.rep[order], labels=section.labels[order])
    model = fit([mixed])
    assert model.strength == 0
    assert not any(part.passes for part in model.views[0])


@pytest.mark.parametrize("carried", [False, True])
def test_smoothing_is_chosen_without_known_neighbours_where_labels_are_carried(monkeypatch, carried):
    held = []

    def spy(logs, graph, strength, *, given):
        held.append(int((given >= 0).sum()))
        return mean_field(logs, graph, strength, given=given)

    monkeypatch.setattr("stalign.core.annotation_choice.mean_field", spy)
    fit([make()], carried=carried)
    assert held
    assert all((number == 0) == carried for number in held)


def test_strength_makes_labels_likely_rather_than_right_more_often(monkeypatch):
    """Strong smoothing that is right more often, but as sure where it is wrong, is not taken."""
    section = make()
    rng, order = np.random.default_rng(0), iter(5 * STRENGTHS)
    wrong = (section.labels + 1) % 3

    def made_up(logs, graph, strength, *, given):
        strength = next(order)
        hit = rng.random(len(logs)) < {2.0: 0.9, USUAL: 0.8}.get(strength, 0.3)
        sure = np.full(len(logs), 0.98) if strength == 2 else np.where(hit, 0.98, 0.5)
        likely, rest = np.eye(3)[np.where(hit, section.labels, wrong)], np.eye(3)[np.where(hit, wrong, section.labels)]
        return sure[:, None] * likely + (0.99 - sure)[:, None] * rest + 0.01 * (1 - likely - rest)

    monkeypatch.setattr("stalign.core.annotation_choice.mean_field", made_up)
    model = fit([section])
    assert model.strength == USUAL
    assert next(order, None) is None


def test_few_labels_do_not_make_probabilities_of_one():
    section = make(noise=3.0)
    labelled = few(section, 5)
    rows = labelled.labels < 0
    found = fit([labelled]).predict(section, given=labelled.labels).probability[rows]
    assert found.max(axis=1).mean() < (found.argmax(axis=1) == section.labels[rows]).mean() + 0.1


def test_carried_labels_are_not_smoothed_unless_asked_for():
    section = make()
    assert fit([section], carried=True).strength == 0
    assert fit([section], carried=True, spatial=0.3).strength == 0.3
    assert fit([section]).strength > 0


def test_weak_evidence_is_not_outvoted_by_neighbours():
    """A high temperature, as between patients, must not leave one class everywhere."""
    section = make()
    model = replace(fit([section], spatial=0.5), temperature=20.0)
    labels = model.predict(section).probability.argmax(axis=1)
    assert len(np.unique(labels)) == 3
    assert (labels == section.labels).mean() > 0.7


def test_an_embedding_of_few_directions_in_a_wide_space_is_read():
    """Of 6 directions in 64, as that of a small section; the rest differ by rounding alone."""
    section = few(make(), 12)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(64, 6)))[0]
    wide = replace(section, rep=(section.rep @ turn.T).astype(np.float32).astype(np.float64))
    found, narrow = fit([wide]), fit([section])
    assert len(found.bases["rep"]) == 6
    np.testing.assert_allclose(found.predict(wide).probability, narrow.predict(section).probability, atol=1e-3)
    assert np.isfinite(found.predict(wide).novelty).all()


def test_nothing_is_chosen_from_fewer_than_twenty_spots():
    model = fit([few(make(), 5)])
    assert list(model.views) == broad_views(model.bases)
    assert (model.strength, model.temperature) == (USUAL, USUAL_TEMPERATURE)
    plain = fit([few(make(), 5)], choice=False, spatial=False)
    assert list(plain.views) == views_of(plain.bases)[:1]
    assert (plain.strength, plain.temperature) == (0, USUAL_TEMPERATURE)
    assert fit([few(make(), 5)], classifier=LogisticRegression(), choice=False).temperature == 1
    assert np.isnan(model.figures["accuracy"])


def test_broad_views_and_smoothing_help_with_few_labels_of_layers():
    section = make(noise=1.5)
    labelled = few(section, 5)
    broad, plain = fit([labelled]), fit([labelled], choice=False, spatial=False)
    rows = labelled.labels < 0
    gain = [
        (model.predict(section, given=labelled.labels).probability.argmax(axis=1) == section.labels)[rows].mean()
        for model in (broad, plain)
    ]
    assert gain[0] > gain[1] + 0.05


def test_near_spots_lie_within_two_rings_and_have_an_embedding():
    section = make(n=5)
    near = section.near
    assert (near != near.T).nnz == 0
    assert near.diagonal().sum() == 0
    assert near[12].sum() == 12  # a square grid: four at one step, eight at two
    broken = section.rep.copy()
    broken[7] = np.nan
    without = replace(section, rep=broken).near
    assert without[7].sum() == 0
    assert not without[12, 2]  # only reached through the spot without an embedding


def test_one_spot_per_label():
    section = make(noise=0.3)
    assert right(fit([few(section, 1)]), section, section.labels) > 0.9


@pytest.mark.parametrize("present", [[], [1]])
def test_a_single_label_is_an_error(present):
    section = make()
    labels = np.where(np.isin(section.labels, present), section.labels, -1)
    with pytest.raises(ValueError, match="at least two labels"):
        fit([replace(section, labels=labels)])


def test_labels_of_one_section_only_and_labels_absent_from_the_query():
    one, two, query = make(1, noise=0.3), make(2, noise=0.3), make(3, noise=0.3)
    one = replace(one, labels=np.where(one.labels == 2, -1, one.labels))
    assert right(fit([one, two]), query, query.labels) > 0.9
    rows = np.flatnonzero(query.labels < 2)
    part = SectionData(query.rep[rows], ring_graph(query.coords[rows]), query.labels[rows], None, query.coords[rows])
    found = fit([two]).predict(part).probability
    assert found.shape == (len(rows), 3)


def test_spots_without_features_have_no_probability_and_no_influence():
    section = make(noise=0.5)
    broken = section.rep.copy()
    broken[::7] = np.nan
    model = fit([few(section, 20)])
    found = model.predict(replace(section, rep=broken))
    assert np.isnan(found.probability[::7]).all()
    assert np.isnan(found.novelty[::7]).all()
    assert np.isfinite(found.probability[1::7]).all()
    refit = fit([replace(few(section, 20), rep=broken)])
    assert all(np.isfinite(head.coef).all() for head in refit.heads)


def test_probabilities_are_calibrated():
    reference, query = make(1, noise=1.2), make(2, noise=1.2)
    model = fit([reference])
    assert calibration_error(model.predict(query).probability, query.labels) < 0.07
    assert model.figures["calibration_error"] < 0.07


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 3))
    probability = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(3, p=row) for row in probability])
    assert fit_temperature(3 * np.log(probability), truth) == pytest.approx(3, rel=0.15)


def test_a_class_that_was_left_out_is_strange():
    section = make(noise=0.35)
    known = replace(section, labels=np.where(section.labels == 2, -1, section.labels))
    found = fit([known], choice=False).predict(section)
    assert np.median(found.novelty[section.labels == 2]) > 0.98
    assert np.median(found.novelty[section.labels < 2]) < 0.8
    assert (found.novelty[section.labels < 2] > 0.95).mean() < 0.15


def test_novelty_is_calibrated_on_held_out_classes():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], 60)
    apart = 8 * np.eye(4)[labels] + rng.normal(size=(240, 4))
    order = np.arange(240) % 5
    folds = [(np.flatnonzero(order != k), np.flatnonzero(order == k)) for k in range(5)]
    assert fit_novelty(apart, labels, 4, folds).auc > 0.95
    assert abs(fit_novelty(rng.normal(size=(240, 4)), labels, 4, folds).auc - 0.5) < 0.1


def test_expression_is_used_where_the_embedding_says_nothing():
    section = make(noise=50.0, expression=True)
    model = fit([section], genes=[f"g{i}" for i in range(30)])
    assert any(part.source != "rep" for view in model.views for part in view)
    query = make(5, noise=50.0, expression=True)
    assert right(model, query, query.labels) > 0.9
    assert right(fit([section], choice=False), query, query.labels) < 0.7


def test_rings_stay_within_sections():
    one, two = make(1), make(2)
    bases = fit_bases([one, two])
    view = views_of(bases)[2]
    together = view_features(one, bases, [view])[view]
    shifted = replace(one, coords=two.coords)
    np.testing.assert_array_equal(together, view_features(shifted, bases, [view])[view])


def test_order_of_rows_does_not_matter():
    section = few(make(noise=1.0), 20)
    order = np.random.default_rng(3).permutation(len(section.labels))
    moved = SectionData(
        section.rep[order], ring_graph(section.coords[order]), section.labels[order], None, section.coords[order]
    )
    one = fit([section], choice=False, spatial=1.0).predict(section).probability
    other = fit([moved], choice=False, spatial=1.0).predict(moved).probability
    np.testing.assert_allclose(one[order], other, atol=1e-6)


def test_folds_keep_neighbours_together():
    section = make()
    groups = label_groups([section], by_section=False)
    assert 5 <= len(np.unique(groups)) <= 30
    neighbours = sparse.coo_matrix(section.ring)
    assert (groups[neighbours.row] == groups[neighbours.col]).mean() > 0.7
    sparse_labels = np.where(np.arange(len(section.labels)) % 5 == 0, section.labels, -1)
    alone = label_groups([replace(section, labels=sparse_labels)], by_section=False)
    assert (alone[sparse_labels < 0] == -1).all()
    by_section = label_groups([section, section], by_section=True)
    assert set(by_section[: len(groups)]) == {0}
    assert set(by_section[len(groups) :]) == {1}
    for part, held in split_groups(section.labels, groups):
        assert not set(groups[part]) & set(groups[held])


@pytest.mark.parametrize("classifier", [None, LogisticRegression(max_iter=500)])
def test_saved_and_loaded(tmp_path, classifier):
    section = make(expression=True)
    model = fit([section], genes=[f"g{i}" for i in range(30)], classifier=classifier, choice=classifier is None)
    path = model.save(tmp_path / "model")
    assert path.name == "model.safetensors"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    other = AnnotationModel.load(path)
    np.testing.assert_array_equal(model.predict(section).probability, other.predict(section).probability)
    np.testing.assert_array_equal(model.predict(section).novelty, other.predict(section).novelty)
    assert (other.names, other.genes, other.views) == (model.names, model.genes, model.views)
    again = AnnotationModel.from_dict(model.to_dict())
    np.testing.assert_array_equal(model.predict(section).probability, again.predict(section).probability)


def test_other_classifiers_predict_and_say_that_they_cannot_be_saved(tmp_path):
    section = make(noise=0.5)
    model = fit([section], classifier=KNeighborsClassifier(5), choice=False)
    assert right(model, section, section.labels) > 0.9
    assert not model.can_be_saved
    with pytest.raises(TypeError, match="KNeighborsClassifier.*no pickles"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        AnnotationModel.load(tmp_path / "none.safetensors")
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="saved annotation model"):
        AnnotationModel.load(path)
    save_file({"a": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="stalign-annotation-1"):
        AnnotationModel.load(path)
    state = fit([make()], choice=False).to_dict()
    state["coef_0"] = state["coef_0"][:2]
    with pytest.raises(ValueError, match="fit each other"):
        AnnotationModel.from_dict(state)


def test_classes_that_a_fold_has_not_seen_are_unlikely():
    section = make()
    rows = section.labels < 2
    head = fit_head(section.rep[rows], section.labels[rows], 3)
    found = np.exp(head.log_probability(section.rep))
    assert found[:, 2].max() < 1e-6
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_views_are_not_listed_twice_where_there_are_few_components():
    section = make()
    views = views_of(fit_bases([section]))
    assert len(views) == len(set(views)) == 4
    assert views[0][0].n_components == 6
    assert PLAIN[0].passes == 0


def test_scores_by_hand():
    probability = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert calibration_error(probability, np.array([0, 1, 1, 1]), n_bins=2) == pytest.approx(0.4)
    found = classification(["a", "a", "b"], ["a", "b", "b"])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx(2 / 3)
    assert np.isnan(classification([], [])["accuracy"])
