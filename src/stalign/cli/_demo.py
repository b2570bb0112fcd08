"""`stalign demo`: one section through every step."""

from __future__ import annotations

import argparse
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign.core.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

HELP = "embed a section, cut it into domains, score them, predict genes and draw it all"
DESCRIPTION = "Without --section and --slide the demo runs on a simulated section. It needs no network."
_AXES = f"{Keys.EMBED}_pca"  # obsm key of what the embedding is drawn by
_DPI = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("--section", type=Path, help="a Space Ranger folder or an .h5ad file with raw counts")
    parser.add_argument("--slide", type=Path, help="an H&E image that was never sequenced; needs --reference")
    parser.add_argument(
        "--reference",
        type=Path,
        action="append",
        help="a measured section to predict genes from; repeatable",
    )
    parser.add_argument("--domains", type=count, help="how many domains to cut (default: as many as in --truth, or 7)")
    parser.add_argument("--truth", help="obs column with known labels to score against")
    parser.add_argument("--layer", help="layer of the raw counts (default: X)")
    parser.add_argument("--total-counts", help="obs column of total counts, for a table that holds only some genes")
    parser.add_argument("--gene-key", help="var column of gene symbols (default: the names of the genes)")
    parser.add_argument("--library-key", help="obs column that tells several sections apart")
    parser.add_argument(
        "--mpp", type=float, help="µm per px of the coordinates (default: as stated, or from the spots)"
    )
    parser.add_argument(
        "--genes", type=count, help="how many variable genes to predict (default: 50; of a --slide, the reliable ones)"
    )
    parser.add_argument("--out", type=Path, default=Path("stalign-demo"), help="output folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random step (default: %(default)s)")


def count(text: str) -> int:
    """Read a number from 1."""
    value = int(text)
    if value < 1:
        msg = f"expected a number from 1, found {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def read(path: Path | None) -> AnnData:
    """Read a Space Ranger folder or an h5ad file, or make the simulated section where there is no path."""
    import stalign

    if path is None:
        return stalign.datasets.toy()
    if not path.exists():
        msg = f"Expected a Space Ranger folder or an h5ad file. Found: nothing at {path}."
        raise FileNotFoundError(msg)
    return stalign.io.read_visium(path) if path.is_dir() else stalign.io.read_h5ad(path)


def run(arguments: argparse.Namespace) -> int:
    """Run the main job from a section to figures."""
    import matplotlib as mpl

    mpl.use("Agg")
    from rich.console import Console
    from rich.table import Table

    import stalign

    console = Console()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    seed = arguments.seed

    counts = {"layer": arguments.layer, "total_counts": arguments.total_counts}
    where = {"library_key": arguments.library_key}

    if arguments.slide is not None:
        return _slide(arguments, console)
    with _step(console, "Read the section"):
        adata = read(arguments.section)
        truth = arguments.truth or ("domain" if arguments.section is None else None)
        n_domains = arguments.domains or _n_labels(adata, truth) or 7
    with _step(console, f"Embed {adata.n_obs:,} spots"):
        stalign.tl.embed(adata, gene_key=arguments.gene_key, mpp=arguments.mpp, random_state=seed, **counts, **where)
    with _step(console, f"Cut {n_domains} domains"):
        stalign.tl.domains(adata, n_domains, refine=True, random_state=seed, **where)
    scores = None
    if truth is not None:
        with _step(console, f"Score them against {truth!r}"):
            scores = stalign.tl.score(adata, truth, **where)
            _save(lambda path: scores.to_csv(path, index=False), out / "scores.csv")
    predicted = None
    if {Keys.EMBED_IMAGE, Keys.EMBED_GENE} <= set(adata.obsm):
        n_genes = min(arguments.genes or 50, adata.n_vars)
        with _step(console, f"Predict {n_genes} genes from the image on held-out spots"):
            image = Keys.EMBED_IMAGE  # is there already; the default features would take most of the demo's time
            predicted = stalign.tl.predict_genes(
                adata, genes=n_genes, split="spot", use_rep=image, random_state=seed, **counts, **where
            )
            _save_genes(predicted, out)
    with _step(console, "Draw the figures and write the report"):
        _report(adata, out, truth=truth, predicted=predicted, scores=scores, mpp=arguments.mpp, **where)
    with _step(console, "Write section.h5ad"):
        _save(adata.write_h5ad, out / "section.h5ad")

    if scores is not None:
        shown = Table(title="Domains against the truth")
        columns = ["library", "n_spots", "n_scored", "n_domains", "n_truth", "ARI", "NMI"]  # the others are in the file
        for column in columns:
            shown.add_column(column)
        for row in scores[columns].itertuples(index=False):
            shown.add_row(*(f"{x:.3f}" if isinstance(x, float) else str(x) for x in row))
        console.print(shown)
    console.print(f"Everything is in {out}: " + ", ".join(sorted(p.name for p in out.iterdir())), markup=False)
    return 0


