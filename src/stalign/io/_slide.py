"""Reading of whole-slide images that were never sequenced, as a grid of spots on the tissue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._settings import logger
from stalign._validate import message
from stalign.core.tissue import MASK_MPP, VISIUM, Grid, covered, find_tissue, make_grid
from stalign.data.library import Library
from stalign.data.table import is_spatialdata
from stalign.io._files import listing, put_entry, put_image
from stalign.io._grid import assemble, between_spots
from stalign.io._resolution import file_mpp

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.data import SectionImage

_PROPERTIES = "slide_properties"  # where wsidata keeps size and scale of a slide, in attrs
_TISSUES = "tissues"  # shapes that LazySlide writes


def read_slide(
    slide: str | Path | AnnData | SpatialData,
    mpp: float | None = None,
    *,
    grid: str | float = VISIUM,
    name: str | None = None,
    min_tissue: float = 0.5,
) -> AnnData:
    """Read an H&E slide without spots as a grid of spots on its tissue, without counts.

    `tl.embed`, `tl.encode`, `tl.predict_genes(slide, reference)` and `pl` take what it returns. `pl.slide` shows what
    was taken for tissue.

    Parameters
    ----------
    slide
        An image file (svs, tif, ome.tif, jpg, png); or an open WSIData, as LazySlide makes, whose own tissue outlines
        are used where it has some; or a measured section (AnnData or SpatialData of one section), for expression
        between its spots: the grid then covers what its spots cover.
    mpp
        µm per px of the file at full resolution; None reads it from the file (svs, ome.tif, tif with a resolution), or
        from the section. JPEG and PNG files need it.
    grid
        `visium`: spots of 55 µm, 100 µm apart, in hexagons; or a number: squares of that side in µm.
    name
        Name of the section; None for the file's name without suffix, or the section's own.
    min_tissue
        Share of a spot, from 0 to 1, that has to be on tissue.

    Returns
    -------
    AnnData without genes:

    - `obs["array_row"]`, `obs["array_col"]`, int: row and column on the grid; `obs["tissue_fraction"]`, float: share of
      the spot that is on tissue, 1 for a grid between measured spots;
    - `obsm["spatial"]`, (n, 2) float64: x and y in px of the image at full resolution, or in those of the section;
    - `uns["spatial"][name]`: scale factors, `um_per_px`, and the path of the image, or its pixels up to 25 million;
    - `uns["stalign"]["slide"]`: grid, pitch_um, spot_um, mpp, mpp_origin, tissue (`saturation`, `tissues` or `spots`),
      threshold (of saturation; NaN where none was used), min_tissue, n_grid (spots of the grid before tissue was looked
      for), version.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the µm per px are unknown, `grid` is neither, no tissue is found, the file is no image, or a section has no
        image.
    TypeError
        If `slide` is none of these.

    Examples
    --------
    >>> import stalign
    >>> section = stalign.datasets.toy(12)
    >>> fine = stalign.io.read_slide(section, grid=50)
    >>> fine.n_vars, bool(fine.n_obs > section.n_obs)
    (0, True)
    """
    if not 0 <= min_tissue <= 1:
        raise ValueError(message("Expected `min_tissue` from 0 to 1", found=repr(min_tissue)))
    make_grid(grid, 0.0, 0.0)  # a wrong `grid` is known before a file is opened
    if isinstance(slide, str | Path):
        return _from_file(_existing(slide), mpp, grid, name, min_tissue, outlines=None)
    reader_file = getattr(getattr(slide, "reader", None), "file", None)
    properties = getattr(slide, "attrs", {}).get(_PROPERTIES) if is_spatialdata(slide) else None
    if reader_file is not None:
        stated = properties.get("mpp") if isinstance(properties, dict) else None
        stated = stated or getattr(getattr(slide, "properties", None), "mpp", None)
        outlines = slide.shapes[_TISSUES] if _TISSUES in getattr(slide, "shapes", {}) else None
        return _from_file(_existing(reader_file), mpp or stated, grid, name, min_tissue, outlines=outlines)
    if properties is not None:
        hint = "Open it with `wsidata.open_wsi` and its file, or pass the file itself"
        raise ValueError(message("Expected a slide with its file", found="a SpatialData without reader", hint=hint))
    return between_spots(slide, mpp, grid, name)


def _existing(path: str | Path) -> Path:
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        found = f"the folder {file}" if file.is_dir() else f"nothing at {file}"
        hint = "`stalign.io.read_visium` reads a Space Ranger folder" if file.is_dir() else ""
        near = listing(file.parent) if not file.is_dir() and file.parent.is_dir() else None
        raise FileNotFoundError(message("Expected an image file", found=found, available=near, hint=hint))
    return file


def _from_file(
    file: Path, mpp: float | None, kind: str | float, name: str | None, min_tissue: float, *, outlines: Any
) -> AnnData:
    """Lay a grid over a file and keep what is on tissue."""
    value, origin = (float(mpp), "mpp= given") if mpp is not None else file_mpp(file)
    if value is None or not 0 < value < np.inf:
        hint = "Pass `mpp=`, the µm per px of the file: 0.25 at 40x, 0.5 at 20x"
        found = "none in the file" if mpp is None else repr(mpp)
        raise ValueError(message(f"Expected the µm per px of {file.name}", found=found, hint=hint))
    name = name or file.name.removesuffix("".join(file.suffixes[-2:] if ".ome." in file.name else file.suffixes[-1:]))
    metadata = {"um_per_px": value, "mpp_origin": origin}
    entry: dict[str, dict[str, Any]] = {
        "images": {},
        "scalefactors": {"tissue_fullres_scalef": 1.0},
        "metadata": metadata,
    }
    put_image(entry, "fullres", file, hint="Copy it again, or convert it to a tiled TIFF")
    image = _image(entry, name, value)
    height, width = (side * image.mpp for side in image.shape)  # µm
    spots = make_grid(kind, width, height)
    if outlines is None:
        small, factor = image.thumbnail(max(1, round(max(image.shape) * min(1.0, image.mpp / MASK_MPP))))
        small_mpp = image.mpp / factor
        tissue = find_tissue(small, small_mpp)
        share = covered(tissue.mask, spots.coords / small_mpp, spots.spot_um / small_mpp)
        how, threshold = "saturation", tissue.threshold
    else:
        share, how, threshold = _within(outlines, spots, value), _TISSUES, float("nan")
    kept = (share >= min_tissue) & (share > 0)
    if not kept.any():
        found = f"none under {len(spots.coords)} spots of the grid, by {how}"
        hint = "Check `mpp=`, lower `min_tissue=`, or see that it is an H&E image on bright glass"
        raise ValueError(message(f"Expected tissue on {file.name}", found=found, hint=hint))
    params = {"mpp": value, "mpp_origin": origin, "tissue": how, "threshold": threshold, "min_tissue": min_tissue}
    adata = assemble(spots, kept, share, spots.coords / value, value, name, entry, params)
    logger.info(
        "Read %s: %d of %d spots of the grid are on tissue, %.3g µm per px (%s).",
        *(file.name, adata.n_obs, len(kept), value, origin),
    )
    return adata


def _image(entry: dict[str, dict[str, Any]], name: str, mpp: float) -> SectionImage:
    """Open the image of an entry, fine enough to find tissue."""
    from anndata import AnnData

    table = AnnData(np.zeros((0, 0), dtype=np.float32))
    put_entry(table, name, entry)
    image = Library(table, np.arange(0), name, alone=True).image(None, mpp=mpp, want_mpp=MASK_MPP)
    if image is None:
        raise ValueError(message(f"Expected an image for {name!r}", found="none"))
    return image


def _within(outlines: Any, spots: Grid, mpp: float) -> NDArray[np.float64]:
    """Measure the share of each spot that lies within outlines in px of the full-resolution image."""
    import shapely

    whole = shapely.union_all(np.asarray(outlines.geometry))
    shapely.prepare(whole)
    half = spots.spot_um / 2
    low, high = (spots.coords - half) / mpp, (spots.coords + half) / mpp
    boxes = shapely.box(*low.T, *high.T)
    return np.asarray(shapely.area(shapely.intersection(boxes, whole)) / shapely.area(boxes))
