"""Labels carried from annotated sections, and completed from a few spots: of the library and of plain peers.

python benchmarks/annotate.py [--groups mob dlpfc her2st] [--seeds 3] [--spots 10] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from real import data_root
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.semi_supervised import LabelSpreading

import stalign
from stalign.core.expression import normalise
from stalign.core.labels import NO_LABEL
from stalign.core.niches import nearest, niche_graph
from stalign.core.scores import agreement, calibration_error, classification
from stalign.data import read_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

DLPFC = {"total_counts": "sum_umi", "gene_key": "gene_name"}
N_COMPONENTS, N_GENES = 50, 2000
DLPFC_SECTIONS = ("151673", "151675", "151510")
NO_CARRY = ("151510",)  # another donor with other genes: labels are completed only
HER2ST = ("A1", "B1", "C1", "D1", "E1", "F1")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", nargs="*", default=["mob", "dlpfc", "her2st"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--spots", type=int, nargs="*", default=[10], help="labelled spots per class")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def read_group(root: Path, group: str) -> dict[str, AnnData]:
    """Read and embed the labelled sections of a group, with labels in obs["label"]."""
    if group == "her2st":
        whole = stalign.io.read_h5ad(root / "her2st" / "her2st.h5ad")
        found = {}
        for name in HER2ST:
            part = whole[whole.obs["section"] == name].copy()
            part.uns["spatial"] = {}  # counts only
            found[name] = part
    else:
        names = DLPFC_SECTIONS if group == "dlpfc" else ("rep1", "rep2")
        found = {name: stalign.io.read_h5ad(root / group / f"{name}.h5ad") for name in names}
    for adata in found.values():
        column = adata.obs["label" if group == "her2st" else "layer"]
        text = column.astype(object).where(column.notna(), None)
        adata.obs["label"] = pd.Categorical(text.where(~text.astype(str).isin(NO_LABEL), None))
        adata.obs["truth"] = adata.obs["label"].astype(object).where(adata.obs["label"].notna(), "").astype(str)
        stalign.tl.embed(adata, **(DLPFC if group == "dlpfc" else {}))
    return found


def log_counts(adata: AnnData, total_counts: str | None) -> sparse.csr_matrix:
    counts, totals = read_counts(adata, total_counts=total_counts)
    return normalise(counts, totals)


def components(parts: list[AnnData], total_counts: str | None, *, niche: bool) -> list[np.ndarray]:
    """Principal components of the variable genes that all sections have, centred by section."""
    genes = parts[0].var_names
    for part in parts[1:]:
        genes = genes[genes.isin(part.var_names)]
    values = [log_counts(part, total_counts)[:, part.var_names.get_indexer(genes)] for part in parts]
    variance = sum(v.multiply(v).mean(axis=0).A1 - v.mean(axis=0).A1 ** 2 for v in map(sparse.csr_matrix, values))
    top = np.argsort(-variance)[:N_GENES]
    dense = []
    for part, matrix in zip(parts, values, strict=True):
        chosen = matrix[:, top].toarray()
        if niche:
            chosen = niche_graph(nearest(part.obsm["spatial"], 3)) @ chosen
        dense.append(chosen - chosen.mean(axis=0))
    fitted = PCA(min(N_COMPONENTS, sum(map(len, dense)) - 1), random_state=0).fit(np.concatenate(dense))
    return [fitted.transform(part) for part in dense]


def lda(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels of all spots, learned from those that have one."""
    known = labels != ""
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features[known], labels[known])
    return model.predict(features)


