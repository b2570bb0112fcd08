"""Labels carried from annotated sections, and completed from a few spots: of the library and of plain peers.

    python benchmarks/annotate.py [--groups mob her2st dlpfc] [--tasks carry few suggest] [--seeds 5] [--spots 5 10 20]
    python benchmarks/annotate.py --scale 50000 500000

Results of earlier runs are kept for what is not run again. `--scale` measures seconds and memory on simulated bins,
each size in a process of its own, and does nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
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
    from numpy.typing import ArrayLike

DLPFC = {"total_counts": "sum_umi", "gene_key": "gene_name"}
N_COMPONENTS, N_GENES = 50, 2000
DLPFC_SECTIONS = ("151673", "151675", "151510")
NO_CARRY = ("151510",)  # another donor with other genes: labels are completed only
HER2ST = ("A1", "B1", "C1", "D1", "E1", "F1")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", nargs="*", default=["mob", "her2st", "dlpfc"])
    parser.add_argument("--tasks", nargs="*", default=["carry", "few", "suggest"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--spots", type=int, nargs="*", default=[5, 10, 20], help="labelled spots per class")
    parser.add_argument("--no-ingest", action="store_true", help="leave out scanpy's ingest, slow to start")
    parser.add_argument("--cache", type=Path, help="folder of embedded sections, made on first use")
    parser.add_argument("--scale", type=int, nargs="*", help="simulated bins")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def read_group(root: Path, group: str, cache: Path | None) -> dict[str, AnnData]:
    """Read and embed the labelled sections of a group, with labels in obs["label"]."""
    names = {"her2st": HER2ST, "dlpfc": DLPFC_SECTIONS, "mob": ("rep1", "rep2")}[group]
    found = {}
    for name in names:
        path = cache / f"{group}_{name}.h5ad" if cache else None
        if path and path.exists():
            found[name] = ad.read_h5ad(path)
            continue
        found[name] = read(root, group, name)
        stalign.tl.embed(found[name], **(DLPFC if group == "dlpfc" else {}))
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            found[name].write_h5ad(path)
    for adata in found.values():
        column = adata.obs["label" if group == "her2st" else "layer"]
        text = column.astype(object).where(column.notna(), None)
        adata.obs["label"] = pd.Categorical(text.where(~text.astype(str).isin(NO_LABEL), None))
        adata.obs["truth"] = adata.obs["label"].astype(object).where(adata.obs["label"].notna(), "").astype(str)
    return found


def read(root: Path, group: str, name: str) -> AnnData:
    """Read one section; those of her2st without an image."""
    if group != "her2st":
        return stalign.io.read_h5ad(root / group / f"{name}.h5ad")
    whole = stalign.io.read_h5ad(root / "her2st" / "her2st.h5ad")
    part = whole[whole.obs["section"] == name].copy()
    part.uns["spatial"] = {}
    return part


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


Found = tuple[np.ndarray, np.ndarray | None, np.ndarray]  # labels, probabilities and the order of their columns


def lda(features: np.ndarray, labels: np.ndarray) -> Found:
    """Labels of all spots, learned from those that have one."""
    known = labels != ""
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features[known], labels[known])
    return model.predict(features), model.predict_proba(features), model.classes_


def spread(features: np.ndarray, labels: np.ndarray) -> Found:
    """The same by label spreading over 15 neighbours."""
    names = np.unique(labels[labels != ""])
    codes = np.where(labels == "", -1, np.searchsorted(names, labels))
    model = LabelSpreading(kernel="knn", n_neighbors=15, max_iter=100).fit(features, codes)
    return names[model.transduction_], model.label_distributions_, names


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
    sc.pp.pca(pair[0], n_comps=min(N_COMPONENTS, pair[0].n_obs - 1))
    sc.pp.neighbors(pair[0])
    sc.tl.ingest(pair[1], pair[0], obs="label", embedding_method="pca")
    return pair[1].obs["label"].astype(str).to_numpy()


def scored(
    truth: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    probability: np.ndarray | None = None,
    names: ArrayLike = (),
) -> dict[str, float]:
    """Scores on some rows; the calibration error where there are probabilities."""
    error = float("nan")
    if probability is not None:
        codes = pd.Index(names).get_indexer(truth)
        use = rows & (codes >= 0) & np.isfinite(probability).all(axis=1)
        error = calibration_error(probability[use], codes[use])
    found = {"ARI": agreement(truth[rows], labels[rows])["ARI"], **classification(truth[rows], labels[rows])}
    return {**found, "ECE": error}


def ours(adata: AnnData, truth: np.ndarray, rows: np.ndarray, **options: object) -> dict[str, float]:
    """Annotate a section and score it."""
    stalign.tl.annotate(adata, "given", **options)
    found = adata.obs["stalign_annotation"]
    probability = adata.obsm["stalign_annotation_probability"]
    return scored(truth, found.astype(str).to_numpy(), rows, probability, found.cat.categories)


def compare(
    query: AnnData,
    references: list[AnnData],
    given: np.ndarray,
    total: str | None,
    kept: dict[bool, tuple],
    *,
    with_ingest: bool,
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
            found, probability, order = function(features, labels)
            seconds = made + time.process_time() - start
            result = scored(truth, found[-n:], rows, probability[-n:], order)
            yield {"method": f"{method} on {name}", **result, "seconds": seconds}
    if not with_ingest:
        return
    start = time.process_time()
    merged = query[given != ""].copy() if not references else references[0]
    if len(references) > 1:
        merged = ad.concat(references, join="inner")
    merged.obs["label"] = merged.obs["truth"].where(merged.obs["truth"] != "", None)
    try:
        found = ingest(merged, query, total)
    except TypeError as error:  # scanpy 1.11 with pynndescent 0.6 and later
        print("scanpy's ingest does not run with this pynndescent; 0.5 is needed:", error, file=sys.stderr)
        return
    yield {"method": "scanpy ingest", **scored(truth, found, rows), "seconds": time.process_time() - start}


def suggested(query: AnnData, total: str | None, seed: int) -> Iterator[dict]:
    """Ten rounds of seven spots that `tl.suggest` names, against as many at random."""
    truth = query.obs["truth"].to_numpy()
    rng, free = np.random.default_rng(seed), np.flatnonzero(truth != "")
    drawn, chosen = rng.permutation(free), np.empty(0, dtype=np.intp)
    labelled = query[free].copy()  # who labels has an answer for these spots
    for number in range(1, 11):
        names = labelled.obs_names.isin(query.obs_names[chosen])
        labelled.obs["given"] = pd.Categorical(labelled.obs["truth"].where(names, None))
        more = stalign.tl.suggest(labelled, 7, truth="given", random_state=seed)
        chosen = np.concatenate([chosen, query.obs_names.get_indexer(more.index)])
        if number not in (5, 10):
            continue
        for method, spots in (("tl.suggest", chosen), ("random", drawn[: 7 * number])):
            given = np.full(len(truth), "", dtype=object)
            given[spots] = truth[spots]
            query.obs["given"] = pd.Categorical(np.where(given == "", None, given))
            start = time.process_time()
            result = ours(query, truth, (truth != "") & (given == ""), total_counts=total)
            yield {"task": f"{7 * number} spots", "method": method, **result, "seconds": time.process_time() - start}


def some_labels(truth: np.ndarray, spots: int, seed: int) -> np.ndarray:
    """Labels of a few random spots of each class, "" elsewhere."""
    rng = np.random.default_rng(seed)
    names = np.unique(truth[truth != ""])
    chosen = np.concatenate([rng.permutation(np.flatnonzero(truth == name))[:spots] for name in names])
    given = np.full(len(truth), "", dtype=object)
    given[chosen] = truth[chosen]
    return given


def scaled(n: int) -> None:
    """Print seconds and memory of annotation and suggestion of n simulated bins."""
    from scale import Meter

    rng, width = np.random.default_rng(0), int(np.ceil(np.sqrt(n)))
    row, column = np.divmod(np.arange(n), width)
    domain = 6 * row // (row.max() + 1)
    values = rng.standard_normal((6, 128))[domain] + 2 * rng.standard_normal((n, 128))
    adata = ad.AnnData(sparse.csr_matrix((n, 1), dtype=np.float32), obsm={"X_stalign": values.astype(np.float32)})
    adata.obsm["spatial"] = 8.0 * np.column_stack([column, row])
    known = rng.random(n) < 0.01
    adata.obs["few"] = pd.Categorical(np.where(known, domain.astype(str).astype(object), None))
    meter = Meter()
    with meter.step("`tl.annotate`"):
        stalign.tl.annotate(adata, "few", genes=False)
    with meter.step("`tl.suggest`"):
        stalign.tl.suggest(adata, 20, truth="few")
    with meter.step("`tl.suggest`, no labels"):
        stalign.tl.suggest(adata, 20)
    right = (adata.obs["stalign_annotation"].astype(str).to_numpy() == domain.astype(str)).mean()
    for name, (worked, _, peak) in meter.steps.items():
        print(f"| {name} | {n:,} | {worked:.1f} | {peak:.2f} |")
    print(f"right: {right:.3f}", file=sys.stderr)


def scale_table(sizes: list[int], out: Path) -> None:
    """Measure each size in a process of its own, and write the table."""
    lines = [
        "CPU seconds, and largest resident memory of the process in GB: 128 columns of an embedding, 1 % labelled.",
        "",
        "| call | bins | seconds | GB |",
        "|---|---:|---:|---:|",
    ]
    for n in sizes:
        code = f"import annotate; annotate.stalign.settings.verbosity = 'error'; annotate.scaled({n})"
        command = [sys.executable, "-c", code]
        lines += subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent
        ).stdout.splitlines()  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "annotate-scale.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    args = arguments()
    if args.scale:
        scale_table(args.scale, args.out)
        return
    warnings.simplefilter("ignore")
    stalign.settings.show_progress = False
    stalign.settings.verbosity = "error"
    root = data_root()
    for group in args.groups:
        total = "sum_umi" if group == "dlpfc" else None
        data = read_group(root, group, args.cache)
        kept: dict[str, dict] = {name: {} for name in data}
        if "carry" in args.tasks:
            names = [name for name in data if name not in NO_CARRY]
            rows = []
            for name in names:
                none = np.full(data[name].n_obs, "", dtype=object)
                references = [data[other] for other in names if other != name]
                rows += [
                    {"section": f"to {name}", "seed": 0, "task": "carry-over", **row}
                    for row in compare(data[name], references, none, total, {}, with_ingest=not args.no_ingest)
                ]
            write(group, rows, args.out)
        for seed in range(args.seeds):
            if "few" in args.tasks:
                for spots, (name, query) in itertools.product(args.spots, data.items()):
                    given = some_labels(query.obs["truth"].to_numpy(), spots, seed)
                    found = compare(query, [], given, total, kept[name], with_ingest=not args.no_ingest)
                    rows = [{"section": name, "seed": seed, "task": f"{spots} a class", **row} for row in found]
                    write(group, rows, args.out)
            if "suggest" in args.tasks:
                for name, query in data.items():
                    rows = [{"section": name, "seed": seed, **row} for row in suggested(query, total, seed)]
                    write(group, rows, args.out)


def write(group: str, rows: list[dict], out: Path) -> None:
    """Add runs to the CSV, in place of older ones of the same kind, and write means over seeds as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    key = ["group", "task", "section", "method", "seed"]
    table = pd.DataFrame([{"group": group, **row} for row in rows]).round(4)
    print(table.to_string(header=False), flush=True)
    if (out / "annotate.csv").exists():
        table = pd.concat([pd.read_csv(out / "annotate.csv"), table]).drop_duplicates(key, keep="last")
    table.to_csv(out / "annotate.csv", index=False)
    parts = ["Spots without a label only; means over the seeds. Seconds are of one CPU core, without the embedding."]
    means = table.groupby(["group", "task", "section", "method"], sort=False).mean(numeric_only=True)
    seeds = table.groupby(["group", "task", "section"], sort=False)["seed"].nunique()
    for metric in ("ARI", "accuracy", "macro_f1", "ECE", "seconds"):
        cells = means[metric].unstack("method")
        cells = cells.reindex(columns=list(dict.fromkeys(table["method"]))).dropna(axis=1, how="all")
        lines = [f"| {metric} | seeds | " + " | ".join(cells.columns) + " |", "|---" * (cells.shape[1] + 2) + "|"]
        lines += [
            f"| {', '.join(index)} | {seeds[index]} | "
            + " | ".join("–" if np.isnan(v) else f"{v:.3f}" for v in row)
            + " |"
            for index, row in zip(cells.index, cells.to_numpy(), strict=True)
        ]
        parts.append("\n".join(lines))
    (out / "annotate.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
