"""A run of any network before it starts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stalign.train.network_config import model_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stalign.train.config import TrainConfig
    from stalign.train.run import SectionRun

_RUNS = {"st-align": "stalign.train.run", "hibio": "stalign.train.hibio"}
"""Module by the kind of network; its `assemble(slides, config, network)` opens sections and builds the rest."""


def assemble(slides: Iterable[Any] | None, config: TrainConfig) -> SectionRun:
    """Open the sections and build the network of a run.

    Parameters
    ----------
    slides
        The sections, or None for those that the configuration names.
    config
        The run.

    Returns
    -------
    The run.

    Raises
    ------
    ValueError
        If a key is wrong, no section can be used, or training and validation cannot be told apart; see `split`.
    RuntimeError
        If a section cannot be read.
    """
    network = model_config(config)
    run: SectionRun = import_module(_RUNS[network.kind]).assemble(slides, config, network)
    return run
