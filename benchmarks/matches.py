"""Image to gene retrieval by `tl.retrieve`: how often a spot's own profile is among the best 1, 5 and 10 %.

python benchmarks/matches.py [--weights NAME_OR_FOLDER ...] [--cache DIR] [--out DIR]

Weights of stalign have aligned embeddings of image and genes. EfficientNet-Lite0 has none: its features (112 and
224 µm, and their surroundings) are mapped onto 50 principal components of expression by a ridge regression, or both are
mapped onto 20 canonical variates, fitted to other sections (her2st C2 to C5 for C6, mob rep1 for rep2).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from image_sections import LITE0, add_lite0, add_weights, read
from real import data_root

import stalign
from stalign.core.expression import normalise
from stalign.core.regression import centred, fit_ridge
from stalign.core.standardise import spatial_blocks, standardise

if TYPE_CHECKING:
    from anndata import AnnData

TASKS = {"her2st C6": (("C2", "C3", "C4", "C5"), "C6"), "mob rep2": (("rep1",), "rep2")}
GENES, COMPONENTS, VARIATES = 1000, 50, 20
KEYS = [f"{LITE0}_112um", f"{LITE0}_224um", f"{LITE0}_context"]


def pairs(sections: list[AnnData], genes: pd.Index) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and expression less its mean, section by section, and the section of each spot."""
    features = [np.hstack([adata.obsm[key] for key in KEYS]) for adata in sections]
    groups = np.repeat(np.arange(len(sections)), [len(part) for part in features])
    expression = np.vstack([dense(adata, genes) for adata in sections])
    return standardise(np.vstack(features), groups), centred(expression, groups), groups


def dense(adata: AnnData, genes: pd.Index) -> np.ndarray:
    """Expression of some genes, log1p of counts per 10,000 of all."""
    return normalise(adata[:, genes].X, np.asarray(adata.X.sum(1)).ravel()).toarray()


def lite0(query: AnnData, reference: list[AnnData]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Map image and genes of the query into one space, by ridge and by canonical correlation."""
    from sklearn.cross_decomposition import CCA
    from sklearn.decomposition import PCA

    shared = reference[0].var_names
    for adata in (*reference[1:], query):
        shared = shared[shared.isin(adata.var_names)]
    variance = np.vstack([dense(adata, shared) for adata in reference]).var(axis=0)
    genes = shared[np.argsort(-variance, kind="stable")[:GENES]]
    x, y, groups = pairs(reference, genes)
    new_x, new_y, _ = pairs([query], genes)
    axes = PCA(COMPONENTS, random_state=0).fit(y)
    targets, own = axes.transform(y), axes.transform(new_y)
    folds = groups if len(reference) > 1 else spatial_blocks(reference[0].obsm["spatial"])
    ridge = fit_ridge(x, targets, groups, folds)
    small = PCA(VARIATES, whiten=True, random_state=0).fit(x)
    cca = CCA(VARIATES, max_iter=2000).fit(small.transform(x), targets[:, :VARIATES])
    return {
        "Lite0, ridge onto components": (ridge.predictor(new_x), own),
        "Lite0, canonical variates": cca.transform(small.transform(new_x), own[:, :VARIATES]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", default=["stalign-mini"])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "stalign-genes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    stalign.settings.show_progress, stalign.settings.verbosity = False, "error"
    rows = []
    for task, (others, name) in TASKS.items():
        sections = read(data_root(), [*others, name])
        for adata in sections.values():
            add_lite0(adata, args.cache)
        query = sections[name]
        ways: dict[str, tuple[str, str]] = {}
        for weights in args.weights:
            keys = add_weights(query, weights, args.cache)
            ways[Path(weights).name] = (keys["image"], keys["gene"])
        for way, values in lite0(query, [sections[other] for other in others]).items():
            ways[way] = (f"{way} image", f"{way} gene")
            query.obsm.update(dict(zip(ways[way], values, strict=True)))
        for way, rep in ways.items():
            recall = stalign.tl.retrieve(query, n=1, use_rep=rep).attrs["recall"]
            rows.append({"method": way, "section": task, **recall})
        rows.append({"method": "chance", "section": task, "1%": 0.01, "5%": 0.05, "10%": 0.10})
    table = pd.DataFrame(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(args.out / "matches.csv", index=False)
    lines = [
        "Share of spots whose own expression profile is among the best 1, 5 and 10 % of its section for their image "
        "(`tl.retrieve`).",
        "",
        "| method | section | 1 % | 5 % | 10 % |",
        "|---|---|---|---|---|",
        *(f"| {r[1]} | {r[2]} | {r[3]:.3f} | {r[4]:.3f} | {r[5]:.3f} |" for r in table.itertuples()),
    ]
    (args.out / "matches.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
