"""Largest differences between the networks here and the implementations that the authors name, on random weights.

python benchmarks/parity.py [--depth 3] [--only NAME ...] [--out FOLDER]

Networks have their published width and input, and `--depth` layers. What a reference needs and is not importable is
said: transformers for Hibou, Phikon, Phikon-v2, Midnight, PLIP and CLIP; timm_ctp for CTransPath; checkouts of CONCH,
scGPT and scFoundation in STALIGN_CONCH_REFERENCE, STALIGN_SCGPT_REFERENCE and STALIGN_SCFOUNDATION_REFERENCE. UNI,
UNI2-h, Prov-GigaPath, H-optimus-0, H0-mini and Virchow2 are timm's own networks with the arguments that their authors
give: nothing is mapped.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import types
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
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


def reference(variable: str, inside: str, name: str) -> Path:
    """Make a folder of a checkout importable as a package, without its own `__init__`."""
    where = os.environ.get(variable, "")
    folder = next((part for part in (Path(where) / inside, Path(where)) if where and part.is_dir()), None)
    if folder is None:
        raise ModuleNotFoundError(f"no checkout in {variable}")
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    return folder


def conch(depth: int, folder: Path, *, project: bool) -> dict[str, float]:
    reference("STALIGN_CONCH_REFERENCE", "conch/open_clip_custom", "conch_reference")
    build = importlib.import_module("conch_reference.coca_model")._build_vision_tower
    pools = {"attentional_pool_contrast": True, "attentional_pool_caption": True, "output_tokens": True}
    tower = shaken(build(512, {"layers": depth, "image_size": 448, **pools}, 768))
    state = {f"visual.{name}": value for name, value in tower.state_dict().items()}
    torch.save({**state, "logit_scale": torch.zeros(())}, folder / "w.bin")
    ours = load_network(get("conch", project=project), folder / "w.bin", depth=depth).eval()
    x = images(1, 448)
    return compared(ours(x), tower(x)[0] if project else tower.forward_no_head(x))


def scgpt(depth: int, folder: Path) -> dict[str, float]:
    from stalign.encoders.scgpt_files import load

    reference("STALIGN_SCGPT_REFERENCE", "scgpt/model", "scgpt_model")
    network = importlib.import_module("scgpt_model.model").TransformerModel
    vocab = {f"G{i}": i for i in range(2000)} | {"<pad>": 2000, "<cls>": 2001, "<eoc>": 2002}
    kwargs: dict[str, Any] = {"do_mvc": True, "use_fast_transformer": False, "pad_value": -2}
    if "vocab" in network.__init__.__code__.co_varnames:
        kwargs |= {"vocab": vocab, "pad_token": "<pad>"}
    model = shaken(network(2003, 512, 8, 512, depth, **kwargs))
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


def scfoundation(depth: int, folder: Path) -> dict[str, float]:
    """The encoder's modules of its authors, composed as their script composes them."""
    from stalign.encoders.scfoundation import GENE_TABLE, GENES, load

    reference("STALIGN_SCFOUNDATION_REFERENCE", "model/pretrainmodels", "scfoundation_model")
    mae = importlib.import_module("scfoundation_model.mae_autobin")
    special = {"pad_token_id": 103, "mask_token_id": 102, "bin_alpha": 1.0, "bin_num": 100}
    model = mae.MaeAutobin(num_tokens=104, max_seq_len=GENES + 2, embed_dim=768, decoder_embed_dim=512, **special)
    module = importlib.import_module("scfoundation_model.transformer").pytorchTransformerModule
    model.encoder = module(GENES + 2, 768, depth, 12)
    shaken(model)
    torch.save(
        {"cell": {"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}}, folder / "models.ckpt"
    )
    (folder / GENE_TABLE).write_text("gene_name\tindex\n" + "".join(f"G{i}\t{i}\n" for i in range(GENES)))
    counts = np.random.default_rng(0).poisson(0.05, (1, GENES)).astype(np.float32)
    ours = load(get("scfoundation"), folder).encode(sp.csr_matrix(counts), ["cell"])
    seen = np.flatnonzero(counts[0])
    total = counts.sum()
    values = torch.tensor([[*np.log1p(counts[0, seen] / total * 1e4), 4.0, np.log10(total)]], dtype=torch.float32)
    places = torch.tensor([[*seen, GENES, GENES + 1]])
    tokens = model.token_emb(values.unsqueeze(2), output_weight=0) + model.pos_emb(places)
    tokens = model.encoder(tokens, torch.zeros_like(places, dtype=torch.bool))
    parts = [tokens[:, -1], tokens[:, -2], tokens[:, :-2].amax(1), tokens[:, :-2].mean(1)]
    return compared(torch.from_numpy(ours), torch.cat(parts, 1))


CHECKS: dict[str, Callable[[int, Path], dict[str, float]]] = {
    **{name: partial(dinov2, name) for name in HUB},
    "phikon": phikon,
    "plip, clip-vit-b32": clip,
    "ctranspath": ctranspath,
    "conch": partial(conch, project=False),
    "conch, projected": partial(conch, project=True),
    "scgpt": scgpt,
    "scfoundation": scfoundation,
}
NETWORKS_OF_TIMM = ("uni", "uni2-h", "gigapath", "h-optimus-0", "h0-mini", "virchow2", "resnet50", "resnet18")


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
    if not table["not checked because"].any():
        table = table.drop(columns="not checked because")
    lines = [
        "# Parity of mapped encoders",
        "",
        f"Random weights of the published width and {args.depth} layers, float32: the largest absolute difference "
        "between an output here and that of the implementation that the authors name, beside the largest value of the "
        f"output (`benchmarks/parity.py`). {', '.join(NETWORKS_OF_TIMM)} are timm's own networks with the arguments "
        "that their authors give; nothing is mapped, so there is nothing to compare. `conch, projected` is its "
        "embedding in the space shared with text.",
        "",
        "| " + " | ".join(table.columns) + " |",
        "|" + "---|" * len(table.columns),
    ]
    for row in table.fillna("").to_numpy():
        cells = [f"{value:.2g}" if isinstance(value, float) else str(value) for value in row]
        lines.append("| " + " | ".join(cells) + " |")
    (args.out / "parity.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
