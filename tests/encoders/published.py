"""Checkpoints in the names that their authors publish, made from a network of ours by a plain, separate mapping."""

from __future__ import annotations

import torch

SMALL = {
    "uni": {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32},
    "uni2-h": {"embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 28},
    "gigapath": {"embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 32},
    "hibou-b": {"embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 28},
    "h-optimus-0": {"embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 28},
    "h0-mini": {"embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 28},
    "virchow2": {"embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 28},
    "phikon": {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32},
    "phikon-v2": {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32},
    "midnight": {"embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 28},
    "plip": {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 64},
    "clip-vit-b32": {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 64},
    "conch": {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32},
    "ctranspath": {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "img_size": 56},
    "resnet18": {"layers": (1, 1, 1, 1)},
    "resnet50": {"layers": (1, 1, 1, 1)},
}


def _split(name: str, value: torch.Tensor, pattern: str) -> dict[str, torch.Tensor]:
    parts = value.chunk(3)
    return {
        name.replace("attn.qkv", pattern.format(part)): parts[i] for i, part in enumerate(("query", "key", "value"))
    }


def _tokens(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Class token, positions, registers and patch embedding; position zero for a class token without one."""
    pos = state["pos_embed"]
    patches = round((pos.shape[1] - 1) ** 0.5) ** 2 + 1
    if pos.shape[1] != patches:
        pos = torch.cat([torch.zeros(1, 1, pos.shape[2]), pos], dim=1)
    found = {f"{prefix}cls_token": state["cls_token"], f"{prefix}position_embeddings": pos}
    if "reg_token" in state:
        found[f"{prefix}register_tokens"] = state["reg_token"]
    for part in ("weight", "bias"):
        found[f"{prefix}patch_embeddings.projection.{part}"] = state[f"patch_embed.proj.{part}"]
    return found


def as_vit(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The hub's ViT."""
    found = _tokens(state, "embeddings.")
    for name, value in state.items():
        block = name.replace("blocks.", "encoder.layer.")
        if ".attn.qkv." in name:
            found |= _split(block, value, "attention.attention.{}")
        elif name.startswith("blocks."):
            block = block.replace("attn.proj", "attention.output.dense")
            block = block.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
            found[block.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after")] = value
        elif name.startswith("norm."):
            found[name.replace("norm.", "layernorm.")] = value
    return found | {"pooler.dense.weight": torch.zeros(2, 2)}


def as_dinov2(state: dict[str, torch.Tensor], *, swiglu: bool) -> dict[str, torch.Tensor]:
    """The hub's DINOv2."""
    found = _tokens(state, "embeddings.")
    for name, value in state.items():
        block = name.replace("blocks.", "encoder.layer.")
        if ".attn.qkv." in name:
            found |= _split(block, value, "attention.attention.{}")
        elif name.startswith("blocks."):
            block = block.replace("attn.proj", "attention.output.dense")
            block = block.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")
            if swiglu:
                block = block.replace("mlp.fc1", "mlp.weights_in").replace("mlp.fc2", "mlp.weights_out")
            found[block] = value
        elif name.startswith("norm."):
            found[name.replace("norm.", "layernorm.")] = value
    return found | {"embeddings.mask_token": torch.zeros(1, 4)}


def as_dinov2_of_its_authors(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """DINOv2's own names with SwiGLU, blocks in chunks."""
    pos = torch.cat([torch.zeros(1, 1, state["pos_embed"].shape[2]), state["pos_embed"]], dim=1)
    found = {"pos_embed": pos, "register_tokens": state["reg_token"], "mask_token": torch.zeros(1, 4)}
    for name, value in state.items():
        if name not in ("pos_embed", "reg_token"):
            new = name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
            found[new.replace("blocks.", "blocks.0.")] = value
    return {"teacher": {f"backbone.{name}": value for name, value in found.items()}}


def as_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The hub's CLIP, with a scrap of its text tower."""
    found = {
        "vision_model.embeddings.class_embedding": state["cls_token"].flatten(),
        "vision_model.embeddings.position_embedding.weight": state["pos_embed"][0],
        "vision_model.embeddings.position_ids": torch.arange(5),
        "vision_model.embeddings.patch_embedding.weight": state["patch_embed.proj.weight"],
        "visual_projection.weight": state["head.weight"],
        "text_model.final_layer_norm.weight": torch.zeros(3),
        "logit_scale": torch.zeros(()),
    }
    for name, value in state.items():
        block = name.replace("blocks.", "vision_model.encoder.layers.")
        if ".attn.qkv." in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                found[block.replace("attn.qkv", f"self_attn.{letter}_proj")] = part
        elif name.startswith("blocks."):
            block = block.replace("attn.proj", "self_attn.out_proj")
            found[block.replace("norm1", "layer_norm1").replace("norm2", "layer_norm2")] = value
        elif name.startswith("norm_pre."):
            found[name.replace("norm_pre.", "vision_model.pre_layrnorm.")] = value
        elif name.startswith("norm."):
            found[name.replace("norm.", "vision_model.post_layernorm.")] = value
    return found


def as_conch(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CONCH, with scraps of its other parts."""
    found = {f"visual.{name}": value for name, value in state.items()}
    scraps = (
        "visual.attn_pool_caption.query",
        "visual.ln_caption.weight",
        "text.token_embedding",
    )
    return found | dict.fromkeys((*scraps, "logit_scale"), torch.zeros(2))


def as_old_swin(state: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Swin of timm 0.5 in a wrapper, with the buffers that it saved."""
    found = {}
    for name, value in state.items():
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}.", f"layers.{stage - 1}.")
        found[name] = value
    found["layers.0.blocks.1.attn_mask"] = torch.zeros(4)
    found["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(4)
    return {"model": found}


def publish(name: str, state: dict[str, torch.Tensor]) -> dict:
    """A checkpoint of one encoder in its published names."""
    if name in ("hibou-b", "midnight"):
        return as_dinov2(state, swiglu=True)
    if name == "phikon-v2":
        return as_dinov2(state, swiglu=False)
    makers = {"phikon": as_vit, "plip": as_clip, "clip-vit-b32": as_clip, "conch": as_conch, "ctranspath": as_old_swin}
    return makers.get(name, dict)(state)
