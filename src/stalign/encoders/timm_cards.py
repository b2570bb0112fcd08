"""Cards of timm's networks, made when they are asked for."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from stalign._optional import require
from stalign._validate import message
from stalign.encoders.card import IMAGENET, Card

PREFIX = "timm:"


@lru_cache(maxsize=32)
def timm_card(name: str) -> Card:
    """Describe a network of timm as an image encoder.

    Parameters
    ----------
    name
        `timm:` and timm's own name, with or without a tag, such as `timm:vit_small_patch16_224`.

    Returns
    -------
    The card: input, normalisation, hub repository and licence as timm states them. The embedding is what the network
    returns without its classifier.

    Raises
    ------
    KeyError
        If timm has no such network.
    ImportError
        If timm is not installed.
    """
    import torch

    timm: Any = require("timm", purpose="Encoders of timm")
    model = name.removeprefix(PREFIX)
    if not timm.is_model(model):
        close = timm.list_models(f"*{model.partition('.')[0][:8]}*")
        raise KeyError(message("Expected a network of timm", found=repr(model), available=close))
    known = timm.get_pretrained_cfg(model)
    side = known.input_size[-1] if known is not None else 224
    with torch.device("meta"):
        network = timm.create_model(model, pretrained=False, num_classes=0).eval()
        width = network(torch.empty(1, 3, side, side)).shape[1]
    repo = (known.hf_hub_id or "") if known is not None else ""
    on_hub = repo.count("/") == 1 and not repo.endswith("/")
    interpolation: Any = "bilinear" if known is not None and known.interpolation == "bilinear" else "bicubic"
    return Card(
        f"timm-{model}", "image", "stalign.encoders.vision:load", width=width, access="hub" if on_hub else "folder",
        repo=repo if on_hub else "", architecture=f"{PREFIX}{model}", input_px=side,
        mean=known.mean if known is not None else IMAGENET[0], std=known.std if known is not None else IMAGENET[1],
        interpolation=interpolation, n_parameters=sum(part.numel() for part in network.parameters()),
        licence=(known.license if known is not None else "") or "not stated", citation="Wightman 2019, timm",
        url=f"https://huggingface.co/{repo}" if on_hub else "https://github.com/huggingface/pytorch-image-models",
    )  # fmt: skip
