"""Public sections with labels, fetched when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stalign._constants import ST_PITCH_UM, ST_SPOT_UM, Keys
from stalign._settings import logger
from stalign._validate import message, one_of
from stalign.data.files import allow
from stalign.datasets._fetch import fetch, folder, registry, source_of

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

_HUMANPILOT = source_of("dlpfc")["url"]
_SPATIAL_DLPFC = "https://spatial-dlpfc.s3.us-east-2.amazonaws.com"
_HER2ST = source_of("her2st")["url"]
_DONORS = {"Br5292": range(151507, 151511), "Br5595": range(151669, 151673), "Br8100": range(151673, 151677)}
_LAYERS = ["L1", "L2", "L3", "L4", "L5", "L6", "WM"]


def dlpfc(section: str | int = "151673", *, image: str = "hires", base_url: str | None = None) -> AnnData:
    """Fetch a section of the human dorsolateral prefrontal cortex with its manually annotated layers.

    Twelve 10x Visium sections of three donors (Maynard et al. 2021, Nat Neurosci 24:425).

    Parameters
    ----------
    section
        151507 to 151510 (donor Br5292), 151669 to 151672 (Br5595; without L1 and L2) or 151673 to 151676 (Br8100).
    image
        `hires` (2000 px, about 5 µm per px) or `lowres` (600 px).
    base_url
        A mirror with the folders `10X` and `h5`; None for the original hosts, or for the mirror that the environment
        variable STALIGN_DATASETS_URL names.

    Returns
    -------
    AnnData, spots in tissue x all genes, as `io.read_visium` gives it, with

    - `obs["layer"]`: L1 to L6 and WM, an ordered categorical; NaN for the spots that were not annotated;
    - `obs["donor"]`: the donor.

    Raises
    ------
    ValueError
        If the section or the image is unknown, or a file has another hash.
    ConnectionError
        If the host cannot be reached and the files were not fetched before.
    FileNotFoundError
        If the host does not have a file.

    Notes
    -----
    Files are kept in `settings.cache_dir / "datasets"`. Weights that are evaluated on a donor must not have been
    trained on it; `stalign-mini` was not trained on Br8100.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.datasets.dlpfc("151673")  # doctest: +SKIP
    """
    from stalign.io import read_visium

    section = str(section)
    donors = {str(number): donor for donor, numbers in _DONORS.items() for number in numbers}
    one_of(section, donors, name="section")
    one_of(image, ["hires", "lowres"], name="image")
    root = folder("dlpfc") / section
    name = "filtered_feature_bc_matrix.h5"
    wanted = {
        f"h5/{section}_{name}": (root / name, _SPATIAL_DLPFC),
        f"10X/{section}/scalefactors_json.json": (root / "spatial" / "scalefactors_json.json", _HUMANPILOT),
        f"10X/{section}/tissue_positions_list.txt": (root / "spatial" / "tissue_positions_list.txt", _HUMANPILOT),
        f"10X/{section}/tissue_{image}_image.png": (root / "spatial" / f"tissue_{image}_image.png", _HUMANPILOT),
        "10X/barcode_level_layer_map.tsv": (folder("dlpfc") / "barcode_level_layer_map.tsv", _HUMANPILOT),
    }
    for path, (target, host) in wanted.items():
        fetch("dlpfc", path, target, host=host, base_url=base_url)
    adata = read_visium(root, image=image, library_id=section)
    names = ["barcode", "section", "layer"]
    labels = pd.read_csv(folder("dlpfc") / "barcode_level_layer_map.tsv", sep="\t", header=None, names=names, dtype=str)
    own = labels[labels["section"] == section].set_index("barcode")["layer"].reindex(adata.obs_names)
    used = [layer for layer in _LAYERS if layer in set(own)]
    adata.obs["layer"] = pd.Categorical(own, categories=used, ordered=True)
    adata.obs["donor"] = pd.Categorical([donors[section]] * adata.n_obs)
    return adata


def her2st(section: str = "A1", *, image: bool = True, base_url: str | None = None) -> AnnData:
    """Fetch a section of a HER2-positive breast tumour with what a pathologist annotated.

    36 Spatial Transcriptomics sections of eight patients, A to H (Andersson et al. 2021, Nat Commun 12:6012). A1, B1,
    C1, D1, E1, F1, G2 and H1 have labels.

    Parameters
    ----------
    section
        A1 to A6, B1 to B6, C1 to C6, D1 to D6, E1 to E3, F1 to F3, G1 to G3 or H1 to H3.
    image
        Whether to fetch the image, which this package can for B4 and C2 to C6. Coordinates hold for the images in the
        authors' repository: put the path of one into `uns["spatial"][section]["metadata"]["source_image_path"]`, and
        its folder into `settings.image_root`.
    base_url
        A mirror with the folder `data`; None for the original host, or for the mirror that the environment variable
        STALIGN_DATASETS_URL names.

    Returns
    -------
    AnnData, spots x genes:

    - `X`: raw counts, CSR int32;
    - `obs["label"]`: the pathologist's region, categorical, where there is one; `obs["patient"]`;
    - `obs["array_x"]`, `obs["array_y"]`: position on the array;
    - `obsm["spatial"]`: (n, 2) float64, x and y in px of the full-resolution image;
    - `uns["spatial"][section]`: scale factors and metadata, with the path of the image.

    Raises
    ------
    ValueError
        If the section is unknown, or a file has another hash.
    ConnectionError
        If the host cannot be reached and the files were not fetched before.
    FileNotFoundError
        If the host does not have a file.

    Notes
    -----
    Files are kept in `settings.cache_dir / "datasets"`. The authors' repository states no licence.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.datasets.her2st("B1")  # doctest: +SKIP
    """
    known = registry()["her2st"]
    counts = {path.split("/")[-1].removesuffix(".tsv.gz"): path for path in known if "/ST-cnts/" in path}
    one_of(section, sorted(counts), name="section")

    def get(path: str) -> Path:
        return fetch("her2st", path, folder("her2st") / path, host=_HER2ST, base_url=base_url)

    spots = pd.read_csv(get(f"data/ST-spotfiles/{section}_selection.tsv"), sep="\t")
    adata = _read_counts(get(counts[section]), section)
    place = spots.set_axis(_names(section, spots["x"], spots["y"])).reindex(adata.obs_names)
    lost = int(place["pixel_x"].isna().sum())
    if lost:
        logger.warning("%d of %d spots of %s have no position.", lost, adata.n_obs, section)
    adata.obs["array_x"], adata.obs["array_y"] = place["new_x"], place["new_y"]
    adata.obs["patient"] = pd.Categorical([section[0]] * adata.n_obs)
    adata.obsm[Keys.SPATIAL] = place[["pixel_x", "pixel_y"]].to_numpy(np.float64, copy=True)
    label_path = f"data/ST-pat/lbl/{section}_labeled_coordinates.tsv"
    if label_path in known:
        adata.obs["label"] = _labels(get(label_path), adata.obs)
    pitch = _px_per_array_step(place)
    metadata: dict[str, str | float] = {
        "um_per_px": ST_PITCH_UM / pitch,
        "mpp_origin": f"array pitch of {ST_PITCH_UM:g} µm",
    }
    picture = next((path for path in known if path.startswith(f"data/ST-imgs/{section[0]}/{section}/")), None)
    if image and picture is None:
        logger.info("The image of %s has to be fetched by hand; `datasets.her2st` says how.", section)
    if image and picture is not None:
        metadata["source_image_path"] = str(allow(get(picture)))
    factors = {"spot_diameter_fullres": pitch * ST_SPOT_UM / ST_PITCH_UM, "tissue_fullres_scalef": 1.0}
    adata.uns[Keys.UNS_SPATIAL] = {section: {"images": {}, "scalefactors": factors, "metadata": metadata}}
    return adata


def visium(sample: str, *, full_resolution: bool = False) -> AnnData:
    """Fetch one of the Visium sections that 10x Genomics publishes, through squidpy.

    Parameters
    ----------
    sample
        An id of `squidpy.datasets.visium`, such as `V1_Human_Brain_Section_1`.
    full_resolution
        Whether to fetch the full-resolution image as well, which may be some GB.

    Returns
    -------
    AnnData as squidpy gives it, with `var_names` made unique.

    Raises
    ------
    ValueError
        If squidpy does not know the sample.
    ConnectionError
        If the host cannot be reached and the files were not fetched before.

    Notes
    -----
    Files are kept in `settings.cache_dir / "datasets"`; squidpy checks their hashes.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.datasets.visium("V1_Human_Brain_Section_1")  # doctest: +SKIP
    """
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of a dependency of squidpy's, about docstrings
        import squidpy

    where = folder("visium")
    try:
        adata = squidpy.datasets.visium(sample, include_hires_tiff=full_resolution, base_dir=where)
    except OSError as error:
        if not type(error).__module__.startswith(("requests", "urllib")):
            raise
        hint = f"Connect to the network once, or put the files into {where / sample}"
        found = f"no connection ({type(error).__name__})"
        raise ConnectionError(message(f"Expected to fetch {sample!r}", found=found, hint=hint)) from error
    adata.var_names_make_unique()
    return adata


def _names(section: str, x: pd.Series, y: pd.Series) -> list[str]:
    return [f"{section}_{round(a)}x{round(b)}" for a, b in zip(x, y, strict=True)]


def _read_counts(path: Path, section: str) -> AnnData:
    from anndata import AnnData
    from scipy import sparse

    table = pd.read_csv(path, sep="\t", index_col=0)
    adata = AnnData(
        sparse.csr_matrix(table.to_numpy(dtype=np.int32)),
        obs=pd.DataFrame(index=[f"{section}_{name}" for name in table.index]),
        var=pd.DataFrame(index=table.columns.astype(str)),
    )
    adata.var_names_make_unique()
    return adata


def _labels(path: Path, obs: pd.DataFrame) -> pd.Categorical:
    """Labels of the spots, found by their measured position on the array, which the file gives to three decimals."""
    table = pd.read_csv(path, sep="\t").dropna(subset=["x", "y"])
    by_place = {
        (round(x, 3), round(y, 3)): label for x, y, label in zip(table["x"], table["y"], table["label"], strict=True)
    }
    found = [by_place.get((round(x, 3), round(y, 3))) for x, y in zip(obs["array_x"], obs["array_y"], strict=True)]
    return pd.Categorical(found)


def _px_per_array_step(place: pd.DataFrame) -> float:
    """Px between neighbouring spots, from a line through array and image positions."""
    steps = [
        np.polyfit(place[array].dropna(), place[px].dropna(), 1)[0]
        for array, px in (("new_x", "pixel_x"), ("new_y", "pixel_y"))
    ]
    return float(np.mean(np.abs(steps)))
