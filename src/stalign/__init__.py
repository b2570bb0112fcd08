"""ST-Align for the scverse: spots and niches, images and genes, in one embedding."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from stalign._settings import settings

if TYPE_CHECKING:
    from stalign import datasets, encoders, io, models, pl, pp, tl, train

__version__ = version("stalign")
__all__ = ["datasets", "encoders", "io", "models", "pl", "pp", "settings", "tl", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"stalign.{name}")
    msg = f"module 'stalign' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
