"""Spots per second of encoders with random weights: this library's path beside plain ones, in one run.

python benchmarks/encoders.py [--images 32 16 8] [--cells 16] [--rounds 2] [--threads 2] [--only ViT-S] [--out FOLDER]

Image encoders: ViT-S, B and L at 224 px from uint8 patches of 57 px, beside a loop over single patches as in timm's
examples (PIL, resize, normalise, one forward pass each). Genes: a network of scGPT's size on the counts of DLPFC 151673
(or the toy section), beside torch's nn.TransformerEncoder on padded batches in the order of the table, with and
without its fast path. "speed" is how many times the first path of a block, by wall time; on a busy machine "speed by
CPU time" is steadier. Figures of different runs do not compare.
"""

from __future__ import annotations

import argparse
import time
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from torch import nn

import stalign
from stalign.encoders import Card
from stalign.encoders.runtime import fast_bf16, halve
from stalign.encoders.scgpt import ScGPT, ScGPTConfig, cell_rng, embed, tokenise
from stalign.encoders.vision import ImageEncoder, Pooled

if TYPE_CHECKING:
    from collections.abc import Callable

    import scipy.sparse as sp
    from numpy.typing import NDArray

VITS = {"ViT-S/16": "vit_small_patch16_224", "ViT-B/16": "vit_base_patch16_224", "ViT-L/16": "vit_large_patch16_224"}
NATIVE_PX = 57  # side of a spot's patch in a full-resolution section
BATCH = 32
LOWEST = "lowest cosine"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs=3, default=[32, 16, 8], help="patches for ViT-S, B and L")
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None, help="of ViT-S, ViT-B, ViT-L, scGPT; keeps the other blocks")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def measure(paths: dict[str, Callable[[], object]], n: int, rounds: int, label: str) -> list[dict[str, object]]:
    """Best wall time and best CPU time of several rounds, the paths taking turns: a busy machine disturbs all alike."""
    wall = dict.fromkeys(paths, float("inf"))
    cpu = dict.fromkeys(paths, float("inf"))
    for _ in range(rounds):
        for path, work in paths.items():
            start, used = time.perf_counter(), time.process_time()
            work()
            wall[path] = min(wall[path], time.perf_counter() - start)
            cpu[path] = min(cpu[path], time.process_time() - used)
    first = next(iter(paths))
    rows = [
        {
            "encoder": label, "path": path, "n": n, "per second": n / wall[path], "CPU seconds each": cpu[path] / n,
            "speed": wall[first] / wall[path], "speed by CPU time": cpu[first] / cpu[path],
        }
        for path in paths
    ]  # fmt: skip
    print(pd.DataFrame(rows).to_string(header=False, index=False), flush=True)
    return rows


def plain_images(network: nn.Module, card: Card, patches: NDArray[np.uint8]) -> None:
    """One patch at a time, as in timm's examples."""
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (card.mean, card.std))
    with torch.no_grad():
        for patch in patches:
            image = Image.fromarray(patch).resize((card.input_px, card.input_px), Image.Resampling.BICUBIC)
            x = (torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255 - mean) / std
            network(x[None])


def images(args: argparse.Namespace) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    rows = []
    for (label, name), n in zip(VITS.items(), args.images, strict=True):
        if args.only and not any(part in label for part in args.only):
            continue
        network = timm.create_model(name, pretrained=False, num_classes=0).eval()
        card = Card(label, "image", "m:f", width=network.num_features)
        patches = rng.integers(0, 256, (n, NATIVE_PX, NATIVE_PX, 3), dtype=np.uint8)
        batches = [patches[i : i + BATCH] for i in range(0, n, BATCH)]
        paths: dict[str, Callable[[], object]] = {
            "loop over timm, fp32": lambda net=network, c=card, p=patches: plain_images(net, c, p)
        }
        for precision in ("fp32", "bf16"):
            own = deepcopy(network)
            if precision == "bf16":
                halve(own)
            encoder = ImageEncoder(card, Pooled(own, "cls"), device=torch.device("cpu"), precision=precision)
            encoder.encode(patches[:1])
            paths[f"stalign, {precision}"] = lambda e=encoder, b=batches: [e.encode(part) for part in b]
        rows += measure(paths, n, args.rounds, label)
    return rows


def section_counts() -> tuple[sp.csr_matrix, list[str], str]:
    file = Path(__file__).resolve().parents[2] / "shared" / "data" / "dlpfc" / "151673.h5ad"
    adata = stalign.io.read_h5ad(file) if file.is_file() else stalign.datasets.toy()
    return adata.X.tocsr().astype(np.float32), list(adata.obs_names), file.stem if file.is_file() else "toy"


