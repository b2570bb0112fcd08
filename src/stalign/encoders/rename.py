"""Names of tensors in published checkpoints, turned into those of the networks here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    State = dict[str, torch.Tensor]

_VIT = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)
_DINO = (
    (r"^register_tokens$", "reg_token"),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # blocks saved in chunks
    (r"\.mlp\.(?:weights_in|w12)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:weights_out|w3)\.", ".mlp.fc2."),
)
_CLIP = (
    (r"^vision_model\.", ""),
    (r"^visual_projection\.", "head."),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.self_attn\.(q|k|v)_proj\.", lambda m: f".attn.{ {'q': 'query', 'k': 'key', 'v': 'value'}[m[1]] }."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
)


def _apply(
    state: Mapping[str, torch.Tensor], rules: Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]
) -> State:
    renamed = {}
    for name, value in state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    return renamed


def _join_qkv(state: State) -> State:
    import torch

    joined = {name: value for name, value in state.items() if ".attn.key." not in name and ".attn.value." not in name}
    for name in [name for name in joined if ".attn.query." in name]:
        parts = [state[name.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
        del joined[name]
        joined[name.replace(".query.", ".qkv.")] = torch.cat(parts)
    return joined


def resize_positions(
    pos: torch.Tensor, grid: tuple[int, int], *, mode: str = "bicubic", antialias: bool
) -> torch.Tensor:
    """Resample position embeddings to another grid.

    Parameters
    ----------
    pos
        Position embeddings of a square grid without prefix tokens, (1, n, width).
    grid
        Rows and columns wanted.
    mode
        `bicubic` or `bilinear`.
    antialias
        Whether to filter when shrinking.

    Returns
    -------
    Position embeddings, (1, rows * columns, width).
    """
    import torch.nn.functional as F

    side = round(pos.shape[1] ** 0.5)
    if (side, side) == tuple(grid):
        return pos
    image = pos.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=tuple(grid), mode=mode, antialias=antialias, align_corners=False)
    return image.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)


def _fit_positions(state: State, model: Any, *, antialias: bool) -> State:
    """Bring `pos_embed`, with one position for the class token, to the network's grid and convention."""
    import torch

    grid = model.patch_embed.grid_size
    pos = state["pos_embed"]
    cls, patches = pos[:, :1], resize_positions(pos[:, 1:], grid, mode="bicubic", antialias=antialias)
    if model.pos_embed.shape[1] == patches.shape[1]:  # the network adds no position to its prefix tokens
        return {**state, "cls_token": state["cls_token"] + cls, "pos_embed": patches}
    return {**state, "pos_embed": torch.cat([cls, patches], dim=1)}


def vit(state: Mapping[str, torch.Tensor], model: Any) -> State:
    """From the names of the hub's ViT to timm's.

    Parameters
    ----------
    state
        Tensors of the checkpoint.
    model
        The timm network.

    Returns
    -------
    Tensors by timm's names.
    """
    del model
    return _join_qkv(_apply(state, _VIT))


def dinov2(state: Mapping[str, torch.Tensor], model: Any) -> State:
    """From the names of DINOv2, the hub's or its authors', with or without registers, to timm's.

    Parameters
    ----------
    state
        Tensors of the checkpoint.
    model
        The timm network.

    Returns
    -------
    Tensors by timm's names, positions resampled to its grid.
    """
    renamed = _join_qkv(_apply(_apply(state, _VIT), _DINO))
    return _fit_positions(renamed, model, antialias="reg_token" in renamed)


def clip(state: Mapping[str, torch.Tensor], model: Any) -> State:
    """From the names of the hub's CLIP to timm's vision tower.

    Parameters
    ----------
    state
        Tensors of the checkpoint; the text tower is left out.
    model
        The timm network.

    Returns
    -------
    Tensors by timm's names.
    """
    del model
    vision = {key: value for key, value in state.items() if key.startswith(("vision_model.", "visual_projection."))}
    renamed = _join_qkv(_apply(vision, _CLIP))
    renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
    renamed["pos_embed"] = renamed["pos_embed"].unsqueeze(0)
    return renamed


def conch(state: Mapping[str, torch.Tensor], model: Any) -> State:
    """From the names of CONCH to those of its vision tower here.

    Parameters
    ----------
    state
        Tensors of the checkpoint; the text tower and the caption pool are left out.
    model
        The network.

    Returns
    -------
    Tensors by the network's names, positions resampled to its grid.
    """
    import torch

    renamed = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    pos = renamed["trunk.pos_embed"]
    patches = resize_positions(pos[:, 1:], model.trunk.patch_embed.grid_size, mode="bilinear", antialias=False)
    return {**renamed, "trunk.pos_embed": torch.cat([pos[:, :1], patches], dim=1)}


def swin(state: Mapping[str, torch.Tensor], model: Any) -> State:
    """From the names of Swin in timm 0.5, where a stage ends with its downsampling, to those of today.

    Parameters
    ----------
    state
        Tensors of the checkpoint.
    model
        The network.

    Returns
    -------
    Tensors by today's names.
    """
    del model
    rules = ((r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample."),)
    old = "layers.0.downsample.norm.weight" in state
    return _apply(state, rules) if old else dict(state)


def unchanged(state: Mapping[str, torch.Tensor], model: Any) -> State:
    """Names that are timm's already.

    Parameters
    ----------
    state
        Tensors of the checkpoint.
    model
        The timm network.

    Returns
    -------
    The same tensors.
    """
    del model
    return dict(state)


def lite0(state: Mapping[str, torch.Tensor], model: Any) -> State:
    """From the names of the published EfficientNet-Lite0 to timm's.

    Parameters
    ----------
    state
        Tensors by name.
    model
        The network.

    Returns
    -------
    Tensors by timm's names.
    """
    from stalign.models.pretrained import lite0_name

    return {lite0_name(name): tensor for name, tensor in state.items()}


LAYOUTS: dict[str, Callable[[Mapping[str, torch.Tensor], Any], State]] = {
    "timm": unchanged, "resnet": unchanged, "vit": vit, "dinov2": dinov2, "clip": clip, "conch": conch, "swin": swin,
    "lite0": lite0,
}  # fmt: skip

IGNORED: dict[str, tuple[str, ...]] = {
    "timm": (r"head\.", r"head_dist\.", r"fc\.", r"classifier\.", r"mask_token"),
    "resnet": (r"fc\.",),
    "lite0": (r"blocks\.6\.", r"conv_head\.", r"bn2\.", r"classifier\."),
    "vit": (r"pooler\.", r"embeddings\.mask_token"),
    "dinov2": (r"mask_token", r"embeddings\.mask_token", r"head\.", r"dino_head\.", r"ibot_head\."),
    "clip": (r"embeddings\.position_ids",),
    "conch": (r"attn_pool_caption\.", r"ln_caption\."),
    "swin": (r"head\.", r".*\.attn_mask$", r".*relative_position_index$"),
}
