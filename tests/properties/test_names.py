"""Names of sections and keys are anything that users type; sections never mix."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.properties.calls import CALLS, assert_same, clean, results, run, table_of, taken
from tests.properties.placed import Form, linear, together
from tests.properties.plain import joined, make, to_anndata
from tests.properties.strategies import ODD_NAMES, examples, names, orders, plains

import stalign
from stalign._constants import Keys

STEPS = ("embed", "colour", "niches", "patches", "domains")
PAIRS = [
    ("S1", "S10"), ("S10", "S1"), ("S1", "S1_2"), ("a", "a/b"), ("a/b", "a"), ("P1/A", "P1/B"), ("A", "a"), ("1", "10"),
    ("01", "1"), ("x" * 200, "x" * 201), ("a.b", "a"), ("images", "scalefactors"), ("s", "s "),
    ("S1", "S1_hires_image"),
]  # fmt: skip


def pairs():
    """Two or three names that differ."""
    return st.one_of(st.sampled_from(PAIRS).map(list), st.lists(names(), min_size=2, max_size=3, unique=True))


@examples(0.06)
@given(plain=plains(), name=names(), call=st.sampled_from([*STEPS, "figure"]))
def test_any_name(weights, plain, name, call):
    expected = clean(call, plain, weights)
    assert_same(run(CALLS[call], to_anndata(plain.named(name)), weights), expected, f"{call} {name!r}")


@examples(0.05)
@given(plain=plains(), name=names(), call=st.sampled_from(STEPS), form=st.sampled_from(["h5ad", "zarr"]))
def test_any_name_through_files(weights, tmp_path_factory, plain, name, call, form):
    """What could be written before a call can be written after it, and what is read gives the same."""
    folder = tmp_path_factory.mktemp("files")
    expected = clean(call, plain, weights)
    adata = to_anndata(plain.named(name))
    write, read = getattr(anndata.AnnData, f"write_{form}"), getattr(anndata, f"read_{form}")
    try:
        write(adata, folder / f"before.{form}")
        read(folder / f"before.{form}")
    except Exception:  # noqa: BLE001  # the file format does not hold the names of what was read: no matter of stalign
        assume(False)
    assume("." not in name.split("/"))  # to HDF5 this is the group around it
    run(CALLS[call], adata, weights)
    write(adata, folder / f"after.{form}")
    back = read(folder / f"after.{form}")
    assert_same(results(CALLS[call], back), expected, f"{call} {name!r} read from {form}")
    assert_same(run(CALLS[call], back, weights), expected, f"{call} {name!r} again after {form}")


@examples(0.03)
@given(plain=plains(), some=pairs(), call=st.sampled_from(STEPS), form=st.sampled_from(["h5ad", "zarr"]))
def test_names_in_obs_alone_through_files(weights, tmp_path_factory, plain, some, call, form):
    """Sections without images, told apart by a column: nothing of them is a key before the call, nor after it."""
    assume(call not in {"colour", "patches"})
    folder = tmp_path_factory.mktemp("files")
    adata = to_anndata(plain)
    del adata.uns[Keys.UNS_SPATIAL]
    adata.obs["sample"] = pd.Categorical([some[i % len(some)] for i in range(adata.n_obs)], categories=some)
    write, read = getattr(anndata.AnnData, f"write_{form}"), getattr(anndata, f"read_{form}")
    write(adata, folder / f"before.{form}")
    found = run(CALLS[call], adata, weights, library_key="sample")
    write(adata, folder / f"after.{form}")
    back = read(folder / f"after.{form}")
    assert_same(results(CALLS[call], back), found, f"{call} {some} read")
    assert_same(run(CALLS[call], back, weights, library_key="sample"), found, f"{call} {some} again")


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@examples(0.02)
@given(plain=plains(), key=names())
def test_keys_that_users_choose(weights, tmp_path_factory, form, plain, key):
    """A key is refused with a documented error, or holds the result, also through files."""
    folder = tmp_path_factory.mktemp("files")
    adata = to_anndata(plain)
    write, read = getattr(anndata.AnnData, f"write_{form}"), getattr(anndata, f"read_{form}")
    for call, slot in (("domains", "obs"), ("colour", "obsm")):
        try:
            run(CALLS[call], adata, weights, key_added=key if slot == "obs" else f"X_{key}")
        except (TypeError, ValueError, KeyError) as error:
            assert str(error.args[0]).startswith("Expected")
            assume(False)
    write(adata, folder / f"a.{form}")
    back = read(folder / f"a.{form}")
    assert back.obs[key].tolist() == adata.obs[key].tolist()
    np.testing.assert_array_equal(back.obsm[f"X_{key}"], adata.obsm[f"X_{key}"])
    model = stalign.tl.domain_model(back, key=key)
    assert list(model.names) == list(stalign.tl.domain_model(adata, key=key).names)


def column(values, kind, categories):
    if kind == "category":
        return pd.Categorical(values, categories=[*categories, "unused"])
    return pd.Series(values).astype(kind).to_numpy() if kind == "object" else pd.array(values, dtype=kind)


@examples(0.1)
@given(
    data=st.data(),
    some=pairs(),
    call=st.sampled_from([*STEPS, "figure"]),
    kind=st.sampled_from(["category", "object", "string"]),
)
def test_sections_in_one_table(weights, data, some, call, kind):
    """Each section gives what it gives alone, wherever its rows lie."""
    sections = [data.draw(plains(name=name)) for name in some]
    table = joined(sections)
    order = data.draw(orders(table.n_obs))
    table = table[order].copy()
    values = table.obs["sample"].astype(str).tolist()
    table.obs["sample"] = column(values, kind, some)
    values = np.array(values, dtype=object)
    found = run(CALLS[call], table, weights, library_key="sample")
    start = np.cumsum([0, *map(len, sections)])
    for number, section in enumerate(sections):
        alone = run(CALLS[call], to_anndata(section), weights)
        rows = np.flatnonzero(values == section.name)
        inside = order[rows] - start[number]
        if call == "domains":  # numbers follow the features of all sections
            continue
        assert_same(taken(found, rows), taken(alone, inside), f"{call} of {section.name!r}")


@examples(0.02)
@given(
    data=st.data(),
    numbers=st.sampled_from([(1, 10), (10, 1), (0, 1), (1.0, 2.0), (1, "a"), ("1", 1.5), (True, False)]),
)
def test_sections_that_are_numbers(weights, data, numbers):
    sections = [data.draw(plains(name=str(number))) for number in numbers]
    table = joined(sections)
    lookup = dict(zip(map(str, numbers), numbers, strict=True))
    table.obs["sample"] = [lookup[name] for name in table.obs["sample"].astype(str)]
    found = run(CALLS["embed"], table, weights, library_key="sample")
    start = np.cumsum([0, *map(len, sections)])
    for number, section in enumerate(sections):
        alone = run(CALLS["embed"], to_anndata(section), weights)
        assert_same(taken(found, np.arange(start[number], start[number + 1])), alone, section.name)


@examples(0.02)
@given(data=st.data(), some=pairs(), pairwise=st.booleans(), call=st.sampled_from(["embed", "colour", "patches"]))
def test_sections_that_were_analysed_alone_and_joined(weights, data, some, pairwise, call):
    sections = [data.draw(plains(name=name)) for name in some]
    tables = [to_anndata(section) for section in sections]
    alone = [run(CALLS["embed"], table, weights) for table in tables]
    expected = alone if call == "embed" else [run(CALLS[call], to_anndata(section), weights) for section in sections]
    table = anndata.concat(tables, uns_merge="unique", pairwise=pairwise)
    found = run(CALLS[call], table, weights, library_key="sample")
    start = np.cumsum([0, *map(len, sections)])
    for number in range(len(sections)):
        rows = np.arange(start[number], start[number + 1])
        assert_same(taken(found, rows), expected[number], f"{call} of {some[number]!r}")


SPATIALDATA_PAIRS = [
    ("S1", "S10"), ("S10", "S1"), ("S1", "S1_2"), ("a", "a.b"), ("A1", "B1"), ("x" * 60, "x" * 61),
]  # fmt: skip
IMAGE_NAMES = {
    "as spatialdata-io names it": ("{}_hires_image", True),
    "before a word": ("{}_image", False),
    "after a word": ("image_of_{}", False),
    "without relation": ("he-{}", False),
}


@pytest.mark.parametrize("image_name", IMAGE_NAMES)
@pytest.mark.parametrize("system", ["{}", "global"])
@examples(0.012)
@given(
    data=st.data(),
    some=st.sampled_from(SPATIALDATA_PAIRS),
    apart=st.booleans(),
    call=st.sampled_from(["embed", "colour", "niches"]),
)
def test_sections_in_one_spatialdata(weights, image_name, system, data, some, apart, call):
    """A section gets its own image, or is refused where that can't be told; never that of another."""
    name, clear = IMAGE_NAMES[image_name]
    names_of_images = [name.format(one) for one in some]
    if not clear:
        names_of_images = [f"{'ab'[i]}_picture" if "he-" in name else one for i, one in enumerate(names_of_images)]
    sections = [data.draw(plains(name=one, ideal=False)) for one in some]
    forms = [
        Form(image_name=image, system=system, placement=linear(1, 0, 0, 1, 5000.0 * i, 0) if apart and i else None)
        for i, image in enumerate(names_of_images)
    ]
    expected = [run(CALLS[call], to_anndata(section), weights) for section in sections]
    options = [{"image_key": dict(zip(some, names_of_images, strict=True))}]
    for given_ in [{}, *options] if call != "niches" else [{}]:
        sdata = together(sections, forms)
        try:
            found = run(CALLS[call], sdata, weights, **given_)
        except (ValueError, KeyError) as error:
            text = str(error.args[0])
            sure = clear or system == "{}" or apart or given_ or call == "niches"
            assert not sure, f"{call} refused: {text}"
            assert all(image in text for image in names_of_images), f"candidates are not named: {text}"
            continue
        start = np.cumsum([0, *map(len, sections)])
        for number in range(len(sections)):
            rows = np.arange(start[number], start[number + 1])
            note = f"{call} of {some[number]!r} with {given_ or names_of_images}"
            assert_same(taken(found, rows), expected[number], note)
    assert table_of(sdata).n_obs == sum(map(len, sections))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_figure_has_the_name_of_its_section(weights, name):
    table = joined([make(0, name=name), make(1, name="other")])
    CALLS["figure"](table, weights, library_key="sample")
