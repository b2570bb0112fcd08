"""The loss curve of a run, joined over its restarts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stalign._validate import message


def history(out: str | Path) -> pd.DataFrame:
    """Read what a run has logged.

    Parameters
    ----------
    out
        Folder of the run.

    Returns
    -------
    One row a logged step, with columns such as `step`, `loss/total`, `lr` and `val/total`. Steps that were done again
    after a restart are there once, as they were done last.

    Raises
    ------
    FileNotFoundError
        If nothing was logged there.
    """
    files = sorted(Path(out).glob("logs/start-*/metrics.csv"), key=lambda f: int(f.parent.name.split("-")[1]))
    tables = [pd.read_csv(file) for file in files if file.stat().st_size]
    if not tables:
        raise FileNotFoundError(message(f"Expected the log of a run in {str(out)!r}", found="none"))
    # Entries of one step come in several rows: training and validation are logged apart.
    merged = [table.groupby("step", as_index=False).last() for table in tables]
    joined = merged[0]
    for later in merged[1:]:
        joined = pd.concat([joined[joined["step"] < later["step"].min()], later], ignore_index=True)
    return joined