def _slide(arguments: argparse.Namespace, console: Any) -> int:
    """Predict the genes of a slide that was never sequenced, and draw them."""
    import stalign

    out, where = arguments.out, {"library_key": arguments.library_key}
    if not arguments.reference or arguments.section is not None:
        msg = "Expected `--slide` together with `--reference`, a measured section, and without `--section`."
        raise ValueError(msg)
    with _step(console, f"Read {arguments.slide.name} and find its tissue"):
        slide = stalign.io.read_slide(arguments.slide, arguments.mpp)
    with _step(console, "Read the reference"):
        references = [read(path) for path in arguments.reference]
    with _step(console, f"Embed {slide.n_obs:,} spots"):
        stalign.tl.embed(slide, random_state=arguments.seed)
    n_domains = min(arguments.domains or 7, slide.n_obs)
    with _step(console, f"Cut {n_domains} domains"):
        stalign.tl.domains(slide, n_domains, refine=True, random_state=arguments.seed)
    with _step(console, "Predict genes"):
        predicted = stalign.tl.predict_genes(
            slide, references, genes=arguments.genes or "reliable", layer=arguments.layer,
            total_counts=arguments.total_counts, random_state=arguments.seed, **where,
        )  # fmt: skip
        _save_genes(predicted, out)
    with _step(console, "Draw the figures and write the report"):
        figure = stalign.pl.slide(slide, show=False, return_fig=True)
        _save(lambda path: figure.savefig(path, dpi=_DPI, bbox_inches="tight", format="png"), out / "slide.png")
        _report(slide, out, predicted=predicted)
    with _step(console, "Write slide.h5ad and predicted.h5ad"):
        _save(slide.write_h5ad, out / "slide.h5ad")
        _save(predicted.write_h5ad, out / "predicted.h5ad")
    console.print(f"Everything is in {out}: " + ", ".join(sorted(p.name for p in out.iterdir())), markup=False)
    return 0


@contextmanager
def _step(console: Any, what: str) -> Iterator[None]:
    console.print(what, style="bold", markup=False)
    start = time.perf_counter()
    yield
    console.print(f"  done in {time.perf_counter() - start:.1f} s")


def _n_labels(adata: AnnData, truth: str | None) -> int | None:
    if truth is None:
        return None
    from stalign._validate import message
    from stalign.core.labels import as_labels

    if truth not in adata.obs:
        raise KeyError(
            message("Expected `--truth` to name an obs column", found=repr(truth), available=adata.obs.columns)
        )
    return len({label for label in as_labels(adata.obs[truth]) if label is not None})


def _report(adata: AnnData, out: Path, **options: Any) -> None:
    """Write the report and its figures; principal components stand in for a UMAP, which would take longest of all."""
    from stalign import pl

    adata.obsm[_AXES] = _principal(adata.obsm[Keys.EMBED])
    pl.report(adata, out / "report.html", basis=_AXES, figures=out, dpi=_DPI, **options)


def _principal(values: np.ndarray) -> np.ndarray:
    """First two principal components of (n, d) values, (n, 2); rows with NaN stay NaN."""
    usable = np.isfinite(values).all(axis=1)
    centred = values - values[usable].mean(axis=0)
    scatter = centred[usable].T @ centred[usable]
    return np.asarray(centred @ np.linalg.eigh(scatter)[1][:, :-3:-1])


def _save_genes(predicted: AnnData, out: Path) -> None:
    table = predicted.var.sort_values("reliability", ascending=False)
    _save(lambda path: table.to_csv(path, index_label="gene"), out / "genes.csv")


def _save(write: Any, path: Path) -> None:
    with whole_file(path) as temporary:
        write(temporary)
