"""Domains: ARI and NMI, mean and spread over seeds, of the library and of the plain baselines.

python benchmarks/domains.py [--weights NAME_OR_FOLDER ...] [--sections 151673 ...] [--seeds 5] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import baselines
import pandas as pd
from real import IGNORED, SECTIONS, data_root

import stalign
from stalign._constants import Keys
from stalign.core.clustering import GMM
from stalign.core.refine import majority_vote, ring_graph

if TYPE_CHECKING:
    from anndata import AnnData
    from real import Real

REFINED = ("niche mean (floor)", "tl.embed, X_stalign", "fine-tuned")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", nargs="+", default=["stalign-mini"])
    parser.add_argument("--sections", nargs="*", default=[s.name for s in SECTIONS])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--finetune", action="store_true", help="adapt the weights to each section, too")
    parser.add_argument("--no-leiden", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--name", default="domains", help="name of the files written")
    return parser.parse_args()


def representations(adata: AnnData, real: Real, args: argparse.Namespace) -> dict[str, tuple[str, float]]:
    """Write each representation to obsm; return its key and the seconds it took."""
    reps = {}
    for name, function in (
        ("PCA", baselines.pca),
        ("niche mean (floor)", baselines.niche_mean),
        ("Gaussian mean, no network", baselines.gaussian_mean),
    ):
        start = time.perf_counter()
        adata.obsm[f"X_{name}"] = function(adata, total_counts=real.total_counts)
        reps[name] = (f"X_{name}", time.perf_counter() - start)
    common = {"total_counts": real.total_counts, "gene_key": real.gene_key}
    learned = {"fused": Keys.EMBED_FUSED, "genes": Keys.EMBED_GENE, "image": Keys.EMBED_IMAGE}
    for weights in args.weights:
        start = time.perf_counter()
        stalign.tl.embed(adata, weights, **common)
        seconds = time.perf_counter() - start
        if weights == args.weights[0]:  # of all weights the same distances
            adata.obsm["X_kept"] = adata.obsm[Keys.EMBED]
            reps["tl.embed, X_stalign"] = ("X_kept", seconds)
        for kind, key in learned.items():
            if key in adata.obsm:
                name = f"{Path(weights).name}, {kind}"
                adata.obsm[f"X_{name}"] = adata.obsm[key]
                reps[name] = (f"X_{name}", seconds)
    if args.finetune:
        from stalign.train import finetune

        start = time.perf_counter()
        tuned = finetune(adata, args.weights[0], **common)
        stalign.tl.embed(adata, tuned, **common)
        adata.obsm["X_tuned"] = adata.obsm[Keys.EMBED_FUSED if Keys.EMBED_FUSED in adata.obsm else Keys.EMBED_GENE]
        reps["fine-tuned"] = ("X_tuned", time.perf_counter() - start)
    return reps


def scored(adata: AnnData, real: Real, method: str, seed: int, seconds: float) -> dict[str, object]:
    table = stalign.tl.score(adata, real.truth, ignore=IGNORED)
    row = table.iloc[-1]
    return {
        "section": real.name,
        "method": method,
        "seed": seed,
        "ARI": row["ARI"],
        "NMI": row["NMI"],
        "seconds": seconds,
    }


def main() -> None:
    args = arguments()
    stalign.settings.show_progress = False
    root, rows = data_root(), []
    for real in SECTIONS:
        if real.name not in args.sections:
            continue
        adata = real.read(root)
        for method, (key, seconds) in representations(adata, real, args).items():
            for seed in range(args.seeds):
                start = time.perf_counter()
                stalign.tl.domains(adata, GMM(real.n_domains), use_rep=key, random_state=seed)
                taken = seconds + time.perf_counter() - start
                rows.append(scored(adata, real, method, seed, taken))
                if method in REFINED:
                    labels = adata.obs[Keys.DOMAIN].cat.codes.to_numpy()
                    adata.obs[Keys.DOMAIN] = pd.Categorical(majority_vote(labels, ring_graph(adata.obsm["spatial"])))
                    rows.append(scored(adata, real, f"{method}, refined", seed, taken))
        if not args.no_leiden:
            for seed in range(args.seeds):
                start = time.perf_counter()
                labels = baselines.leiden(adata, real.n_domains, total_counts=real.total_counts, seed=seed)
                adata.obs[Keys.DOMAIN] = pd.Categorical(labels)
                rows.append(scored(adata, real, "scanpy Leiden", seed, time.perf_counter() - start))
        table = pd.DataFrame([r for r in rows if r["section"] == real.name]).groupby("method", sort=False)
        print(real.name, table[["ARI", "NMI", "seconds"]].agg(["mean", "std"]).round(3).to_string(), flush=True)
    write(pd.DataFrame(rows), args.out, args.name)


def write(table: pd.DataFrame, out: Path, stem: str) -> None:
    """Write every run as CSV, and mean and spread over seeds as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / f"{stem}.csv", index=False)
    parts = []
    for metric in ("ARI", "NMI"):
        cells = table.groupby(["method", "section"], sort=False)[metric].agg(["mean", "std"])
        text = cells.apply(lambda c: f"{c['mean']:.2f} ± {c['std']:.2f}", axis=1).unstack("section")
        text = text.reindex(columns=list(dict.fromkeys(table["section"]))).fillna("–")
        lines = ["| " + " | ".join([metric, *text.columns]) + " |", "|" + "---|" * (len(text.columns) + 1)]
        lines += [
            "| " + " | ".join([str(name), *row]) + " |" for name, row in zip(text.index, text.to_numpy(), strict=True)
        ]
        parts.append("\n".join(lines))
    (out / f"{stem}.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
