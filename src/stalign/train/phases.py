"""The phases of a run: it may be given more steps, or another batch size, when that is asked for by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign.train.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FILE = "phases.json"


def phase(start: int, steps: int, batch_size: int, first_log: int = 0) -> dict[str, int]:
    """Describe a phase as plain values.

    Parameters
    ----------
    start
        Optimiser steps done before it.
    steps
        Optimiser steps of the run as it was planned then.
    batch_size
        Spots a step, over all processes.
    first_log
        Number of the first log of the phase.

    Returns
    -------
    The phase.
    """
    return {"start": start, "steps": steps, "batch_size": batch_size, "first_log": first_log}


def fixed(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all phases of a run have in common.

    Parameters
    ----------
    fingerprint
        What a resumed run has to have in common with the one that it goes on with.

    Returns
    -------
    It without the number of steps and of processes, and the batch size.
    """
    kept = {key: value for key, value in fingerprint.items() if key not in ("steps", "processes")}
    if "sampler" in kept.get("config", {}):
        kept["config"] = copy.deepcopy(kept["config"])
        kept["config"]["sampler"].pop("batch_size", None)
    return kept


def comparable_from(phases: Sequence[Mapping[str, int]]) -> int:
    """Return the step from which losses can be compared: they depend on the size of the batch.

    Parameters
    ----------
    phases
        The phases.
    """
    start = phases[-1]["start"]
    for one in reversed(phases):
        if one["batch_size"] != phases[-1]["batch_size"]:
            break
        start = one["start"]
    return start


def write_phases(out: Path, phases: Sequence[Mapping[str, int]]) -> None:
    """Write the phases of a run beside its log.

    Parameters
    ----------
    out
        Folder of the run.
    phases
        The phases.
    """
    write_text(out / FILE, json.dumps(list(phases)) + "\n")


def read_phases(out: str | Path) -> list[dict[str, int]]:
    """Read the phases of a run.

    Parameters
    ----------
    out
        Folder of the run.

    Returns
    -------
    The phases; none where the run wrote none.
    """
    path = Path(out).expanduser() / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
