"""Genes from images, on patients and sections that were not fitted to: Pearson and MSE against predicting the mean.

python benchmarks/genes.py [--weights NAME_OR_FOLDER | --no-weights] [--images] [--genes 50] [--out DIR] [--name genes]

The floor is ridge on colour means, spreads and histograms of three window sizes, on raw features as a plain regression
would take them ("plain ridge"), and through `tl.predict_genes`, which standardises by section and shrinks ("colours").
With `--images` colours, the weights' image embedding and EfficientNet-Lite0 at 112 µm, 224 µm, both, and both with what
surrounds a spot (the default of `tl.predict_genes`) are compared, each by ridge and by retrieval.

Windows, context, softmax and the limit of `reliable` were chosen on her2st C2 to C5, each predicted from the others,
with a look at regions of mob; penalty and factors are chosen in each call, on held-out sections of the reference.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from real import data_root
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

import stalign
from stalign._constants import Keys
from stalign.core.colour import colour_features
from stalign.core.patches import spot_windows_um
from stalign.core.scores import per_gene
from stalign.data import open_sections as sections

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

WINDOWS_UM = (100.0, 250.0, 600.0)  # sides of the windows in µm
PATCH_PX = 24
COLOUR = "X_colour"
MODELS = ("ridge", "retrieval")
LITE0 = ["X_lite0_112um", "X_lite0_224um", "X_lite0_context"]


@dataclass(frozen=True)
class Task:
    """Sections to fit to and a section to predict."""

    name: str
    reference: tuple[str, ...]
    query: str


TASKS = (
    Task("her2st C2–C6 → B4 (other patient)", ("C2", "C3", "C4", "C5", "C6"), "B4"),
    Task("her2st C2–C6 → A1 (other patient, other scanner)", ("C2", "C3", "C4", "C5", "C6"), "A1"),
    Task("her2st C2–C5 → C6 (same patient)", ("C2", "C3", "C4", "C5"), "C6"),
    Task("mob rep1 → rep2", ("rep1",), "rep2"),
    Task("mob rep2 → rep1", ("rep2",), "rep1"),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="stalign-mini")
    parser.add_argument("--no-weights", action="store_true", help="only the floor")
    parser.add_argument("--images", action="store_true", help="compare image encoders, by ridge and retrieval")
    parser.add_argument("--rep", nargs="*", default=[], help="further obsm keys, of sections given with --sections")
    parser.add_argument("--sections", type=Path, help="folder of <section>.h5ad to read instead of embedding anew")
    parser.add_argument("--genes", type=int, default=50, help="that many most variable genes of the reference")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--name", default="genes", help="name of the files written")
    return parser.parse_args()


def read(root: Path, names: list[str]) -> dict[str, AnnData]:
    """Read sections with their images."""
    her2st, found = None, {}
    for name in names:
        if name.startswith("rep"):
            found[name] = stalign.io.read_h5ad(root / "mob" / f"{name}.h5ad")
            continue
        her2st = her2st if her2st is not None else stalign.io.read_h5ad(root / "her2st" / "her2st.h5ad")
        found[name] = her2st[her2st.obs["section"] == name].copy()
        found[name].uns["spatial"] = {name: her2st.uns["spatial"][name]}
    return found


def colours(adata: AnnData) -> NDArray[np.float32]:
    """Colour statistics of windows of three sizes around each spot, (n_obs, 90), NaN without a position."""
    (view,) = sections(adata)
    scale = view.image.scale / view.coord_mpp  # image px per µm
    offset = np.tile(view.image.offset, 2)
    features = np.full((adata.n_obs, 3 * 30), np.nan, np.float32)
    seen = view.valid
    features[seen] = np.hstack(
        [
            colour_features(view.image.patches(spot_windows_um(view.coords_um[seen], side) * scale + offset, PATCH_PX))
            for side in WINDOWS_UM
        ]
    )
    return features


def plain_ridge(query: AnnData, reference: list[AnnData], genes: list[str]) -> pd.DataFrame:
    """Ridge on raw features pooled over sections, penalty by leave-one-out: nothing is done about shifts."""

    def read_pair(adata: AnnData) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        counts = adata.X.astype(float)
        scale = 1e4 / np.maximum(np.asarray(counts.sum(axis=1)), 1)
        return adata.obsm[COLOUR], np.log1p(counts[:, adata.var_names.get_indexer(genes)].toarray() * scale)

    parts = [read_pair(adata) for adata in reference]
    x, y = (np.concatenate([part[i] for part in parts]) for i in range(2))
    scaler = StandardScaler().fit(x)
    model = RidgeCV(alphas=np.logspace(-2, 5, 15)).fit(scaler.transform(x), y)
    new_x, truth = read_pair(query)
    table = pd.DataFrame(per_gene(truth, model.predict(scaler.transform(new_x))), index=genes)
    table["mse_mean"] = ((truth - y.mean(axis=0)) ** 2).mean(axis=0)
    return table


def image_methods(reps: dict[str, list[str]]) -> list[tuple[str, dict[str, object]]]:
    """Name every image encoder that is compared, with ridge and with retrieval."""
    found = {
        **{name: keys for name, keys in reps.items() if "+" not in name},
        "Lite0, 112 µm": LITE0[:1],
        "Lite0, 224 µm": LITE0[1:2],
        "Lite0, both": LITE0[:2],
        "Lite0, both, and context (default)": LITE0,
    }
    return [(f"{name}, {model}", {"use_rep": rep, "model": model}) for name, rep in found.items() for model in MODELS]


def methods(reps: dict[str, list[str]]) -> list[tuple[str, dict[str, object]]]:
    """Name every setting of `tl.predict_genes` that is compared."""
    found = []
    for name, keys in reps.items():
        for suffix, extra in (("", {}), (", ranks", {"standardise": "rank"}), (", MLP", {"model": "mlp"})):
            found.append((f"{name}{suffix}", {"use_rep": keys, **extra}))
    return found


def row(task: Task, method: str, var: pd.DataFrame) -> dict[str, object]:
    ratio = var["mse"] / var["mse_mean"]
    told = {}
    if "reliable" in var:
        kept = var[var["reliable"]]
        told = {
            "reliable": len(kept),
            "pearson_reliable": kept["pearson"].mean(),
            "negative": int((var["pearson"] < 0).sum()),
            "negative_reliable": int((kept["pearson"] < 0).sum()),
            "covered": var["covered"].mean(),
        }
    return {
        "task": task.name,
        "method": method,
        "genes": len(var),
        "pearson": var["pearson"].mean(),
        "mse": var["mse"].mean(),
        "mse_mean": var["mse_mean"].mean(),
        "ratio": var["mse"].mean() / var["mse_mean"].mean(),
        "worst_gene": ratio.max(),
        **told,
    }


def main() -> None:
    args = arguments()
    stalign.settings.show_progress = False
    stalign.settings.verbosity = "warning"
    names = sorted({name for task in TASKS for name in (*task.reference, task.query)})
    slides = read(data_root(), names)
    reps = {"colours": [COLOUR]}
    for name, adata in slides.items():
        adata.obsm[COLOUR] = colours(adata)
        if args.images:  # once for all settings
            features = stalign.tl.ImageFeatures().of(adata, library_key=None, table_key=None)
            width = features.shape[1] // 4
            adata.obsm.update(dict(zip(LITE0, np.split(features, [width, 2 * width], axis=1), strict=True)))
        if args.sections:
            import anndata

            stored = anndata.read_h5ad(args.sections / f"{name}.h5ad")
            for key in args.rep:
                adata.obsm[key] = stored.obsm[key]
        elif not args.no_weights:
            stalign.tl.embed(adata, args.weights, genes=False)
    if args.sections:
        reps |= {key: [key] for key in args.rep}
    elif not args.no_weights:
        reps |= {"stalign image": [Keys.EMBED_IMAGE], "stalign image + colours": [Keys.EMBED_IMAGE, COLOUR]}
    rows = []
    for task in TASKS:
        query, reference = slides[task.query], [slides[name] for name in task.reference]
        for method, options in (image_methods if args.images else methods)(reps):
            found = stalign.tl.predict_genes(query, reference, genes=args.genes, random_state=args.seed, **options)
            if not args.images and (not rows or rows[-1]["task"] != task.name):
                rows.append(
                    row(task, "plain ridge on colours (floor)", plain_ridge(query, reference, list(found.var_names)))
                )
            rows.append(row(task, method, found.var))
        shown = pd.DataFrame([r for r in rows if r["task"] == task.name]).drop(columns=["task", "genes"])
        print(task.name, shown.round(3).to_string(index=False), sep="\n", flush=True)
        write(pd.DataFrame(rows), args.out, args.name)


def write(table: pd.DataFrame, out: Path, stem: str) -> None:
    """Write the rows as CSV, and Pearson with the ratio of errors as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / f"{stem}.csv", index=False)
    cells = table.assign(cell=[f"{r.pearson:.2f} ({r.ratio:.2f})" for r in table.itertuples()])
    wide = cells.pivot(index="method", columns="task", values="cell").reindex(
        index=list(dict.fromkeys(table["method"])), columns=list(dict.fromkeys(table["task"]))
    )
    lines = [
        f"Mean Pearson over the {int(table['genes'].max())} most variable genes of the reference; in brackets the mean "
        "squared error over that of predicting the reference's mean.",
        "",
        "| " + " | ".join(["method", *wide.columns]) + " |",
        "|" + "---|" * (len(wide.columns) + 1),
    ]
    if "covered" in table and table["covered"].notna().all():
        lines[0] += (
            " Below: how many genes are called reliable by the reference alone, how many of these and of all have a "
            "negative Pearson, and the share of spots within their 90 % interval."
        )
    lines += [
        "| " + " | ".join([str(name), *cell]) + " |" for name, cell in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    if "covered" in table and table["covered"].notna().all():
        told = table.assign(
            cell=[
                f"{r.reliable:.0f} of {r.genes}; {r.negative_reliable:.0f} of {r.negative:.0f}; {r.covered:.2f}"
                for r in table.itertuples()
            ]
        ).pivot(index="method", columns="task", values="cell")
        told = told.reindex(index=wide.index, columns=wide.columns)
        lines += ["", "| " + " | ".join(["method", *told.columns]) + " |", "|" + "---|" * (len(told.columns) + 1)]
        lines += ["| " + " | ".join([str(n), *c]) + " |" for n, c in zip(told.index, told.to_numpy(), strict=True)]
    (out / f"{stem}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
