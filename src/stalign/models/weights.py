"""Weights by name: where they are, what they are, and what they read."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch

from stalign._validate import message
from stalign.models.checkpoint import Checkpoint, load
from stalign.models.checkpoint_files import CONFIG_FILE
from stalign.models.config import MINI, SMALL, InputSpec
from stalign.models.hibio_config import HIBIO_MINI, PatchSpec
from stalign.models.hub import SCHEME, from_hub


@dataclass(frozen=True)
class Weights:
    """One entry of the registry.

    Parameters
    ----------
    name
        What users write.
    folder
        Folder inside the package.
    sha256
        Hash of `weights.safetensors`; "" leaves the check to the hash in `config.json`.
    licence
        SPDX name of the licence.
    input
        What the network reads.
    description
        One sentence.
    kind
        Kind of the network, `st-align` or `hibio`.
    """

    name: str
    folder: str
    sha256: str
    licence: str
    input: InputSpec | PatchSpec
    description: str
    kind: str = "st-align"

    @property
    def path(self) -> Path:
        """Where the folder is on this machine."""
        return Path(str(files("stalign").joinpath(*self.folder.split("/"))))


REGISTRY: dict[str, Weights] = {
    "stalign-mini": Weights(
        name="stalign-mini",
        folder="weights/stalign-mini",
        sha256="44a3bbe7f08922c0f91a9c2fa2cfcf6db301dbcaae6d14510db41135b9c3f1d3",
        licence="BSD-3-Clause",
        input=MINI.input,
        description="Small network with all four encoders trained, shipped in the package.",
    ),
    "stalign-small": Weights(
        name="stalign-small",
        folder="weights/stalign-small",
        sha256="a90bcf2414b31bfa375ed29ea8bbd75e6cbbbd3b82c18ad3ff2bc0f86f082018",
        licence="BSD-3-Clause",
        input=SMALL.input,
        description="Image branches from EfficientNet-Lite0; trained on no cortex. Not better than the default.",
    ),
    "hibio-mini": Weights(
        name="hibio-mini",
        folder="weights/hibio-mini",
        sha256="1ac89f43fe9add139282dc54a229e90badf496329b9e2fe8796378ac3f7b153b",
        licence="BSD-3-Clause",
        input=HIBIO_MINI.input,
        description="HiBio-ST: images and gene sentences in one space, small, for `tl.encode` and `tl.retrieve`.",
        kind="hibio",
    ),
}

_NETWORKS = {"st-align": "ST-Align", "hibio": "HiBio-ST"}
_READERS = {
    "st-align": "`stalign.tl.embed` and `stalign.train.finetune`",
    "hibio": "`stalign.tl.sentences`, `stalign.tl.pathways` and `stalign.tl.encode`",
}


def load_weights(
    weights: str | os.PathLike[str] | Checkpoint, *, device: str | torch.device = "cpu", images: bool = True
) -> Checkpoint:
    """Return the network of a name or a folder.

    Parameters
    ----------
    weights
        A name in the registry, the path of a checkpoint folder, `hf://organisation/name` of the Hugging Face hub (with
        `@revision` for a branch, tag or commit), or a checkpoint. A checkpoint is returned as it is
        where its network is on the device and in evaluation mode; otherwise with a copy of its network.
    device
        Where the network goes.
    images
        Whether the encoders of images are needed. Without, packaged weights of ST-Align are there sooner; all others
        are loaded whole.

    Returns
    -------
    The checkpoint, its network in evaluation mode. One that was given is not changed.

    Raises
    ------
    ValueError
        If the name is unknown, or the folder is no sound checkpoint.
    FileNotFoundError
        If a path leads nowhere, or the weights of a known name are not in this installation or on the hub.
    PermissionError, ConnectionError
        If the hub asks for access or cannot be reached.
    TypeError
        If `weights` is none of these.
    """
    if isinstance(weights, Checkpoint):
        network, wanted = weights.network, torch.empty(0, device=device).device  # such as cuda:0 for cuda
        there = all(tensor.device == wanted for tensor in (*network.parameters(), *network.buffers()))
        if there and not any(module.training for module in network.modules()):
            return weights
        return replace(weights, network=copy.deepcopy(network).to(device).eval())
    if isinstance(weights, str) and weights in REGISTRY:
        entry = REGISTRY[weights]
        return _packaged(entry, device=device, images=images or entry.kind != "st-align")
    if isinstance(weights, str) and weights.startswith(SCHEME):
        return from_hub(weights, device=device)
    if not isinstance(weights, str | os.PathLike):
        what = "Expected the name of weights, the path of a checkpoint folder, or a checkpoint"
        raise TypeError(message(what, found=type(weights).__name__, available=REGISTRY))
    path = Path(weights).expanduser()
    if isinstance(weights, str) and not path.exists() and path.name == weights:
        hint = "The path of a checkpoint folder works too"
        raise ValueError(message("Expected the name of weights", found=repr(weights), available=REGISTRY, hint=hint))
    return load(path, device=device)


def of_kind(checkpoint: Checkpoint, kind: str) -> Checkpoint:
    """See that weights are of one kind of network.

    Parameters
    ----------
    checkpoint
        The weights.
    kind
        `st-align` or `hibio`.

    Returns
    -------
    The weights.

    Raises
    ------
    ValueError
        If they are of another.
    """
    config = checkpoint.config
    if config.kind != kind:
        expected = f"Expected weights of {_NETWORKS[kind]}"
        found = f"{config.name!r}, which are of {_NETWORKS.get(config.kind, config.kind)}"
        hint = f"Those are read by {_READERS[config.kind]}" if config.kind in _READERS else ""
        raise ValueError(message(expected, found=found, hint=hint))
    return checkpoint


def _packaged(entry: Weights, *, device: str | torch.device, images: bool) -> Checkpoint:
    if not (entry.path / CONFIG_FILE).is_file():
        hint = "Install the released package, or pass the path of a checkpoint folder"
        found = f"nothing at {entry.path}"
        raise FileNotFoundError(
            message(f"Expected the weights {entry.name!r} in this installation", found=found, hint=hint)
        )
    checkpoint = load(entry.path, device=device, images=images)
    if entry.sha256 and checkpoint.sha256 != entry.sha256:
        hint = "Reinstall the package"
        raise ValueError(
            message(f"Expected sha256 {entry.sha256} of {entry.name!r}", found=checkpoint.sha256, hint=hint)
        )
    return checkpoint
