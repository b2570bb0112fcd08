"""Table 1 of the ST-Align paper: ARI of methods by sections, mean and spread over runs, best and second best marked.

python benchmarks/table1.py [--encoders NAME ...] [--weights NAME=PATH ...] [--tuned NAME=FOLDER ...]
                            [--h5ad PATH:TRUTH:DOMAINS ...] [--level spot] [--runs 5] [--download] [--out FOLDER]

Every section and encoder that is there is scored: sections of `../shared/data` or `STALIGN_TEST_DATA`, further h5ad
files that are named, encoders without weights, with weights that are named, and with weights in the hub's cache. With
`--download` the hub is asked, too. What is missing is listed with the reason.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import baselines
import numpy as np
import pandas as pd
from real import IGNORED, SECTIONS, Real, data_root

import stalign
from stalign._constants import Keys
from stalign.core.clustering import GMM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    Features = Callable[[AnnData, Real], str]  # writes to obsm, returns the key

PAPER = ("151507", "151508", "151509", "151669", "151670", "151673")  # the columns of the paper's table
FLOORS = ("colour", "pixels")
RANDOM = ("resnet18",)  # encoders that also run with random weights, labelled so


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="*", default=None, help="names; all by default")
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=PATH")
    parser.add_argument("--tuned", nargs="*", default=[], metavar="NAME=FOLDER", help="folders of stalign.train.clip")
    parser.add_argument("--h5ad", nargs="*", default=[], metavar="PATH:TRUTH:DOMAINS")
    parser.add_argument("--sections", nargs="*", default=None, help="names; all by default")
    parser.add_argument("--level", default="spot", choices=("spot", "niche"), help="patch of the image encoders")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--stalign", default="stalign-mini", help="weights for tl.embed")
    parser.add_argument("--resume", action="store_true", help="keep the runs in table1.csv and add what is not there")
    parser.add_argument("--download", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def pairs(given: list[str]) -> dict[str, str]:
    return dict(item.split("=", 1) for item in given)


def encoded(name: str, args: argparse.Namespace, weights: str | None, level: str | None = None) -> Features:
    """Features of a registered encoder."""

    def write(adata: AnnData, real: Real) -> str:
        card = stalign.encoders.get(name)
        chosen = level or (args.level if card.modality == "image" else "spot")
        genes = {} if card.modality == "image" else {"total_counts": real.total_counts, "gene_key": real.gene_key}
        stalign.tl.encode(adata, name, level=chosen, weights=weights, precision=args.precision, **genes)
        return f"X_{name}_{chosen}"

    return write


def concatenated(image: str, gene: str, args: argparse.Namespace, weights: dict[str, str]) -> Features:
    """Two representations side by side, each reduced to 15 components of equal total variance."""

    def write(adata: AnnData, real: Real) -> str:
        parts = [encoded(name, args, weights.get(name))(adata, real) for name in (image, gene)]
        adata.obsm["X_concatenated"] = np.concatenate([standard(adata.obsm[key]) for key in parts], axis=1)
        return "X_concatenated"

    return write


def standard(features: NDArray[np.float32]) -> NDArray[np.float32]:
    from sklearn.decomposition import PCA

    seen = np.isfinite(features).all(axis=1)
    n = min(15, features.shape[1])
    out = np.full((len(features), n), np.nan, dtype=np.float32)
    out[seen] = PCA(n, random_state=0).fit_transform(features[seen])
    return out / np.sqrt(np.nanvar(out, axis=0).sum())


def niche_mean(adata: AnnData, real: Real) -> str:
    adata.obsm["X_niche_mean"] = baselines.niche_mean(adata, total_counts=real.total_counts)
    return "X_niche_mean"


def embedded(weights: str) -> Features:
    def write(adata: AnnData, real: Real) -> str:
        stalign.tl.embed(adata, weights, total_counts=real.total_counts, gene_key=real.gene_key)
        return Keys.EMBED

    return write


def methods(args: argparse.Namespace) -> Iterator[tuple[str, Features]]:
    """Rows of the table: name and what writes the features."""
    weights = pairs(args.weights)
    yield "Scanpy (PCA)", encoded("pca", args, None)
    yield "niche mean (floor)", niche_mean
    for name in FLOORS:
        yield f"{name} statistics" if name == "colour" else "raw pixels", encoded(name, args, None)
    for name in RANDOM:
        yield f"{name}, random weights (no result)", encoded(name, args, "random")
    for name in stalign.encoders.list().index:
        if stalign.encoders.get(name).needs_weights and name != "clip-tuned":
            yield name, encoded(name, args, weights.get(name))
    for name, folder in pairs(args.tuned).items():
        yield f"{name}, fine-tuned", encoded("clip-tuned", args, folder)
    yield "concatenation (colour + PCA)", concatenated("colour", "pca", args, weights)
    yield "concatenation (UNI + scGPT)", concatenated("uni", "scgpt", args, weights)
    yield f"{args.stalign}, zero-shot", embedded(args.stalign)


def columns(args: argparse.Namespace) -> tuple[list[Real], dict[str, str]]:
    """Sections that are there, and why others of the paper are not."""
    root = data_root()
    given = [part.rsplit(":", 2) for part in args.h5ad]
    extra = [Real(Path(path).stem, path, truth, int(n)) for path, truth, n in given]
    there = [real for real in SECTIONS if (root / real.file).is_file()] + extra
    if args.sections is not None:
        there = [real for real in there if real.name in args.sections]
    missing = {real.name: f"no file {real.file}" for real in SECTIONS if not (root / real.file).is_file()}
    names = {real.name for real in [*SECTIONS, *extra]}
    for name in PAPER:
        if name not in names:
            spots = root / "dlpfc" / "sections" / name
            why = "its counts are not in the data folder" if spots.exists() else "not in the data folder"
            missing[name] = f"{why}; name an h5ad with --h5ad"
    return there, missing


def run(real: Real, args: argparse.Namespace, missing: dict[str, str], done: set[tuple]) -> Iterator[dict[str, object]]:
    """Score every method on one section that is not done."""
    adata = real.read(data_root() if not Path(real.file).is_absolute() else Path("/"))
    for method, write in methods(args):
        skipped = args.encoders is not None and not any(name in method for name in args.encoders)
        seeds = [seed for seed in range(args.runs) if (real.name, method, seed) not in done]
        if skipped or not seeds:
            continue
        start = time.perf_counter()
        try:
            key = write(adata, real)
        except (FileNotFoundError, PermissionError, ConnectionError, ValueError) as error:
            missing.setdefault(method, reason(method, error, real))
            continue
        seconds = time.perf_counter() - start
        for seed in seeds:
            stalign.tl.domains(adata, GMM(real.n_domains), use_rep=key, random_state=seed)
            score = stalign.tl.score(adata, real.truth, ignore=IGNORED).iloc[-1]
            found = {"section": real.name, "method": method, "run": seed, "ARI": score["ARI"], "NMI": score["NMI"]}
            yield {**found, "features": adata.obsm[key].shape[1], "seconds": seconds}
        print(f"{real.name}: {method}: ARI {score['ARI']:.3f} in the last run", flush=True)


def reason(method: str, error: Exception, real: Real) -> str:
    """Say why a method is missing: what the card says of weights that are not here, else the error's first sentence."""
    if isinstance(error, ValueError):
        return f"in {real.name}: " + " ".join(str(error).split()).split(". ")[0]
    names = stalign.encoders.list().index
    cards = [stalign.encoders.get(name) for name in names if name == method or name in method.lower().split()]
    absent = next((card for card in cards if card.needs_weights), None) or stalign.encoders.get("uni")
    if absent.access == "folder":
        return f"no weights here: its authors hand them out at {absent.url} ({absent.licence})"
    gate = {True: "gated", None: "sources disagree on whether it is gated", False: "not gated"}[absent.gated]
    return f"no weights here: {absent.repo} on the hub, {gate}, {absent.licence}"