def spread(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same by label spreading over 15 neighbours."""
    names = np.unique(labels[labels != ""])
    codes = np.where(labels == "", -1, np.searchsorted(names, labels))
    return names[LabelSpreading(kernel="knn", n_neighbors=15, max_iter=100).fit(features, codes).transduction_]


def ingest(reference: AnnData, query: AnnData, total_counts: str | None) -> np.ndarray:
    """Labels of the query by scanpy's ingest."""
    import scanpy as sc

    genes = reference.var_names.intersection(query.var_names)
    pair = []
    for part in (reference, query):
        matrix = log_counts(part, total_counts)[:, part.var_names.get_indexer(genes)]
        pair.append(ad.AnnData(matrix, obs=part.obs[["label"]].copy(), var=pd.DataFrame(index=genes)))
    pair[0] = pair[0][pair[0].obs["label"].notna()].copy()
    pair[0].obs["label"] = pair[0].obs["label"].astype("category")
    del pair[1].obs["label"]
    sc.pp.pca(pair[0])
    sc.pp.neighbors(pair[0])
    sc.tl.ingest(pair[1], pair[0], obs="label", embedding_method="pca")
    return pair[1].obs["label"].astype(str).to_numpy()


def scored(truth: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    return {"ARI": agreement(truth[rows], labels[rows])["ARI"], **classification(truth[rows], labels[rows])}


def ours(adata: AnnData, truth: np.ndarray, rows: np.ndarray, **options: object) -> dict[str, float]:
    """Annotate a section, score it and measure the calibration."""
    stalign.tl.annotate(adata, "given", **options)
    labels = adata.obs["stalign_annotation"].astype(str).to_numpy()
    names = adata.obs["stalign_annotation"].cat.categories
    codes = pd.Index(names).get_indexer(truth)
    use = rows & (codes >= 0)
    error = calibration_error(adata.obsm["stalign_annotation_probability"][use], codes[use])
    return {**scored(truth, labels, rows), "ECE": error}


def compare(
    query: AnnData, references: list[AnnData], given: np.ndarray, total: str | None, kept: dict[bool, tuple]
) -> Iterator[dict]:
    """All methods on one task; `kept` holds the components of the same sections between calls."""
    truth = query.obs["truth"].to_numpy()
    rows = (truth != "") & (given == "")
    for part in references:
        part.obs["given"] = part.obs["label"]
    query.obs["given"] = pd.Categorical(np.where(given == "", None, given))
    options = {"reference": references or None, "total_counts": total}
    for method, more in (
        ("stalign", {}),
        ("LDA on X_stalign", {"classifier": "lda", "spatial": False}),
    ):
        start = time.process_time()
        result = ours(query, truth, rows, **options, **more)
        yield {"method": method, **result, "seconds": time.process_time() - start}
    parts = [*references, query]
    known = [part.obs["truth"] for part in references]
    labels = np.concatenate([*known, given]).astype(str)
    n = query.n_obs
    for niche, name in ((False, "PCA of spots"), (True, "PCA of niche means")):
        if niche not in kept:
            start = time.process_time()
            kept[niche] = np.concatenate(components(parts, total, niche=niche)), time.process_time() - start
        features, made = kept[niche]
        for method, function in (("LDA", lda), ("label spreading", spread)):
            if method == "label spreading" and niche:
                continue
            start = time.process_time()
            found = function(features, labels)[-n:]
            seconds = made + time.process_time() - start
            yield {"method": f"{method} on {name}", **scored(truth, found, rows), "seconds": seconds}
    if references:
        start = time.process_time()
        merged = references[0] if len(references) == 1 else ad.concat(references, join="inner")
        try:
            found = ingest(merged, query, total)
        except Exception as error:  # noqa: BLE001
            print("ingest failed:", error, flush=True)
            return
        yield {"method": "scanpy ingest", **scored(truth, found, rows), "seconds": time.process_time() - start}


def some_labels(truth: np.ndarray, spots: int, seed: int) -> np.ndarray:
    """Labels of a few random spots of each class, "" elsewhere."""
    rng = np.random.default_rng(seed)
    names = np.unique(truth[truth != ""])
    chosen = np.concatenate([rng.permutation(np.flatnonzero(truth == name))[:spots] for name in names])
    given = np.full(len(truth), "", dtype=object)
    given[chosen] = truth[chosen]
    return given


def main() -> None:
    args = arguments()
    warnings.simplefilter("ignore")
    stalign.settings.show_progress = False
    stalign.settings.verbosity = "error"
    root, rows = data_root(), []
    for group in args.groups:
        total = "sum_umi" if group == "dlpfc" else None
        data = read_group(root, group)
        names = [name for name in data if name not in NO_CARRY]
        for name in names:
            none = np.full(data[name].n_obs, "", dtype=object)
            references = [data[other] for other in names if other != name]
            for row in compare(data[name], references, none, total, {}):
                rows.append({"group": group, "task": "carry-over", "section": f"to {name}", "seed": 0, **row})
                print(rows[-1], flush=True)
            write(pd.DataFrame(rows), args.out)
        kept: dict[str, dict] = {name: {} for name in data}
        for spots, seed in itertools.product(args.spots if group != "her2st" else [], range(args.seeds)):
            for name, query in data.items():
                given = some_labels(query.obs["truth"].to_numpy(), spots, seed)
                for row in compare(query, [], given, total, kept[name]):
                    rows.append({"group": group, "task": f"{spots} spots", "section": name, "seed": seed, **row})
                    print(rows[-1], flush=True)
            write(pd.DataFrame(rows), args.out)


def write(table: pd.DataFrame, out: Path) -> None:
    """Write every run as CSV, and means over seeds as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(out / "annotate.csv", index=False)
    parts = ["Spots without a label only; means over the seeds. Seconds are of one CPU core, without the embedding."]
    for metric in ("ARI", "accuracy", "macro_f1", "ECE", "seconds"):
        cells = table.groupby(["group", "task", "section", "method"], sort=False)[metric].mean().unstack("method")
        cells = cells.reindex(columns=list(dict.fromkeys(table["method"]))).dropna(axis=1, how="all")
        lines = [f"| {metric} | " + " | ".join(cells.columns) + " |", "|---" * (cells.shape[1] + 1) + "|"]
        lines += [
            f"| {group}, {task}, {section} | " + " | ".join("–" if np.isnan(v) else f"{v:.3f}" for v in row) + " |"
            for (group, task, section), row in zip(cells.index, cells.to_numpy(), strict=True)
        ]
        parts.append("\n".join(lines))
    (out / "annotate.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
