"""Training: pretraining on slides, adapting weights to a section, and the recipes behind released weights."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stalign._optional import require

if TYPE_CHECKING:
    from stalign.train._export import export
    from stalign.train._finetune import finetune
    from stalign.train._fit import fit
    from stalign.train._history import history
    from stalign.train.clip import ClipConfig, fit_clip
    from stalign.train.config import SectionSpec, TrainConfig
    from stalign.train.curate import curate_hest, curate_stimage
    from stalign.train.recipes import load_config

_HOMES = {
    "ClipConfig": "clip",
    "SectionSpec": "config",
    "TrainConfig": "config",
    "curate_hest": "curate",
    "curate_stimage": "curate",
    "export": "_export",
    "finetune": "_finetune",
    "fit": "_fit",
    "fit_clip": "clip",
    "history": "_history",
    "load_config": "recipes",
}
__all__ = [
    "ClipConfig",
    "SectionSpec",
    "TrainConfig",
    "curate_hest",
    "curate_stimage",
    "export",
    "finetune",
    "fit",
    "fit_clip",
    "history",
    "load_config",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module 'stalign.train' has no attribute {name!r}"
        raise AttributeError(msg)
    if name in ("ClipConfig", "finetune", "fit", "fit_clip"):
        require("lightning.pytorch", purpose="Training")
    return getattr(import_module(f"stalign.train.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
