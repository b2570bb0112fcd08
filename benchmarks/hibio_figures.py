"""The figures of docs/hibio.md, from what benchmarks/hibio_tasks.py has computed.

python benchmarks/hibio_figures.py FOLDER [--weights DIR] [--cache DIR]

Few-shot curves; truth and zero-shot clusters of her2st A1; regions of B4 before and after training; markers of B4,
measured and predicted by the 100 nearest gene sentences of patients A and C.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from hibio_tasks import FULL, GENE, HELD, IMAGE, together
from image_sections import COLOUR, LITE0, add_colours, add_lite0, add_towers, read
from PIL import Image
from real import IGNORED

import stalign
from stalign.core.clustering import KMeans
from stalign.core.refine import neighbour_vote
from stalign.core.scores import agreement
from stalign.models import save
from stalign.models.hibio import HiBioST
from stalign.models.weights import load_weights

if TYPE_CHECKING:
    from anndata import AnnData

STATIC = Path(__file__).resolve().parents[1] / "docs" / "_static"
LARGEST = 150_000  # bytes
MARKERS = ("IGLL5", "IFI27", "MGP")


def keep(figure: plt.Figure, name: str) -> None:
    """Store a figure as a PNG of few colours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        figure.savefig(path, dpi=110, bbox_inches="tight")
        image = Image.open(path).convert("RGB")
        for colors in (200, 100, 50):
            image.quantize(colors, dither=Image.Dither.NONE).save(STATIC / f"{name}.png", optimize=True)
            if (STATIC / f"{name}.png").stat().st_size < LARGEST:
                break
    plt.close(figure)


def few_shot(results: Path) -> None:
    """Draw each metric over the share of training spots."""
    table = pd.read_csv(results / "hibio-few-shot.csv")
    table = table[(table["ratio"] < 1) & (table["row"] != "hibio-mini, SGD with the tower")]
    keep(stalign.pl.few_shot(table.assign(use_rep=table["row"], model=_kind(table)), return_fig=True), "hibio-few-shot")


def _kind(table: pd.DataFrame) -> np.ndarray:
    """One model for all lines, which are told apart by their names, but for the baseline."""
    return np.where(table["model"] == "training mean", "training mean", "linear")


def gallery(adata: AnnData, reps: dict[str, str]) -> None:
    """Draw the truth and the clusters of each representation, by the protocol of `tl.zero_shot`."""
    truth = adata.obs["label"].astype(str)
    known = ~truth.isin(IGNORED).to_numpy()
    titles = ["pathologist"]
    for rep, name in reps.items():
        values = np.asarray(adata.obsm[rep], dtype=np.float64)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        found = KMeans(truth[known].nunique(), n_init=50, max_iter=500, random_state=0).fit(values)[0]
        found = neighbour_vote(found, adata.obsm["spatial"], 5)
        titles.append(f"{name}, NMI {agreement(truth[known], found[known])['NMI']:.2f}")
        adata.obs[name] = pd.Categorical(found.astype(str))
    keys = ["label", *reps.values()]
    how = {"title": titles, "reference": "label", "image": False, "size": 1.6, "ncols": 2}
    keep(stalign.pl.domains(adata, keys, return_fig=True, **how), "hibio-zero-shot")


def regions(adata: AnnData, weights: Path, cache: Path) -> None:
    """Draw the regions by towers before and after training."""
    trained = load_weights(str(weights))
    torch.manual_seed(0)
    fresh = HiBioST(trained.config, len(trained.vocabulary)).eval()
    fresh.image_tower.load_state_dict(trained.network.image_tower.state_dict())
    fresh.idf.copy_(trained.network.idf)
    with tempfile.TemporaryDirectory() as folder:
        before = save(Path(folder) / "before", fresh, vocabulary=trained.vocabulary)
        for key, one in (("before training", before), ("after training", weights)):
            add_towers(adata, one, cache, key="X_one")
            stalign.tl.regions(adata, use_rep=("X_one_image", "X_one_gene"), key_added=key)
    keys = ["before training", "after training"]
    keep(stalign.pl.regions(adata, keys, image=False, size=1.6, return_fig=True), "hibio-regions")


def markers(joined: AnnData) -> None:
    """Draw measured and predicted markers of B4."""
    held = (joined.obs["patient"] == "B").to_numpy()
    query, reference = joined[held].copy(), joined[~held].copy()
    query.uns["spatial"] = {"B4": joined.uns["spatial"]["B4"]}
    found = stalign.tl.predict_genes(
        query,
        reference,
        genes=[name for name in MARKERS if name in joined.var_names],
        use_rep=IMAGE,
        model=stalign.tl.Retrieval(100, weights="mean", match=GENE),
        target="counts",
        standardise="none",
        shrink=False,
        library_key="section",
    )
    keep(stalign.pl.genes(found, list(found.var_names), library_key="section", return_fig=True), "hibio-markers")
    print(found.var["pearson"].round(2))


def main() -> None:
    """Draw all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, default=Path(tempfile.gettempdir()) / "stalign-hibio-held-out")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "stalign-genes")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    stalign.settings.show_progress, stalign.settings.verbosity = False, "error"
    sections, weights = read(given.folder, HELD), given.weights / FULL / "seed0"
    for adata in sections.values():
        add_towers(adata, weights, given.cache)
    few_shot(given.results)
    markers(together(sections))
    add_colours(sections["A1"], given.cache)
    add_lite0(sections["A1"], given.cache)
    gallery(sections["A1"], {COLOUR: "colours", f"{LITE0}_112um": "Lite0", IMAGE: "hibio-mini"})
    regions(sections["B4"], weights, given.cache)


if __name__ == "__main__":
    main()