def layout(table: pd.DataFrame, methods: list[str], sections: list[str]) -> str:
    """Methods by sections with the mean over sections, as Markdown; best bold, second best underlined."""
    cells = table.groupby(["method", "section"], sort=False)["ARI"].agg(["mean", "std"])
    rows, columns = (
        [name for name in names if name in set(table[key])]
        for names, key in ((methods, "method"), (sections, "section"))
    )
    mean, spread = (cells[part].unstack("section").reindex(index=rows, columns=columns) for part in ("mean", "std"))
    mean["mean"] = mean.mean(axis=1).where(mean.notna().all(axis=1))
    ranks = mean[[("random" not in name) for name in mean.index]].rank(ascending=False, method="min")
    lines = ["| method | " + " | ".join(mean.columns) + " |", "|" + "---|" * (len(mean.columns) + 1)]
    for name in mean.index:
        texts = []
        for column in mean.columns:
            value = mean.loc[name, column]
            if np.isnan(value):
                texts.append("–")
                continue
            text = f"{value:.3f}" + (f" ± {spread.loc[name, column]:.3f}" if column in spread else "")
            rank = ranks.loc[name, column] if name in ranks.index else np.nan
            texts.append(f"**{text}**" if rank == 1 else f"<u>{text}</u>" if rank == 2 else text)
        lines.append("| " + " | ".join([name, *texts]) + " |")
    return "\n".join(lines)


def main() -> None:
    args = arguments()
    stalign.settings.show_progress = False
    stalign.settings.offline = not args.download
    sections, missing = columns(args)
    absent = dict(missing)
    methods_missing: dict[str, str] = {}
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "table1.csv"
    table = pd.read_csv(file) if args.resume and file.is_file() else pd.DataFrame()
    done = set(zip(table["section"], table["method"], table["run"], strict=True)) if len(table) else set()
    for real in sections:
        for row in run(real, args, methods_missing, done):
            table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
            table.to_csv(file, index=False)
    given = [name for name, _ in methods(args)]
    names = [real.name for real in SECTIONS] + [real.name for real in sections]
    lines = [
        "# Table 1 of the paper, on the sections and encoders that are here",
        "",
        f"ARI, mean ± standard deviation over {args.runs} runs of a tied Gaussian mixture on 15 components, labelled "
        f"spots only; image encoders at level `{args.level}` (`benchmarks/table1.py`). Best bold, second best "
        "underlined. Rows with random weights say what a network's shape alone is worth, and are not ranked. What "
        f"`{args.stalign}` saw in training, without labels, is in its card.",
        "",
        layout(table, given, list(dict.fromkeys(names))),
        "",
        "Sections of the paper that are missing:",
        "",
        *(f"- {name}: {why}" for name, why in absent.items()),
        "",
        "Methods that are missing:",
        "",
        *(f"- {name}: {why}" for name, why in methods_missing.items()),
    ]
    (args.out / "table1.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
