"""A section in any valid form gives what it gives in its plainest form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.properties.calls import CALLS, assert_same, clean, for_each, results, run, taken
from tests.properties.forms import COORDS_OR_REFUSED, FORMS
from tests.properties.plain import STANDARD, to_anndata
from tests.properties.strategies import examples, orders, plains, subsets

import stalign
from stalign._constants import Keys

READS = {  # the calls that a form can concern
    "matrix": ("embed", "pca"),
    "index": ("embed", "niches", "domains", "figure"),
    "gene names": ("embed", "pca"),
    "image": ("embed", "colour", "patches", "figure"),
    "image keys": ("embed", "colour", "patches", "figure"),
    "scale factors": ("embed", "colour", "patches", "figure", "domains"),
    "coordinates": ("embed", "colour", "patches", "niches", "domains"),
}
EACH = [(axis, name) for axis, forms in FORMS.items() for name in forms]


def in_form(plain, chosen):
    """A section's table in the forms chosen, and the options that they need."""
    adata, options = to_anndata(plain), {}
    for axis, forms in FORMS.items():  # in this order: an image is scaled before its factor turns into text
        if axis in chosen:
            options |= forms[chosen[axis]](adata) or {}
    return adata, options


def check(plain, chosen, call, weights):
    expected = clean(call, plain, weights)
    adata, options = in_form(plain, chosen)
    assert_same(run(CALLS[call], adata, weights, **options), expected, f"{call} of {chosen}")


@pytest.mark.parametrize(("axis", "name"), EACH, ids=[f"{axis}-{name}" for axis, name in EACH])
def test_one_form(weights, axis, name):
    plain = STANDARD[EACH.index((axis, name)) % len(STANDARD)]
    for_each(READS[axis], lambda call: check(plain, {axis: name}, call, weights))


@examples(0.1)
@given(
    plain=plains(),
    chosen=st.fixed_dictionaries({axis: st.sampled_from(list(forms)) for axis, forms in FORMS.items()}),
    call=st.sampled_from(list(CALLS)),
)
def test_all_forms_at_once(weights, plain, chosen, call):
    check(plain, chosen, call, weights)


@pytest.mark.parametrize("name", COORDS_OR_REFUSED)
def test_coordinates_that_may_be_refused_are_not_misread(weights, name):
    def one(call):
        adata = to_anndata(STANDARD[1])
        COORDS_OR_REFUSED[name](adata)
        try:
            found = run(CALLS[call], adata, weights)
        except (TypeError, ValueError, KeyError) as error:
            assert str(error.args[0]).startswith("Expected"), error
            return
        assert_same(found, clean(call, STANDARD[1], weights), f"{call} of {name}")

    for_each(["embed", "patches", "niches", "domains"], one)


@examples(0.08)
@given(data=st.data(), plain=plains(), call=st.sampled_from([name for name in CALLS if name != "figure"]))
def test_the_order_of_rows(weights, data, plain, call):
    order = data.draw(orders(len(plain)))
    expected = clean(call, plain, weights)
    found = run(CALLS[call], to_anndata(plain)[order].copy(), weights)
    assert_same(found, taken(expected, order), call)


@examples(0.03)
@given(data=st.data(), plain=plains(), call=st.sampled_from(["embed", "colour", "niches"]))
def test_a_view(weights, data, plain, call):
    rows = data.draw(subsets(len(plain)))
    expected = run(CALLS[call], to_anndata(plain.taken(rows)), weights)
    whole = to_anndata(plain)
    found = CALLS[call](whole[rows], weights, copy=True)
    assert_same(results(CALLS[call], found), expected, call)
    assert not set(whole.obsm) & {Keys.EMBED, Keys.SPOT_WINDOW}


