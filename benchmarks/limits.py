"""How far domains could get: many cuts of each section, the best of them, and what a choice without labels finds.

python benchmarks/limits.py [--sections 151673 ...] [--starts 5] [--out FOLDER]

Each section is cut many times without a network: Gaussian means of several widths, several numbers of components,
several starts of a tied mixture. Labels say which cut is best; criteria that know no labels say which they would take.
Two more rows start from the labels themselves, and so bound what such a mixture can find in these features.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from baselines import log_counts
from real import IGNORED, SECTIONS, data_root
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

import stalign
from stalign.core.clustering import GMM
from stalign.core.gaussian import gaussian_graph
from stalign.core.refine import ring_graph
from stalign.data import open_sections as sections

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from real import Real
    from scipy import sparse

WIDTHS = (60.0, 80.0, 120.0, 160.0)  # µm
COMPONENTS = (10, 15, 20, 30)
SHIPPED = (80.0, 15)  # what `stalign-mini` and `tl.domains` take


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="*", default=[s.name for s in SECTIONS])
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def shares(labels: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.bincount(labels) / len(labels)


def balance(labels: NDArray[np.intp]) -> float:
    """Entropy of the shares of the domains: high where all are of one size."""
    share = shares(labels)
    return float(-(share[share > 0] * np.log(share[share > 0])).sum())


def coherence(labels: NDArray[np.intp], ring: sparse.csr_matrix) -> float:
    """Share of neighbours with the same label, beyond chance (kappa)."""
    pairs = ring.tocoo()
    chance = float((shares(labels) ** 2).sum())
    return (float((labels[pairs.row] == labels[pairs.col]).mean()) - chance) / (1 - chance)


def explained(labels: NDArray[np.intp], values: NDArray[np.float32]) -> float:
    """Share of the variance of single spots' expression that lies between domains."""
    present, sizes = np.unique(labels, return_counts=True)
    means = np.stack([values[labels == label].mean(axis=0) for label in present])
    centre = values.mean(axis=0)
    return float((sizes[:, None] * (means - centre) ** 2).sum() / ((values - centre) ** 2).sum())


def agreement(cuts: list[NDArray[np.intp]]) -> NDArray[np.float64]:
    """Mean ARI of each cut with all others."""
    table = np.array([[adjusted_rand_score(a, b) for b in cuts] for a in cuts])
    return (table.sum(axis=1) - 1) / (len(cuts) - 1)


def from_labels(points: NDArray[np.float64], truth: NDArray[np.str_]) -> tuple[float, float]:
    """ARI of a linear discriminant that was told the labels, and of a tied mixture that starts from them."""
    names, codes = np.unique(truth, return_inverse=True)
    told = LinearDiscriminantAnalysis().fit(points, codes).predict(points)
    means = np.stack([points[codes == code].mean(axis=0) for code in range(len(names))])
    within = np.cov((points - means[codes]).T, bias=True) + 1e-6 * np.eye(points.shape[1])
    mixture = GaussianMixture(
        len(names),
        covariance_type="tied",
        weights_init=shares(codes),
        means_init=means,
        precisions_init=np.linalg.inv(within),
        max_iter=300,
    ).fit(points)
    return adjusted_rand_score(codes, told), adjusted_rand_score(codes, mixture.predict(points))


def study(real: Real, starts: int) -> dict[str, float]:
    """ARI of the cuts of a section, by what chose them."""
    adata = real.read(data_root())
    truth = adata.obs[real.truth].astype(str).to_numpy()
    labelled = ~np.isin(truth, IGNORED)
    view = sections(adata, image=False)[0]
    values, ring = log_counts(adata, real.total_counts), ring_graph(view.coords)
    cuts, settings, ceilings = [], [], []
    for width in WIDTHS:
        scores = PCA(max(COMPONENTS), random_state=0).fit_transform(gaussian_graph(view.coords_um, width) @ values)
        for n in COMPONENTS:
            points = scores[:, :n].astype(np.float64)
            ceilings.append(from_labels(points[labelled], truth[labelled]))
            for start in range(starts):
                cuts.append(GMM(real.n_domains, n_init=1).fit(points, random_state=start)[0])
                settings.append((width, n))
    ari = np.array([adjusted_rand_score(truth[labelled], cut[labelled]) for cut in cuts])
    criteria = {
        "agreement with the other cuts": agreement(cuts),
        "coherence in space": np.array([coherence(cut, ring) for cut in cuts]),
        "variance explained in single spots": np.array([explained(cut, values) for cut in cuts]),
        "balance of sizes": np.array([balance(cut) for cut in cuts]),
    }
    shipped = np.array([setting == SHIPPED for setting in settings])
    told, kept = np.array(ceilings).max(axis=0)
    return {
        "mean of all cuts": ari.mean(),
        f"mean at {SHIPPED[0]:g} µm and {SHIPPED[1]} components": ari[shipped].mean(),
        **{f"chosen by {name}": ari[score.argmax()] for name, score in criteria.items()},
        "best cut, chosen by the labels": ari.max(),
        "mixture that starts from the labels, best features": kept,
        "discriminant that is told the labels, best features": told,
    }


def listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def main() -> None:
    args = arguments()
    stalign.settings.show_progress = False
    found = {}
    for real in SECTIONS:
        if real.name in args.sections:
            found[real.name] = study(real, args.starts)
            print(real.name, {name: round(float(value), 3) for name, value in found[real.name].items()}, flush=True)
    table = pd.DataFrame(found)
    table["mean"] = table.mean(axis=1)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "limits.csv", index_label="cut", float_format="%.4f")
    n = len(WIDTHS) * len(COMPONENTS) * args.starts
    lines = [
        f"ARI. Each section was cut {n} times without a network: Gaussian means of {listed(WIDTHS)} µm, "
        f"{listed(COMPONENTS)} components, {args.starts} single starts of a tied mixture (`benchmarks/limits.py`). "
        "The rows say which of them is taken. The last three use the labels, so no method may.",
        "",
        "| " + " | ".join(["cut", *table.columns]) + " |",
        "|" + "---|" * (len(table.columns) + 1),
        *("| " + " | ".join([str(name), *(f"{v:.2f}" for v in row)]) + " |" for name, row in table.iterrows()),
    ]
    (args.out / "limits.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
