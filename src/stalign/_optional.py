"""Optional packages, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

_EXTRAS = {"lightning": "train", "tensorboard": "train", "huggingface_hub": "encoders", "spatialdata_io": "io"}


def require(name: str, *, purpose: str, extra: str = "") -> ModuleType:
    """Import an optional package, or say how to install it.

    Parameters
    ----------
    name
        The package to import, such as `lightning.pytorch`.
    purpose
        What needs it, for the message.
    extra
        The extra that brings it, where several do.

    Returns
    -------
    The module.

    Raises
    ------
    ImportError
        If the package is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        top = name.split(".")[0]
        if error.name is not None and error.name.split(".")[0] != top:
            raise
        extra = extra or _EXTRAS.get(top, "")
        command = f"pip install {top.replace('_', '-')}"
        if extra:  # stalign itself is on no index
            command += f" (or, in the checkout of stalign: pip install '.[{extra}]')"
        msg = f"{purpose} needs the package {top}, which is not installed. Run: {command}"
        raise ImportError(msg) from error
