"""Draw the figures of README and results page: `python docs/figures.py`.

The first comes from the demo. The others need the real sections of the benchmarks, and stay as they are without.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from PIL import Image

import stalign as st

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from real import IGNORED, SECTIONS, Real, data_root  # noqa: E402

if TYPE_CHECKING:
    from anndata import AnnData

STATIC = ROOT / "docs" / "_static"
WIDTH = 1500  # px
LARGEST = 300_000  # bytes
SEEDS = 3


def keep(figure: Path, name: str) -> None:
    """Store the figure of the README: PNG with few colours, 16 greys among them so that text stays black."""
    image, target = shrunk(figure), STATIC / f"{name}.png"
    white = image.convert("L").point(lambda value: 255 if value > 253 else 0).convert("1")
    greys = [value for value in range(0, 256, 17) for _ in "rgb"]
    for colors in (240, 120, 60):
        reduced = image.quantize(colors, kmeans=1)
        reduced.putpalette(greys + reduced.getpalette()[: 3 * colors])
        few = image.quantize(palette=reduced, dither=Image.Dither.NONE)
        few.paste(15, mask=white)  # the last grey
        few.save(target, optimize=True)
        if target.stat().st_size < LARGEST:
            return


def shrunk(figure: Path) -> Image.Image:
    """Open a figure and make it at most as wide as a page needs."""
    image = Image.open(figure).convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    return image


def demo() -> None:
    """Draw what the README shows."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, "-m", "stalign", "demo", "--out", out], check=True)
        keep(Path(out) / "domains.png", "demo-domains")


def domains(section: Real, root: Path) -> AnnData:
    """Draw labels and domains of one section, for the seed whose ARI is in the middle."""
    adata = section.read(root)
    options = {"total_counts": section.total_counts, "gene_key": section.gene_key}
    st.tl.embed(adata, **options)
    truth = adata.obs[section.truth].astype(str)
    adata.obs["labels"] = truth.where(~truth.isin(IGNORED)).astype("category")
    runs = {}
    for seed in range(SEEDS):
        key = f"seed {seed}"
        st.tl.domains(adata, section.n_domains, random_state=seed, key_added=key)
        runs[key] = float(st.tl.score(adata, "labels", key=key)["ARI"].iloc[0])
    key = sorted(runs, key=runs.__getitem__)[SEEDS // 2]
    title = [f"{section.name}: labels", f"stalign-mini, ARI {runs[key]:.2f}"]
    drawn = st.pl.domains(adata, key, truth="labels", reference="labels", title=title, return_fig=True)
    save(drawn, f"real-{section.name}")
    return adata


def save(figure, name: str) -> None:
    """Store a figure of real tissue as JPEG, and forget it."""
    with tempfile.TemporaryDirectory() as out:
        figure.savefig(Path(out) / "figure.png", dpi=130, bbox_inches="tight")
        image = shrunk(Path(out) / "figure.png")
    target = STATIC / f"{name.replace(' ', '-')}.jpg"
    for quality in (85, 75, 65):
        image.save(target, quality=quality, subsampling=0, optimize=True)
        if target.stat().st_size < LARGEST:
            break
    plt.close(figure)


def real(root: Path) -> None:
    """Draw sections that the page of results shows."""
    shown = {s.name: domains(s, root) for s in SECTIONS if s.name in ("151673", "mob rep1", "mob rep2", "her2st A1")}
    predicted = st.tl.predict_genes(shown["mob rep2"], reference=shown["mob rep1"], genes=50)
    save(st.pl.genes(predicted, n=2, return_fig=True), "real-mob-genes")


if __name__ == "__main__":
    plt.switch_backend("Agg")
    demo()
    if (ROOT.parent / "shared" / "data").is_dir() or "STALIGN_TEST_DATA" in os.environ:
        real(data_root())
