"""The benchmark program: schema, resuming, marks, reasons and what weights have seen, on small sections."""

from __future__ import annotations

import json
from types import SimpleNamespace

import benchmarks.__main__ as program
import benchmarks.report
import benchmarks.run
import numpy as np
import pandas as pd
import pytest
from benchmarks.cells import COLUMNS, Cell, Missing, Results, read
from benchmarks.config import Config
from benchmarks.report import block, reasons, write_report
from benchmarks.sections import find
from benchmarks.seen import seen, training_data

import stalign


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(data=tmp_path, cache=tmp_path / "cache", out=tmp_path / "out")


@pytest.fixture(scope="module")
def section(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("section") / "small.h5ad"
    stalign.datasets.toy(10).write_h5ad(path)
    return f"{path}@domain"


def _cell(row="a", column="s", value=1.0, seed=0, calls=None, **more):
    def compute():
        if calls is not None:
            calls.append((row, column, seed))
        if isinstance(value, Exception):
            raise value
        return {"ARI": value}

    return Cell(row, column, compute, seed, **more)


def _table(monkeypatch, *cells):
    made = SimpleNamespace(
        TITLE="Made", NOTE="For a test.", COMMAND="python -m benchmarks run made", cells=lambda _: cells
    )
    monkeypatch.setattr(benchmarks.report, "TABLES", {"made": "made"})
    for module in (benchmarks.run, benchmarks.report):
        monkeypatch.setattr(module, "table", lambda _: made)


def test_cells_are_written_as_they_come_in_one_schema(tmp_path):
    results = Results("made", tmp_path)
    assert results.run(_cell(weights="w", data="d", seen="study", settings="60 steps")) == ""
    assert (tmp_path / "made.csv").is_file() and not list(tmp_path.glob("*.part"))
    table = read(tmp_path / "made.csv")
    assert tuple(table) == COLUMNS
    row = table.iloc[0]
    assert (row["metric"], row["value"], row["weights_sha256"], row["seen"]) == ("ARI", 1.0, "sha256:w", "study")
    assert row["versions"].startswith(f"stalign {stalign.__version__}") and row["seconds"] >= 0


def test_tables_at_the_same_time_are_those_of_one_after_the_other(config, section):
    """Processes of their own write the same cells."""
    names, found = ["st-align-figure3", "hest-bench"], {}
    for jobs in (1, 2):
        own = config.model_copy(update={"jobs": jobs, "out": config.out / str(jobs), "slices": (section,)})
        benchmarks.run.run(names, own)
        found[jobs] = [read(own.out / f"{name}.csv").drop(columns=["seconds"]) for name in names]
    for one, two in zip(found[1], found[2], strict=True):
        assert len(one) and set(one["reason"]) == set(two["reason"])
        pd.testing.assert_frame_equal(one, two)


def test_hashes_that_look_like_numbers_are_read_by_plain_pandas(tmp_path):
    digits = "5e1557253285822130325479"  # for which pandas' parser looks beyond its table of powers
    Results("made", tmp_path).run(_cell(data=digits))
    assert pd.read_csv(tmp_path / "made.csv")["data_sha256"].iloc[0] == f"sha256:{digits}"


def test_a_cell_may_fill_several_columns_and_tells_its_seconds_once(tmp_path):
    results = Results("made", tmp_path)
    cell = Cell("a", "all", lambda: {("G1", "MSE"): 2.0, ("all", "MSE"): 3.0})
    results.run(cell)
    table = read(tmp_path / "made.csv").set_index("column")
    assert dict(table["value"]) == {"G1": 2.0, "all": 3.0} and table.at["G1", "seconds"] == 0
    assert results.has(cell)


@pytest.mark.parametrize("changed", [{"weights": "other"}, {"data": "other"}, {"settings": "9 steps"}, {"seed": 1}])
def test_cells_of_other_weights_data_or_settings_are_computed_again(tmp_path, changed):
    Results("made", tmp_path).run(_cell(weights="w", data="d"))
    again = Results("made", tmp_path)  # as a later run reads it
    assert again.has(_cell(weights="w", data="d"))
    assert not again.has(_cell(**{"weights": "w", "data": "d", **changed}))


def test_cells_of_another_version_are_computed_again(tmp_path):
    results = Results("made", tmp_path)
    results.run(_cell())
    results.rows["versions"] = f"stalign {stalign.__version__}.dev1 (abc), python 3"
    assert not results.has(_cell())


def test_a_second_run_computes_what_is_missing_alone(monkeypatch, config, capsys):
    calls = []
    cells = [_cell("a", calls=calls), _cell("b", value=Missing("no weights"), calls=calls)]
    cells += [_cell("b", value=Missing("no weights"), seed=1, calls=calls)]
    _table(monkeypatch, *cells)
    benchmarks.run.run(["made"], config)
    assert calls == [("a", "s", 0), ("b", "s", 0)]  # the other seed of b is missing for the same reason
    benchmarks.run.run(["made"], config)
    assert calls[2:] == [("b", "s", 0)]
    assert "1 kept, 1 missing" in capsys.readouterr().out
    table = read(config.out / "made.csv")
    assert len(table) == 2 and np.isnan(table.set_index("row").at["b", "value"])
    assert table.set_index("row").at["b", "reason"] == "no weights"
    _table(monkeypatch, _cell("b", value=0.5))
    benchmarks.run.run(["made"], config)  # the weights have come: the reason goes
    assert not read(config.out / "made.csv")["reason"].any()


def test_an_error_of_a_method_is_a_reason_and_one_of_the_program_ends_it(tmp_path):
    assert Results("made", tmp_path).run(_cell(value=ValueError("too few\n spots"))) == "ValueError: too few spots"
    with pytest.raises(ZeroDivisionError):
        Results("made", tmp_path).run(_cell(value=ZeroDivisionError()))


def test_the_report_marks_best_second_best_seen_and_missing(monkeypatch, config):
    cells = [_cell("a", value=0.5, seen="section"), _cell("a", value=0.7, seed=1, seen="section")]
    cells += [
        _cell("b", value=0.4, seen="donor"),
        _cell("c", value=0.3, seen="study"),
        _cell("e", value=0.2, seen="unknown"),
    ]
    cells += [_cell("x, random weights", value=0.9), _cell("d", value=Missing("no weights; `--weights d=PATH`"))]
    cells += [_cell("a", "t", value=0.1)]
    _table(monkeypatch, *cells)
    benchmarks.run.run(["made"], config)
    text = (config.out / "report.md").read_text()
    assert "For a test.\n\n| ARI | s | t |\n|---|---|---|\n| a |" in text and "|\n\nMissing:\n\n- d" in text
    assert "| a | **0.600 ± 0.141†** | **0.100** |" in text
    assert "| b | <u>0.400‡</u> | · |" in text
    assert "| c | 0.300§ | · |" in text and "| e | 0.200? | · |" in text
    assert "| x, random weights | 0.900 | · |" in text  # is not ranked
    assert "| d | – | · |" in text and "- d (s): no weights; `--weights d=PATH`" in text
    assert "| `made` | `python -m benchmarks run made` |" in text
    html = (config.out / "report.html").read_text()
    assert "<b>0.600 ± 0.141†</b>" in html and "<code>--weights d=PATH</code>" in html


def test_a_missing_cell_is_missing_in_each_of_its_columns(tmp_path):
    results = Results("made", tmp_path)
    results.run(_cell("a", "s", value=Missing("no weights"), columns=("s", "t")))
    assert list(results.rows["column"]) == ["s", "t"] and set(results.rows["reason"]) == {"no weights"}
    results.run(Cell("a", "s", lambda: {("s", "ARI"): 1.0, ("t", "ARI"): 2.0}, columns=("s", "t")))
    assert list(results.rows["value"]) == [1.0, 2.0] and not results.rows["reason"].any()


def test_values_that_were_taken_over_go_when_their_place_is_computed(tmp_path):
    results = Results("made", tmp_path)
    for row in ("a", "b"):
        results.run(_cell(row, seed=2, settings="60 steps"))
    results.rows["origin"] = "another file"
    results.run(_cell("a", value=0.5, settings="40 steps"))
    assert list(zip(results.rows["row"], results.rows["value"], strict=True)) == [("b", 1.0), ("a", 0.5)]


def test_tables_with_a_page_are_on_it_alone(monkeypatch, config):
    _table(monkeypatch, _cell("a", value=3.0))
    made = benchmarks.report.table("made")
    made.PAGE, made.BEST = "other", "none"
    benchmarks.run.run(["made"], config)
    text = (config.out / "report-other.md").read_text()
    assert text.startswith("## Made (`made`)") and "| a | 3 |" in text
    assert "Made (" not in (config.out / "report.md").read_text()
    assert "Made (" in (config.out / "report.html").read_text()


def test_smaller_errors_are_better_and_reasons_are_told_once():
    cells = pd.DataFrame(
        [{"row": r, "column": c, "metric": "MSE", "value": v, "seen": "", "reason": "" if v == v else "none"}
         for r, c, v in (("a", "s", 2.5), ("b", "s", 1.0), ("c", "s", np.nan), ("d", "s", np.nan))]
    )  # fmt: skip
    found = {row["name"]: row["cells"] for row in block(cells, "MSE", "min")["rows"]}
    assert found == {"a": ["<u>2.500</u>"], "b": ["**1.000**"], "c": ["–"], "d": ["–"]}
    assert reasons(cells) == ["c, d: none"]


def test_what_weights_have_seen_is_told_from_their_card(tmp_path):
    assert seen("stalign-mini", "151510", "Br5292", "Maynard 2021") == "section"
    assert seen("stalign-mini", "151507", "Br5292", "Maynard 2021") == "donor"
    assert seen("stalign-mini", "151673", "Br8100", "Maynard 2021") == "study"
    assert seen("stalign-small", "151673", "Br8100", "Maynard 2021") == ""
    assert seen("stalign-mini", "A1", "A", "another study") == ""  # A1 of another study is another section
    assert seen("stalign-mini", "A1") == "section"  # nothing is known that tells them apart
    assert seen([{"section": "s", "donor": None}], "t", None, None) == ""
    (tmp_path / "config.json").write_text(json.dumps({"meta": {}}))
    assert training_data(tmp_path) is None and seen(tmp_path, "s") == "unknown"


def test_sections_are_found_by_path_and_by_fetcher(config, section):
    found = find(section, config)
    assert found.name == "small" and found.n_domains == 5 and len(found.sha256) == 64
    assert find(f"{section}:3", config).n_domains == 3
    assert find("toy", config).truth == "domain"
    for text, says in (
        ("151673", "no dlpfc/151673.h5ad in the data folder; name an h5ad with --slices"),
        ("151507", "is not in the data folder"),
        ("dlpfc:151507", "--download"),
        (section.split("@")[0], "write .*@COLUMN"),
    ):
        with pytest.raises(Missing, match=says):
            find(text, config)


def test_the_hash_of_a_section_changes_with_its_counts(config, section, tmp_path):
    adata = find(section, config).read().copy()
    adata.X[0, 0] += 1
    adata.write_h5ad(tmp_path / "other.h5ad")
    assert find(f"{tmp_path / 'other.h5ad'}@domain", config).sha256 != find(section, config).sha256


def test_the_command_line_runs_table_1_of_a_path(tmp_path, section, capsys):
    options = ["--slices", section, "--seeds", "2", "--out", str(tmp_path), "--data", str(tmp_path)]
    for only in ("niche mean", "scGPT"):
        program.main(["run", "st-align-table1", *options, "--only", only])
    table = read(tmp_path / "st-align-table1.csv")
    values = table[table["row"] == "niche mean, no network"]
    assert sorted(set(zip(values["metric"], values["seed"], strict=True))) == [
        ("ARI", 0), ("ARI", 1), ("NMI", 0), ("NMI", 1),
    ]  # fmt: skip
    (reason,) = table.loc[table["row"] == "scGPT", "reason"]
    assert "no weights here" in reason and "--weights scgpt=PATH" in reason
    program.main(["list"])
    assert "st-align-table3" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="NAME=PATH"):
        program.main(["run", "st-align-table1", "--weights", "uni"])


def test_report_of_an_empty_folder(tmp_path):
    assert "Tables that need files from elsewhere" in write_report(tmp_path).read_text()
