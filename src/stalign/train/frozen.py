"""Features of image backbones that are not trained, computed once per section and without augmentation."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stalign._settings import progress, settings
from stalign.models.branches import TimmEncoder
from stalign.models.image_encoders import BackboneEncoder, standardise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from stalign.models.batch import Batch
    from stalign.models.network import STAlign
    from stalign.train.store import StoredSection

_CHUNK = 256  # spots whose images are encoded at one time


def frozen_branches(network: STAlign) -> list[str]:
    """Name the image branches whose pretrained backbone stays as it is.

    Parameters
    ----------
    network
        The network.

    Returns
    -------
    `spot_image`, `niche_image`, both or none.
    """
    specs = {"spot_image": network.config.spot_image, "niche_image": network.config.niche_image}
    return [branch for branch, spec in specs.items() if isinstance(spec, TimmEncoder) and spec.frozen]


def weights_hash(network: Any) -> str:
    """Hash the weights of a network.

    Parameters
    ----------
    network
        The network, or another module.

    Returns
    -------
    Sixty-four hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def with_features(stored: StoredSection, network: STAlign, branches: Iterable[str]) -> StoredSection:
    """Compute what the backbones of some branches see in each spot of a section.

    Parameters
    ----------
    stored
        The section.
    network
        The network; it is moved to the device that is used, and left in evaluation mode.
    branches
        Image branches. Those that have features already, or no backbone, are left as they are.

    Returns
    -------
    The section with features, which stand in for its patches.
    """
    reader = stored.reader
    encoders = {branch: network.image_encoders[branch.removesuffix("_image")] for branch in branches}
    backbones = {
        branch: encoder.backbone
        for branch, encoder in encoders.items()
        if branch not in reader.features and isinstance(encoder, BackboneEncoder) and encoder.backbone is not None
    }
    if reader.windows is None or not backbones:
        return stored
    device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = network.to(device).eval()
    features: dict[str, NDArray[np.float32]] = dict(reader.features)
    for start in progress(range(0, len(stored.rows), _CHUNK), desc=f"Encoding the image of {stored.name}"):
        rows = stored.rows[start : start + _CHUNK]
        batch = reader.batch(rows).to(device)
        for branch, backbone in backbones.items():
            with torch.inference_mode():
                patches = standardise(getattr(batch, branch), *_colours(batch, network))
                values = backbone(patches).float().cpu().numpy()
            features.setdefault(branch, np.zeros((len(reader), values.shape[1]), np.float32))[rows] = values
    return replace(stored, reader=replace(reader, features=features))


def _colours(batch: Batch, network: STAlign) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and spread that the images of a batch are standardised by, (b, 3) or (1, 3) each."""
    spec = network.config.input
    if spec.stain == "section" and batch.image_mean is not None and batch.image_std is not None:
        return batch.image_mean[batch.section], batch.image_std[batch.section]
    return torch.tensor([spec.mean], device=batch.section.device), torch.tensor([spec.std], device=batch.section.device)
