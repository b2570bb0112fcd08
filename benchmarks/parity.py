"""Largest differences between the networks here and the implementations that the authors name, on random weights.

python benchmarks/parity.py [--depth 3] [--only NAME ...] [--out FOLDER]

Networks have their published width and input, and `--depth` layers. What a reference needs and is not importable is
said: transformers for Hibou, Phikon, Phikon-v2, Midnight, PLIP and CLIP; timm_ctp for CTransPath; open_clip for the
attention pool of CONCH; a checkout of scGPT in STALIGN_SCGPT_REFERENCE. UNI, UNI2-h, Prov-GigaPath, H-optimus-0,
H0-mini and Virchow2 are timm's own networks with the arguments that their authors give: nothing is mapped.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from stalign.encoders import get
from stalign.encoders.vision import load_network

if TYPE_CHECKING:
    from collections.abc import Callable

HUB = {  # encoder: class, sizes that differ from the class's defaults
    "hibou-b": ("Dinov2WithRegisters", {"hidden_size": 768, "num_attention_heads": 12, "use_swiglu_ffn": True}),
    "phikon-v2": ("Dinov2", {"hidden_size": 1024, "num_attention_heads": 16, "patch_size": 16}),
    "midnight": ("Dinov2", {"hidden_size": 1536, "num_attention_heads": 24, "use_swiglu_ffn": True}),
}


def shaken(model: nn.Module) -> nn.Module:
    """Move every parameter, as zeros and ones would hide a swap."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def compared(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, float]:
    return {"largest difference": float((ours - theirs).abs().max()), "largest value": float(theirs.abs().max())}


def images(n: int = 2, side: int = 224) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def dinov2(name: str, depth: int, folder: Path) -> dict[str, float]:
    hub = importlib.import_module("transformers")
    kind, sizes = HUB[name]
    config = getattr(hub, f"{kind}Config")(**{"image_size": 224, "patch_size": 14, **sizes}, num_hidden_layers=depth)
    model = shaken(getattr(hub, f"{kind}Model")(config))
    model.save_pretrained(folder)
    ours = load_network(get(name, pool="cls"), folder, depth=depth).eval()
    return compared(ours(images()), model(pixel_values=images()).pooler_output)


def phikon(depth: int, folder: Path) -> dict[str, float]:
    hub = importlib.import_module("transformers")
    model = shaken(hub.ViTModel(hub.ViTConfig(num_hidden_layers=depth), add_pooling_layer=False))
    model.save_pretrained(folder)
    ours = load_network(get("phikon"), folder, depth=depth).eval()
    return compared(ours(images()), model(pixel_values=images()).last_hidden_state[:, 0])


def clip(depth: int, folder: Path) -> dict[str, float]:
    hub = importlib.import_module("transformers")
    config = hub.CLIPConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": depth})
    model = shaken(hub.CLIPModel(config))
    model.save_pretrained(folder)
    ours = load_network(get("plip"), folder, depth=depth).eval()
    pooled = model.vision_model(pixel_values=images()).pooler_output
    return compared(ours(images()), model.visual_projection(pooled))


def ctranspath(depth: int, folder: Path) -> dict[str, float]:
    del depth  # the whole network
    from stalign.encoders.towers import ConvStem

    class Stem(ConvStem):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).flatten(1, 2)

    timm_ctp = importlib.import_module("timm_ctp")
    model = timm_ctp.create_model("swin_tiny_patch4_window7_224", embed_layer=Stem, pretrained=False)
    model.head = nn.Identity()
    torch.save({"model": shaken(model).state_dict()}, folder / "ctranspath.pth")
    ours = load_network(get("ctranspath"), folder / "ctranspath.pth").eval()
    return compared(ours(images()), model(images()))


def conch(depth: int, folder: Path) -> dict[str, float]:
    """Timm's trunk, open_clip's attention pool and a norm: the parts that CONCH's tower is made of."""
    pool = importlib.import_module("open_clip.transformer").AttentionalPooler(512, 768, n_head=8, n_queries=1)
    timm = importlib.import_module("timm.models.vision_transformer")
    trunk = timm.VisionTransformer(img_size=448, patch_size=16, embed_dim=768, depth=depth, num_heads=12, num_classes=0)
    parts = nn.ModuleDict({"trunk": trunk, "attn_pool_contrast": pool, "ln_contrast": nn.LayerNorm(512)})
    state = {f"visual.{name}": value for name, value in shaken(parts).state_dict().items()}
    torch.save({**state, "visual.proj_contrast": torch.zeros(2), "logit_scale": torch.zeros(())}, folder / "w.bin")
    ours = load_network(get("conch"), folder / "w.bin", depth=depth).eval()
    x = images(1, 448)
    return compared(ours(x), parts["ln_contrast"](pool(trunk.forward_features(x))[:, 0]))


def scgpt(depth: int, folder: Path) -> dict[str, float]:
    from stalign.encoders.scgpt_files import load

    where = os.environ.get("STALIGN_SCGPT_REFERENCE", "")
    path = Path(where) / "scgpt" / "model"
    if not (path / "model.py").is_file():
        raise ModuleNotFoundError("no checkout of scGPT in STALIGN_SCGPT_REFERENCE")
    package = types.ModuleType("scgpt_model")
    package.__path__ = [str(path)]
    sys.modules["scgpt_model"] = package
    reference = importlib.import_module("scgpt_model.model")
    vocab = {f"G{i}": i for i in range(2000)} | {"<pad>": 2000, "<cls>": 2001, "<eoc>": 2002}
    kwargs: dict[str, Any] = {"do_mvc": True, "use_fast_transformer": False, "pad_value": -2}
    if "vocab" in reference.TransformerModel.__init__.__code__.co_varnames:
        kwargs |= {"vocab": vocab, "pad_token": "<pad>"}
    model = shaken(reference.TransformerModel(2003, 512, 8, 512, depth, **kwargs))
    torch.save(model.state_dict(), folder / "best_model.pt")
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "args.json").write_text(json.dumps({"nlayers": depth}))
    ours = load(get("scgpt"), folder).model
    rng, lengths = np.random.default_rng(0), [200, 700, 1200]
    ids = torch.full((3, 1200), 2000)
    values = torch.full((3, 1200), -2.0)
    for row, n in enumerate(lengths):
        ids[row, :n] = torch.from_numpy(np.r_[2001, rng.permutation(2000)[: n - 1]])
        values[row, 1:n] = torch.from_numpy(rng.integers(1, 51, n - 1)).float()
    packed = [torch.cat([part[row, :n] for row, n in enumerate(lengths)]) for part in (ids, values)]
    return compared(ours(*packed, lengths), model._encode(ids, values, ids == 2000)[:, 0])


CHECKS: dict[str, Callable[[int, Path], dict[str, float]]] = {
    **{name: (lambda depth, folder, name=name: dinov2(name, depth, folder)) for name in HUB},
    "phikon": phikon,
    "plip, clip-vit-b32": clip,
    "ctranspath": ctranspath,
    "conch": conch,
    "scgpt": scgpt,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CHECKS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    rows = []
    for name in args.only:
        check = CHECKS[name]
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode(mode=False), torch.no_grad():
            try:
                rows.append({"encoder": name, **check(args.depth, Path(folder)), "not checked because": ""})
            except ModuleNotFoundError as error:
                rows.append({"encoder": name, "not checked because": str(error)})
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "parity.csv", index=False)
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    for row in table.fillna("").to_numpy():
        cells = [f"{value:.2g}" if isinstance(value, float) else str(value) for value in row]
        lines.append("| " + " | ".join(cells) + " |")
    (args.out / "parity.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
