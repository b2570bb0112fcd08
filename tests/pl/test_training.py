"""Training curves from Lightning's CSV."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stalign.pl import training


@pytest.fixture
def log():
    """As the trainer writes it: a row of training values and one of validation values, each with gaps."""
    steps = np.arange(0, 300)
    train = pd.DataFrame({"step": steps, "epoch": steps // 100})
    for name, level in (("total", 3.0), ("spot", 2.0), ("niche", 1.5), ("spot_niche", 1.0)):
        train[f"loss/{name}"] = level * np.exp(-steps / 100)
    train["lr"] = 1e-4
    val = pd.DataFrame({"step": [99, 199, 299], "val/total": [2.0, 1.0, 0.5], "val/spot": [1.0, 0.9, 0.8]})
    return pd.concat([train, val], ignore_index=True)


def test_total_terms_and_the_rest(log):
    total, terms, rate = training(log, show=False)
    assert [ax.get_title() for ax in (total, terms, rate)] == ["loss", "terms", "lr"]
    named = {line.get_label(): line for line in total.lines if not line.get_label().startswith("_")}
    assert set(named) == {"train", "val"} and named["val"].get_linestyle() == "--"
    np.testing.assert_allclose(named["val"].get_xydata(), [[99, 2.0], [199, 1.0], [299, 0.5]])
    assert {line.get_label() for line in terms.lines if line.get_label()[0] != "_"} == {
        "spot", "niche", "spot_niche", "spot (val)",
    }  # fmt: skip


def test_single_values_stay_under_the_running_mean(log):
    total = training(log, "loss", show=False)
    single = next(line for line in total.lines if line.get_label().startswith("_single"))
    np.testing.assert_allclose(single.get_ydata(), log["loss/total"].dropna())
    smooth = next(line for line in total.lines if line.get_label() == "train")
    assert np.abs(smooth.get_ydata() - single.get_ydata()).max() < 0.15


def test_folder_of_a_resumed_run(tmp_path, log):
    """The second start repeats the steps after the last checkpoint; they are drawn once, as logged last."""
    train = log[log["loss/total"].notna()]
    second = train[train["step"] >= 100].copy()
    second["loss/total"] += 1.0
    for name, part in (("start-0", train[train["step"] < 150]), ("start-1", second)):
        (tmp_path / "logs" / name).mkdir(parents=True)
        part.to_csv(tmp_path / "logs" / name / "metrics.csv", index=False)
    total = training(tmp_path, "loss", show=False)
    single = total.lines[0]
    np.testing.assert_array_equal(single.get_xdata(), np.arange(300))
    assert single.get_ydata()[100] == pytest.approx(1.0 + 3 * np.exp(-1))


@pytest.mark.parametrize("columns", [("loss", "spot"), ("train_loss", "train_spot"), ("train/loss", "train/spot")])
def test_other_namings(columns):
    table = pd.DataFrame({"epoch": range(4), columns[0]: [4.0, 3, 2, 1], columns[1]: [2.0, 2, 1, 1]})
    total, terms = training(table, show=False)
    assert total.get_title() == "loss" and terms.get_title() == "terms" and total.get_xlabel() == "epoch"


def test_errors(tmp_path, log):
    with pytest.raises(FileNotFoundError, match=r"metrics\.csv"):
        training(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file"):
        training(tmp_path / "other.csv")
    with pytest.raises(KeyError, match="accuracy"):
        training(log, "accuracy")
    with pytest.raises(ValueError, match="numbers"):
        training(pd.DataFrame({"step": [1], "note": ["x"]}))
