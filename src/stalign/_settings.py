"""Settings that hold for the process: cache folder, device, seed, progress bars and verbosity."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._validate import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("stalign")
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}


def _default_cache() -> Path:
    given = os.environ.get("STALIGN_CACHE")
    if given:
        return Path(given)
    import pooch

    return Path(pooch.os_cache("stalign"))


@dataclass
class Settings:
    """Process-wide settings, at hand as `stalign.settings`.

    Parameters
    ----------
    cache_dir
        Folder for downloaded files and cached features; `STALIGN_CACHE` overrides the default of the platform.
    image_root
        Folder below which image files that an object names (`metadata["source_image_path"]`) may be opened, beside the
        current folder and files that were named to a reader in this process; None adds no folder.
    device
        Torch device, or None for CUDA where there is one and the CPU elsewhere. Apple's MPS is used only if asked for.
    offline
        Whether the network is off limits; `HF_HUB_OFFLINE` does the same for the hub.
    n_jobs
        Threads to compute with; None for one where spots are few, in linear algebra and clustering, and for those that
        the libraries choose elsewhere.
    seed
        Seed of functions whose `random_state` is None.
    show_progress
        Whether long work shows a progress bar.
    verbosity
        `error`, `warning`, `info` or `debug`.

    Examples
    --------
    >>> import stalign
    >>> with stalign.settings.override(show_progress=False):
    ...     stalign.settings.show_progress
    False
    """

    cache_dir: Path = field(default_factory=_default_cache)
    image_root: Path | None = None
    device: str | None = None
    offline: bool = False
    n_jobs: int | None = None
    seed: int = 0
    show_progress: bool = True
    verbosity: str = "info"

    def __setattr__(self, name: str, value: Any) -> None:
        known = [f.name for f in fields(self)]
        if name not in known:
            msg = f"Expected a setting. Found: {name!r}. Available: {', '.join(known)}."
            raise AttributeError(msg)
        if name == "verbosity":
            if value not in _LEVELS:
                msg = f"Expected `verbosity` to be one of {', '.join(_LEVELS)}. Found: {value!r}."
                raise ValueError(msg)
            logger.setLevel(_LEVELS[value])
        if name == "n_jobs" and value is not None:
            whole(value, name="n_jobs")
        if name == "cache_dir" or (name == "image_root" and value is not None):
            value = Path(value)
        super().__setattr__(name, value)

    @contextmanager
    def override(self, **changes: Any) -> Iterator[Settings]:
        """Change settings for the length of a `with` block.

        Parameters
        ----------
        changes
            Settings and their values.
        """
        before = replace(self)
        try:
            for name, value in changes.items():
                setattr(self, name, value)
            yield self
        finally:
            for f in fields(before):
                setattr(self, f.name, getattr(before, f.name))


if not logger.handlers:
    _handler = logging.StreamHandler()
    _handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(_handler)
    logger.propagate = False
settings = Settings()


def seed_of(random_state: int | None) -> int:
    """Get the seed of a call.

    Parameters
    ----------
    random_state
        The seed given, or None.

    Returns
    -------
    The seed given, or that of the settings.

    Raises
    ------
    TypeError
        If it is not a whole number.
    ValueError
        If it is negative.
    """
    return settings.seed if random_state is None else whole(random_state, name="random_state", least=0)


def progress(items: Any, *, desc: str, total: int | None = None, unit: str = "batch") -> Any:
    """Wrap an iterable in a progress bar that `settings.show_progress` switches.

    Parameters
    ----------
    items
        What to iterate over.
    desc
        What is being done.
    total
        How many items there are, where `items` has no length.
    unit
        What one item is.

    Returns
    -------
    The iterable, which writes to standard error as it is consumed.
    """
    from tqdm import tqdm

    return tqdm(items, desc=desc, total=total, unit=unit, disable=not settings.show_progress, leave=False)
