"""Checkpoints: read without running anything in them, fitted to a network without leaving anything out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch
    from torch import nn

_WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher", "params")
_PREFIXES = ("module.", "model.", "backbone.", "vit.", "dinov2.", "dinov2_with_registers.", "encoder_q.")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint.

    Parameters
    ----------
    path
        A `.safetensors` file, a pickled state dict (read with `weights_only=True`), or a folder with
        `model.safetensors`, its shards with their index, or `pytorch_model.bin`.

    Returns
    -------
    Tensors by name, on the CPU, floating ones as float32.

    Raises
    ------
    FileNotFoundError
        If the folder holds no weights.
    ValueError
        If the file is damaged, or holds more than tensors.
    """
    tensors: dict[str, Any] = {}
    for file in weight_files(path):
        tensors.update(read_file(file))
    return tensors_of(tensors)


def weight_files(path: Path) -> list[Path]:
    """Find the files that make up a checkpoint.

    Parameters
    ----------
    path
        A file, or a folder with `model.safetensors`, its shards with their index, or a pickled state dict.

    Returns
    -------
    The files, more than one for shards.

    Raises
    ------
    FileNotFoundError
        If the folder holds no weights.
    """
    if path.is_file():
        return [path]
    index = path / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return [path / Path(shard).name for shard in shards]
    for pattern in ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.ckpt"):
        found = sorted(path.glob(pattern))
        if found:
            return found[:1]
    raise FileNotFoundError(message("Expected weights (.safetensors, .bin, .pth or .pt) in the folder", found=path))


def read_file(file: Path) -> dict[str, Any]:
    """Read one file of a checkpoint without running anything in it.

    Parameters
    ----------
    file
        A `.safetensors` file or a pickled dictionary of tensors and plain values.

    Returns
    -------
    What is in it.

    Raises
    ------
    ValueError
        If the file is damaged, or holds more than tensors and plain values.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        hint = "The file is truncated, damaged, or holds Python objects, which are never run here"
        raise ValueError(message("Expected a checkpoint of tensors", found=f"{file} ({error})", hint=hint)) from error
    if not isinstance(found, dict):
        raise ValueError(message("Expected a dictionary of tensors", found=f"{type(found).__name__} in {file}"))
    return found


def tensors_of(found: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Take the tensors out of what a file holds.

    Parameters
    ----------
    found
        Tensors by name, perhaps in a dictionary of a training library and with its prefix.

    Returns
    -------
    Tensors by name, floating ones as float32.

    Raises
    ------
    ValueError
        If there are none.
    """
    return {name: t.float() if t.is_floating_point() else t for name, t in _unwrapped(found).items()}


def _unwrapped(found: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    import torch

    for key in _WRAPPERS:
        if isinstance(found.get(key), dict):
            return _unwrapped(found[key])
    tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(message("Expected tensors in the checkpoint", found=", ".join(list(found)[:5]) or "nothing"))
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return _unwrapped({name.removeprefix(prefix): value for name, value in tensors.items()})
    return tensors


def assign(model: nn.Module, state: Mapping[str, torch.Tensor], *, ignore: Iterable[str] = (), name: str = "") -> None:
    """Give a network the tensors of a checkpoint: each one used, each parameter set, each shape right.

    Parameters
    ----------
    model
        The network, on any device; meta tensors are replaced.
    state
        Tensors by the network's own names.
    ignore
        Regular expressions of names in `state` that belong to other parts where the network has no such tensor.
    name
        The encoder's name, for messages.

    Raises
    ------
    ValueError
        If a tensor of the network is missing, one of the checkpoint is left over, or a shape differs.
    """
    patterns = [re.compile(pattern) for pattern in ignore]
    wanted = model.state_dict()
    kept = {
        key: value for key, value in state.items() if key in wanted or not any(rule.match(key) for rule in patterns)
    }
    missing = [key for key in wanted if key not in kept]
    left_over = [key for key in kept if key not in wanted]
    wrong = [
        f"{key} is {tuple(kept[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in kept and kept[key].shape != wanted[key].shape
    ]
    if missing or left_over or wrong:
        parts = {"missing": missing, "left over": left_over, "of another shape": wrong}
        found = "; ".join(f"{len(keys)} {what} (such as {keys[0]})" for what, keys in parts.items() if keys)
        hint = "These are weights of another network, or of a version that stalign does not know"
        raise ValueError(message(f"Expected a checkpoint that fits {name!r} exactly", found=found, hint=hint))
    model.load_state_dict(kept, strict=True, assign=True)
