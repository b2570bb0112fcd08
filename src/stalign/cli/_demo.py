"""The command line: `python -m stalign demo` takes one section through every step."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._constants import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData


def parser() -> argparse.ArgumentParser:
    """Describe the command line.

    Returns
    -------
    The parser.
    """
    top = argparse.ArgumentParser(prog="python -m stalign", description="ST-Align for the scverse.")
    top.add_argument("--version", action="version", version=f"stalign {version('stalign')}")
    commands = top.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="embed a section, cut it into domains, score them, predict genes and draw it all",
        description="Without --section and --slide the demo runs on a simulated section. It needs no network.",
    )
    demo.add_argument("--section", type=Path, help="a Space Ranger folder or an .h5ad file with raw counts")
    demo.add_argument("--slide", type=Path, help="an H&E image that was never sequenced; needs --reference")
    demo.add_argument(
        "--reference",
        type=Path,
        action="append",
        help="a measured section to predict genes from; repeatable",
    )
    demo.add_argument("--domains", type=_count, help="how many domains to cut (default: as many as in --truth, or 7)")
    demo.add_argument("--truth", help="obs column with known labels to score against")
    demo.add_argument("--layer", help="layer of the raw counts (default: X)")
    demo.add_argument("--total-counts", help="obs column of total counts, for a table that holds only some genes")
    demo.add_argument("--gene-key", help="var column of gene symbols (default: the names of the genes)")
    demo.add_argument("--library-key", help="obs column that tells several sections apart")
    demo.add_argument("--mpp", type=float, help="µm per px of the coordinates (default: as stated, or from the spots)")
    demo.add_argument(
        "--genes", type=_count, help="how many variable genes to predict (default: 50; of a --slide, the reliable ones)"
    )
    demo.add_argument("--out", type=Path, default=Path("stalign-demo"), help="output folder (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="seed of every random step (default: %(default)s)")
    return top


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        msg = f"expected a number from 1, found {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def read(path: Path | None) -> AnnData:
    """Read the section that the demo runs on.

    Parameters
    ----------
    path
        Space Ranger folder, h5ad file, or None for the simulated section.

    Returns
    -------
    The section.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    """
    import stalign

    if path is None:
        return stalign.datasets.toy()
    if not path.exists():
        msg = f"Expected a Space Ranger folder or an h5ad file. Found: nothing at {path}."
        raise FileNotFoundError(msg)
    return stalign.io.read_visium(path) if path.is_dir() else stalign.io.read_h5ad(path)


def demo(arguments: argparse.Namespace) -> None:
    """Run the main job from a section to figures.

    Parameters
    ----------
    arguments
        What `parser` returned.
    """
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
        slide_demo(arguments, console)
        return
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
    here = {**where, "mpp": arguments.mpp}
    with _step(console, "Draw the figures"):
        _draw(adata, predicted, scores, truth, out, here)
    with _step(console, "Write the report"):
        stalign.pl.report(adata, out / "report.html", truth=truth, predicted=predicted, scores=scores, **here)
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


def slide_demo(arguments: argparse.Namespace, console: Any) -> None:
    """Predict the genes of a slide that was never sequenced, and draw them.

    Parameters
    ----------
    arguments
        What `parser` returned.
    console
        Where to say what is done.

    Raises
    ------
    ValueError
        If there is no reference.
    """
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
    with _step(console, "Draw the figures"):
        _draw(slide, predicted, None, None, out, {})
        _save_figure("slide", stalign.pl.slide(slide, show=False), out)
    with _step(console, "Write the report"):
        stalign.pl.report(slide, out / "report.html", predicted=predicted)
    with _step(console, "Write slide.h5ad and predicted.h5ad"):
        _save(slide.write_h5ad, out / "slide.h5ad")
        _save(predicted.write_h5ad, out / "predicted.h5ad")
    console.print(f"Everything is in {out}: " + ", ".join(sorted(p.name for p in out.iterdir())), markup=False)


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


def _draw(
    adata: AnnData, predicted: AnnData | None, scores: Any, truth: str | None, out: Path, where: dict[str, Any]
) -> None:
    from stalign import pl

    def save(name: str, drawn: Any) -> None:
        _save_figure(name, drawn, out)

    save("domains", pl.domains(adata, truth=truth, show=False, **where))
    save("embedding", pl.embedding(adata, show=False))
    if Keys.NICHE_GRAPH in adata.obsp:
        save("niches", pl.niches(adata, show=False, **where))
    done = adata.uns[Keys.UNS]
    if "patches" in done and len(done["patches"]["sections"]) == len(done["embed"]["sections"]):  # all have an image
        save("patches", pl.patches(adata, show=False, **where))
    if predicted is not None:
        save("genes", pl.genes(predicted, n=2, show=False, **where))
    if scores is not None:
        save("scores", pl.scores(scores, show=False))


def _save_figure(name: str, drawn: Any, out: Path) -> None:
    import matplotlib.pyplot as plt

    figure = (drawn[0] if isinstance(drawn, list) else drawn).figure
    _save(lambda path: figure.savefig(path, dpi=150, bbox_inches="tight", format="png"), out / f"{name}.png")
    plt.close(figure)


def _save_genes(predicted: AnnData, out: Path) -> None:
    table = predicted.var.sort_values("reliability", ascending=False)
    _save(lambda path: table.to_csv(path, index_label="gene"), out / "genes.csv")


def _save(write: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; None for those of the process.

    Returns
    -------
    The exit status: 0, or 1 after an error that the user can mend.
    """
    arguments = parser().parse_args(argv)
    try:
        demo(arguments)
    except (ValueError, KeyError, TypeError, OSError, ImportError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        sys.stderr.write(f"stalign: {text}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
