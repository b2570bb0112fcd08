"""The loss curve of a run, joined over its restarts."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stalign._validate import message
from stalign.train.phases import read_phases

if TYPE_CHECKING:
    from collections.abc import Iterable


def columns(terms: Iterable[str], values: Iterable[str]) -> list[str]:
    """Name the columns of a log.

    Parameters
    ----------
    terms
        Names of the terms of the loss.
    values
        Names of what is logged beside them.

    Returns
    -------
    The names, in the order that the log has them in.
    """
    losses = [f"{kind}/{term}" for kind in ("loss", "val") for term in terms]
    return ["step", *losses, "lr", "weight_decay", *values, "spots_per_second", "share_waiting", "epoch"]


def history(out: str | Path) -> pd.DataFrame:
    """Read what a run has logged.

    Parameters
    ----------
    out
        Folder of the run.

    Returns
    -------
    One row a logged step, with columns such as `step`, `phase`, `loss/total`, `lr` and `val/total`. Steps that were
    done again after a restart are there once, as they were done last. Phases are counted from 1: each extension of a
    run starts another.

    Raises
    ------
    FileNotFoundError
        If nothing was logged there.

    Examples
    --------
    >>> import tempfile
    >>> import stalign as st
    >>> from stalign.train.config import RunConfig, SamplerConfig
    >>> out = tempfile.mkdtemp()
    >>> run = RunConfig(steps=2, log_every=1, tensorboard=False)
    >>> config = st.train.TrainConfig(name="mine", out=out, sampler=SamplerConfig(batch_size=32), run=run)
    >>> with st.settings.override(show_progress=False):
    ...     weights = st.train.fit([st.datasets.toy(n_rows=10)], config)
    >>> len(st.train.history(out))
    2
    """
    files = sorted(
        Path(out).expanduser().glob("logs/start-*/metrics.csv"), key=lambda f: int(f.parent.name.split("-")[1])
    )
    phases = read_phases(out)
    tables = []
    for file in files:
        text = file.read_text(encoding="utf-8").rpartition("\n")[0]  # a killed run may leave half a line at the end
        if text.count("\n"):
            table = pd.read_csv(StringIO(text))
            number = int(file.parent.name.split("-")[1])
            later = [p["start"] for p in phases if p["first_log"] > number]  # what comes after is not of this run
            tables.append(table[table["step"] < min(later)] if later else table)
    if not tables:
        raise FileNotFoundError(message(f"Expected the log of a run in {str(out)!r}", found="none"))
    # Entries of one step come in several rows: training and validation are logged apart.
    merged = [table.drop(columns="epoch").groupby("step", as_index=False).last() for table in tables]
    joined = merged[0]
    for later_table in merged[1:]:
        joined = pd.concat([joined[joined["step"] < later_table["step"].min()], later_table], ignore_index=True)
    starts = [p["start"] for p in phases] or [0]
    joined.insert(1, "phase", np.searchsorted(starts, joined["step"], side="right"))
    return joined.dropna(axis=1, how="all")
