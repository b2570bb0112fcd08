"""The paper's ablation (workshop table 3) at the size of `stalign-mini`, on sections that no variant saw.

python benchmarks/ablation.py [--config configs/stalign-mini.toml] [--steps 200] [--seeds 3] [--out FOLDER]

Each variant is trained with the same steps on the sections of the configuration with an image, less her2st patients A
and B and olfactory bulb rep2. Domains are cut on DLPFC 151673 and 151675, her2st A1 and olfactory bulb rep2; genes are
predicted from olfactory bulb rep1 to rep2.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from real import IGNORED, SECTIONS, data_root

import stalign
from stalign.core.clustering import GMM
from stalign.models import STAlign
from stalign.models.checkpoint import Checkpoint
from stalign.train.network_config import model_config
from stalign.train.recipes import load_config
from stalign.train.run import wire
from stalign.train.slides import as_slides
from stalign.train.store import open_store
from stalign.train.trainer import make_trainer, own_randomness
from stalign.train.validation import split

VARIANTS = {
    "full": {},
    "without adaptive encoders": {"adaptive": False},
    "without spot-niche loss": {"loss": {"lambda_spot": 4 / 7, "lambda_niche": 3 / 7}},
    "concatenation for ABFN": {"fusion": "concat"},
}
HELD_OUT = ("A", "B", "mob-rep2")
EVALUATED = ("151673", "151675", "mob rep2", "her2st A1")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/stalign-mini.toml"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def evaluate(checkpoint: Checkpoint, root: Path) -> dict[str, float]:
    """Return ARI by section, and Pearson and MSE of genes from images against predicting the mean."""
    row: dict[str, float] = {}
    embedded = {}
    for real in SECTIONS:
        if real.name not in (*EVALUATED, "mob rep1"):
            continue
        adata = real.read(root)
        stalign.tl.embed(adata, checkpoint, total_counts=real.total_counts, gene_key=real.gene_key)
        embedded[real.name] = adata
        if real.name in EVALUATED:
            stalign.tl.domains(adata, GMM(real.n_domains))
            row[f"ARI {real.name}"] = stalign.tl.score(adata, real.truth, ignore=IGNORED).iloc[-1]["ARI"]
    predicted = stalign.tl.predict_genes(
        embedded["mob rep2"], embedded["mob rep1"], genes=50, use_rep="X_stalign_image", model="ridge"
    )
    row["Pearson mob"] = predicted.var["pearson"].mean()
    row["MSE mob / mean"] = predicted.var["mse"].mean() / predicted.var["mse_mean"].mean()
    return row


def main() -> None:
    args = arguments()
    stalign.settings.show_progress, stalign.settings.verbosity = False, "warning"
    root = data_root()
    config = load_config(args.config, overrides=[f"data.root={root}"])
    data = replace(config.data, exclude=(*config.data.exclude, *HELD_OUT), workers=0)
    config = replace(config, data=data, run=replace(config.run, steps=args.steps, tensorboard=False))
    base = model_config(config)
    rows = []
    with own_randomness():
        store = open_store(as_slides(data.sections, root=root), data, base.input, seed=config.seed)
        store.sections = [s for s in store.sections if s.reader.modality != "gene"]
        for seed in range(args.seeds):
            for name, changes in VARIANTS.items():
                shape = replace(base, **{k: replace(base.loss, **v) if k == "loss" else v for k, v in changes.items()})
                torch.manual_seed(seed)
                network = STAlign(shape, len(store.vocabulary.symbols))
                train, _ = split(store, ())
                run = wire(replace(config, seed=seed), store, network.train(), train, None)
                make_trainer(run, callbacks=[], loggers=[], out=args.out).fit(run.module, datamodule=run.data)
                checkpoint = Checkpoint(network.eval(), store.vocabulary.symbols, store.vocabulary.ensembl)
                rows.append({"variant": name, "seed": seed, **evaluate(checkpoint, root)})
                print(rows[-1], flush=True)
                write(pd.DataFrame(rows), args.out, args.steps)


def write(table: pd.DataFrame, out: Path, steps: int) -> None:
    """Write every run as CSV, and mean and spread over seeds as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "ablation.csv", index=False)
    columns = [c for c in table if c not in ("variant", "seed")]
    grouped = table.groupby("variant", sort=False)[columns]
    mean, std = grouped.mean(), grouped.std().fillna(0)
    lines = ["| variant | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for name in mean.index:
        cells = [f"{mean.loc[name, c]:.2f} ± {std.loc[name, c]:.2f}" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    note = f"{table['seed'].nunique()} seeds, {steps} steps each; the seed is that of training."
    (out / "ablation.md").write_text("\n".join([*lines, "", note, ""]))


if __name__ == "__main__":
    main()