STALE = {
    "niches": lambda adata, weights: stalign.pp.niches(adata),
    "niches of five": lambda adata, weights: stalign.pp.niches(adata, 5),
    "niches without the spot itself": lambda adata, weights: stalign.pp.niches(adata, include_self=False),
    "patches": lambda adata, weights: stalign.pp.patches(adata),
    "patches of other spots": lambda adata, weights: stalign.pp.patches(adata, spot_diameter=90.0),
    "patches at another scale": lambda adata, weights: run(CALLS["patches"], adata, weights, mpp=2.5),
    "embed": lambda adata, weights: run(CALLS["embed"], adata, weights),
    "embed from genes": lambda adata, weights: run(CALLS["embed"], adata, weights, image=False),
}


def _moved(adata):
    adata.obsm[Keys.SPATIAL] = adata.obsm[Keys.SPATIAL][::-1].copy()


def _other_image(adata):
    (part,) = adata.uns[Keys.UNS_SPATIAL].values()
    part["images"]["hires"] = np.ascontiguousarray(part["images"]["hires"][::-1, ::-1])


def _smaller_image(adata):
    (part,) = adata.uns[Keys.UNS_SPATIAL].values()
    part["images"]["hires"] = part["images"]["hires"].repeat(2, 0).repeat(2, 1)
    part["scalefactors"]["tissue_hires_scalef"] *= 2


CHANGES = {"moved spots": _moved, "another image": _other_image, "a finer image": _smaller_image}


# numbers that pp.patches was given hold for later calls while the spots lie where they were
NOTED = {"patches of other spots": {"spot_diameter": 90.0}, "patches at another scale": {"mpp": 2.5}}

# tl.encode and pp.patches take niches of other parameters that the user made, tl.embed those that its weights know
TAKEN = {"niches of five", "niches without the spot itself"}


@pytest.mark.parametrize("stale", STALE)
@examples(0.012)
@given(data=st.data(), plain=plains(ideal=False), call=st.sampled_from(["embed", "colour", "pca", "patches"]))
def test_what_was_made_before_spots_were_removed(weights, stale, data, plain, call):
    assume(call == "embed" or stale not in TAKEN)
    rows = data.draw(subsets(len(plain)))
    noted = {} if call == "patches" else NOTED.get(stale, {})
    expected = run(CALLS[call], to_anndata(plain.taken(rows)), weights, **noted)
    adata = to_anndata(plain)
    STALE[stale](adata, weights)
    assert_same(run(CALLS[call], adata[rows].copy(), weights), expected, f"{call} after {stale}")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("stale", STALE)
def test_what_was_made_before_the_section_changed(weights, stale, change):
    def one(call):
        adata, fresh = to_anndata(STANDARD[1]), to_anndata(STANDARD[1])
        CHANGES[change](fresh)
        STALE[stale](adata, weights)
        CHANGES[change](adata)
        noted = {} if call == "patches" or change == "moved spots" else NOTED.get(stale, {})
        expected = run(CALLS[call], fresh, weights, **noted)
        assert_same(run(CALLS[call], adata, weights), expected, f"{call} after {stale} and {change}")

    for_each(["embed"] if stale in TAKEN else ["embed", "colour", "patches"], one)


def test_a_graph_of_niches_that_the_weights_do_not_know(weights):
    """`tl.embed` makes its own where those that are there are of another number of neighbours."""
    adata = to_anndata(STANDARD[2])
    stalign.pp.niches(adata, 9)
    assert_same(run(CALLS["embed"], adata, weights), clean("embed", STANDARD[2], weights))


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@examples(0.02)
@given(
    plain=plains(),
    call=st.sampled_from(["embed", "colour", "niches", "domains"]),
    stale=st.sampled_from(["nothing", "niches", "patches", "embed"]),
)
def test_files_before_and_after_a_call(weights, tmp_path_factory, form, plain, call, stale):
    import anndata

    folder = tmp_path_factory.mktemp("files")
    expected = clean(call, plain, weights)
    adata = to_anndata(plain)
    if stale != "nothing":
        STALE[stale](adata, weights)
    for step in ("before", "after", "again"):
        getattr(adata, f"write_{form}")(folder / f"{step}.{form}")
        adata = getattr(anndata, f"read_{form}")(folder / f"{step}.{form}")
        assert_same(run(CALLS[call], adata, weights), expected, f"{call} {step}")
