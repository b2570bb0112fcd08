"""A damaged table gives a right result or a documented error, and stays as it was after an error."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.properties.calls import CALLS, assert_same, clean, for_each, foreign_arguments, results
from tests.properties.damages import ANY, DAMAGES
from tests.properties.plain import STANDARD, to_anndata
from tests.properties.strategies import examples, plains

from stalign._constants import Keys
from stalign._settings import logger


class Outcome:
    """What came of a call: an error, a result, and whether a warning went with it."""

    def __init__(self, call, data, weights, snapshot, records, **options):
        self.call, before = call, snapshot(data)
        self.error, self.found = None, {}
        records.clear()
        logger.addHandler(records.handler)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                call(data, weights, **options)
            self.found = results(call, data)
        except Exception as error:  # noqa: BLE001  # every one is judged below
            self.error = error
        finally:
            logger.removeHandler(records.handler)
        self.texts = [str(w.message) for w in caught if w.category is UserWarning]
        self.texts += [record.getMessage() for record in records.records if record.levelname == "WARNING"]
        self.unchanged = snapshot(data) == before

    def kind(self, expected, usual=()):
        if self.error is not None:
            return "refused"
        said = bool(set(self.texts) - set(usual))
        try:
            assert_same(self.found, expected())
        except AssertionError:
            return "warned" if said else "silent"
        return "said" if said else "same"

    def check(self):
        """What holds for every outcome."""
        if self.error is not None:
            kind, text = type(self.error), str(self.error.args[0]) if self.error.args else ""
            assert kind in (TypeError, ValueError, KeyError), f"{kind.__name__}: {text}"
            assert text.startswith("Expected"), f"{kind.__name__} of another library: {text}"
            assert "\n" not in text
            assert self.unchanged, f"changed by a call that failed: {text}"
        for text in [*self.texts, *([str(self.error)] if self.error else [])]:
            named = foreign_arguments(text, self.call.function)
            assert not named, f"{self.call.function.__name__} takes no {sorted(named)}: {text}"
        for key, values in self.found.items():
            if key.startswith("X_stalign"):
                lost = np.isnan(values).any(axis=1)
                assert (np.isnan(values).all(axis=1) == lost).all(), key
        if Keys.EMBED in self.found:
            assert (np.isnan(self.found[Keys.EMBED]).any(axis=1) == ~self.found[Keys.VALID]).all()
            assert self.found[Keys.EMBED].shape == (len(self.found[Keys.VALID]), 16)


def concerned(call, damage):
    return (
        (call.reads_image and "image" in damage.concerns)
        or (call.reads_counts and "counts" in damage.concerns)
        or (call is CALLS["embed"] and "vocabulary" in damage.concerns)
        or ("positions" in damage.concerns and call is not CALLS["pca"])
    )


@pytest.mark.parametrize("name", DAMAGES)
def test_one_damage(weights, snapshot, log_records, name):
    number = list(DAMAGES).index(name)
    damage, plain = DAMAGES[name], STANDARD[number % 2]

    def one(call):
        adata = to_anndata(plain)
        damage.apply(adata, np.random.default_rng(number))
        outcome = Outcome(CALLS[call], adata, weights, snapshot, log_records)
        outcome.check()
        usual = Outcome(CALLS[call], to_anndata(plain), weights, snapshot, log_records).texts if outcome.texts else []
        kind = outcome.kind(lambda: clean(call, plain, weights), usual)
        allowed = damage.allowed if "none" in damage.concerns or concerned(CALLS[call], damage) else ANY
        allowed = ANY | {"silent"} if call in damage.quiet else allowed
        allowed = allowed | {"said"} if "warned" in allowed else allowed
        assert kind in allowed, f"{kind} instead of {sorted(allowed)}: {outcome.error or outcome.texts}"

    for_each(CALLS, one)


@examples(0.1)
@given(
    plain=plains(),
    names=st.lists(st.sampled_from(list(DAMAGES)), min_size=2, max_size=3, unique=True),
    call=st.sampled_from(list(CALLS)),
    seed=st.integers(0, 99),
)
def test_several_damages(weights, snapshot, log_records, plain, names, call, seed):
    adata = to_anndata(plain)
    for name in names:
        try:
            DAMAGES[name].apply(adata, np.random.default_rng(seed))
        except (KeyError, TypeError, AttributeError, ValueError, IndexError):
            continue  # a damage before it took away what it damages
    Outcome(CALLS[call], adata, weights, snapshot, log_records).check()


ARGUMENTS = {
    "library_key": ["missing", 3, "counts of it"],
    "image_key": ["missing", 3, {"s": "missing"}, {"other": "hires"}, {}],
    "mpp": [0, -1, np.nan, np.inf, "one", {"s": 0}, {"other": 1.0}, {}, [1.0]],
    "layer": ["missing", 3],
    "gene_key": ["missing", "numbers"],
    "total_counts": ["missing", "text", "negative"],
    "spot_diameter": [0, -5.0, np.nan, "wide"],
    "n_neighbors": [0, -1, 2.5, "three", True, None],
    "batch_size": [0, -1, 2.5, "all", None],
    "level": ["spots", None, 1],
    "refine": [-1, 1.5, "yes", None],
    "use_rep": ["missing", "spatial_names", 3],
    "table_key": ["missing"],
    "clusterer": [0, 1, -2, 10_000, "louvain", 2.5, object()],
    "n_components": [0, -1, 10_000, "all", 1.5],
    "random_state": [-1, "seed", 1.5],
    "device": ["nowhere", 3],
    "image": ["no"],
    "features": [{"niche_image": "missing"}, {"nothing": "given"}, "given"],
    "orthologs": ["names", {1: 2}, []],
    "key_added": ["", 3],
    "key": ["missing", 3, ["sample", "missing"], []],
}
PAIRS = [(name, value) for name, values in ARGUMENTS.items() for value in values]


@pytest.mark.parametrize(("name", "value"), PAIRS, ids=[f"{name}-{value!r:.20}" for name, value in PAIRS])
def test_a_wrong_argument(weights, snapshot, log_records, name, value):
    def one(call):
        adata = to_anndata(STANDARD[0])
        adata.obs["text"], adata.obs["negative"], adata.var["numbers"] = "a", -1.0, 3
        Outcome(CALLS[call], adata, weights, snapshot, log_records, **{name: value}).check()

    for_each([key for key, call in CALLS.items() if call.takes(name)], one)


@pytest.mark.parametrize("genes", [0, 1, 24])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("plain", STANDARD, ids=lambda plain: plain.lattice)
def test_few_spots_and_genes(weights, snapshot, log_records, plain, size, genes):
    def one(call):
        adata = to_anndata(plain)[:size, :genes].copy()
        Outcome(CALLS[call], adata, weights, snapshot, log_records).check()

    for_each(CALLS, one)


@pytest.mark.parametrize("thing", [None, 3, "slide.h5ad", np.zeros((3, 2)), [], {}])
@pytest.mark.parametrize("call", CALLS)
def test_no_table_at_all(weights, call, thing):
    with pytest.raises((TypeError, ValueError), match=r"^Expected"):
        CALLS[call](thing, weights)