class Padded(nn.Module):
    """The same network through nn.TransformerEncoder on padded batches."""

    def __init__(self, model: ScGPT) -> None:
        super().__init__()
        c = model.config
        self.model = model
        layer = nn.TransformerEncoderLayer(c.embsize, c.nhead, c.d_hid, 0.2, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, c.nlayers)
        state = {name.removeprefix("transformer_encoder."): value for name, value in model.state_dict().items()}
        self.layers.load_state_dict({name: value for name, value in state.items() if name.startswith("layers.")})

    def forward(self, ids: torch.Tensor, values: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        m = self.model
        value = torch.relu(m.value_encoder["linear1"](values.clamp(max=m.config.max_value).unsqueeze(-1)))
        x = m.encoder["enc_norm"](m.encoder["embedding"](ids)) + m.value_encoder["norm"](
            m.value_encoder["linear2"](value)
        )
        return self.layers(x, src_key_padding_mask=padding)[:, 0]


def padded_batches(counts: sp.csr_matrix, names: list[str], config: ScGPTConfig, size: int) -> list[tuple]:
    cells = []
    for i, name in enumerate(names):
        part = slice(counts.indptr[i], counts.indptr[i + 1])
        rng = cell_rng(0, name)
        cells.append(
            tokenise(counts.indices[part], counts.data[part], config, max_length=1200, sample="random", rng=rng)
        )
    out = []
    for start in range(0, len(cells), size):
        part = cells[start : start + size]
        longest = max(len(ids) for ids, _ in part)
        ids = torch.full((len(part), longest), config.cls_id - 1)
        values = torch.full((len(part), longest), config.pad_value)
        for row, (gene, value) in enumerate(part):
            ids[row, : len(gene)], values[row, : len(gene)] = torch.from_numpy(gene), torch.from_numpy(value)
        out.append((ids, values, ids == config.cls_id - 1))
    return out


def genes(args: argparse.Namespace) -> list[dict[str, object]]:
    if args.only and "scGPT" not in args.only:
        return []
    counts, names, section = section_counts()
    lengths = np.minimum(np.diff(counts.indptr) + 1, 1200)  # of all cells; those at even quantiles stand for them
    places = ((np.arange(args.cells) + 0.5) / args.cells * len(names)).astype(int)
    chosen = np.random.default_rng(0).permutation(np.argsort(lengths, kind="stable")[places])
    counts, names = counts[chosen], [names[i] for i in chosen]
    config = ScGPTConfig(60_697)
    counts.resize((len(names), config.n_tokens))
    torch.manual_seed(0)
    model = ScGPT(config).eval()
    padded = Padded(model).eval()
    label = f"scGPT size, {section} ({int(np.median(lengths))} tokens)"
    found: dict[str, np.ndarray] = {}

    def reference(path: str, *, fast: bool) -> None:
        torch.backends.mha.set_fastpath_enabled(fast)
        try:
            with torch.inference_mode():
                parts = [padded(*batch) for batch in padded_batches(counts, names, config, 8)]
            found[path] = torch.nn.functional.normalize(torch.cat(parts), dim=1).numpy()
        finally:
            torch.backends.mha.set_fastpath_enabled(True)

    def ours(path: str, *, precision: str) -> None:
        found[path] = embed(model, counts, names, precision=precision)

    plain = "nn.TransformerEncoder, padded, unsorted, fp32"
    paths = {
        plain: lambda: reference(plain, fast=False),
        f"{plain}, fast path": lambda: reference(f"{plain}, fast path", fast=True),
        "stalign, fp32": lambda: ours("stalign, fp32", precision="fp32"),
        "stalign, bf16": lambda: ours("stalign, bf16", precision="bf16"),
    }
    rows = measure(paths, len(names), args.rounds, label)
    for row in rows:
        row[LOWEST] = float((found[row["path"]] * found[plain]).sum(1).min())
    return rows


def main() -> None:
    args = arguments()
    stalign.settings.show_progress = False
    torch.set_num_threads(args.threads)
    kind = "native" if fast_bf16("cpu") else "emulated"
    print(f"{args.threads} threads, torch {torch.__version__}, bf16 {kind}")
    table = pd.DataFrame([*images(args), *genes(args)])
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "encoders.csv"
    if args.only and file.is_file():
        before = pd.read_csv(file)
        table = pd.concat([before[~before["encoder"].isin(table["encoder"])], table], ignore_index=True)
        order = {label: i for i, label in enumerate(VITS)}
        table = table.sort_values("encoder", key=lambda names: names.map(order).fillna(len(order)), kind="stable")
    table.to_csv(file, index=False)
    digits = {"per second": 2, "CPU seconds each": 3, "speed": 1, "speed by CPU time": 1, LOWEST: 5}
    text = table.round(digits).fillna("")
    threads = f"{args.threads} threads" if args.threads > 1 else "one thread"
    lines = [
        "# Speed of encoders",
        "",
        f"Random weights, {threads}, torch {torch.__version__}, bfloat16 {kind}; best of {args.rounds} rounds in which "
        "the paths took turns (`benchmarks/encoders.py`). Speed is how many times the first path of a block: by wall "
        "time, which other work on the machine disturbs, and by CPU time. The plain loop over timm encodes one patch "
        f"of {NATIVE_PX} px at a time. Cells of scGPT's size are at even quantiles of length. `lowest cosine` compares "
        "embeddings with those of the first path.",
        "",
        "| " + " | ".join(text.columns) + " |",
        "|" + "---|" * len(text.columns),
    ]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in text.to_numpy()]
    (args.out / "encoders.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
