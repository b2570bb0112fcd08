"""The folder of sections that the benchmark scripts and the configurations read, from another folder or the network."""

from __future__ import annotations

import json
import shutil
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.datasets._public import dlpfc, her2st

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

_HER2ST = [f"{patient}{i}" for patient in "ABCDEF" for i in range(1, 4 if patient in "EF" else 7)]


@cache
def layout() -> dict[str, dict[str, Any]]:
    """Read which files the folder has, what each must hold, and where it is from."""
    return dict(json.loads(files("stalign.datasets").joinpath("layout.json").read_text(encoding="utf-8")))


def build(
    out: str | Path, source: str | Path | None = None, *, copy: bool = False, base_url: str | None = None
) -> pd.DataFrame:
    """Make the folder of sections that `benchmarks/` and the recipes in `configs/` read.

    Parameters
    ----------
    out
        The folder; what is in it already is checked and left.
    source
        A folder that has the files, in the same layout; they are checked and linked. None, or for what is not there:
        sections that `datasets.dlpfc` and `datasets.her2st` fetch are fetched and written.
    copy
        Copy files instead of linking them. Where the system makes no links, they are copied.
    base_url
        A mirror with a folder for each data set, as in STALIGN_DATASETS_URL; None for the original hosts.

    Returns
    -------
    A row per file of the layout: `file`, `state` (`there`, `linked`, `copied`, `fetched` or `missing`), `why` it is
    missing or how it differs, `source` and `cite`.

    Raises
    ------
    FileNotFoundError
        If `source` is no folder.
    ValueError
        If `out` is a file, or the same folder as `source`.

    Notes
    -----
    A section that was fetched has all genes, while the figures in `benchmarks/results` are of tables of selected genes
    (DLPFC) and of images from other sources (her2st); so scores differ from those. Images of her2st that are not
    fetched are listed in `datasets.her2st`.

    Examples
    --------
    >>> import stalign as st
    >>> st.datasets.build("data", "other/data")  # doctest: +SKIP
    """
    out = Path(out).expanduser()
    given = None if source is None else Path(source).expanduser()
    if given is not None and not given.is_dir():
        raise FileNotFoundError(message("Expected `source` to be a folder", found=f"nothing at {given}"))
    if out.exists() and not out.is_dir():
        raise ValueError(message("Expected `out` to be a folder", found=f"the file {out}"))
    if given is not None and out.exists() and out.samefile(given):
        raise ValueError(message("Expected `out` to be another folder than `source`", found=str(out)))
    rows = []
    for name, facts in layout().items():
        state, why = _one(name, facts, out, given, copy=copy, base_url=base_url)
        rows.append({"file": name, "state": state, "why": why, "source": facts["source"], "cite": facts["cite"]})
        logger.info("%s: %s%s", name, state, f" ({why})" if why else "")
    return pd.DataFrame(rows)


def _one(
    name: str, facts: Mapping[str, Any], out: Path, given: Path | None, *, copy: bool, base_url: str | None
) -> tuple[str, str]:
    """Put one file in its place: what happened, and why it did not."""
    target, why = out / name, ""
    if target.exists():
        why = _lacks(target, facts)
        return ("missing", f"{target} is there, but {why}") if why else ("there", "")
    if given is not None and (given / name).exists():
        why = _lacks(given / name, facts)
        if not why:
            return _placed(given / name, target, copy=copy), ""
        why = f"{given / name}: {why}; "
    if facts["source"] not in ("dlpfc", "her2st"):
        return "missing", f"{why}no fetcher reads {facts['source']}"
    mirror = None if base_url is None else f"{base_url.rstrip('/')}/{facts['source']}"
    try:
        adata = _dlpfc(target.stem, mirror) if facts["source"] == "dlpfc" else _her2st(mirror)
    except (OSError, ValueError) as error:
        return "missing", f"{why}{error}"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}")
    adata.write_h5ad(part, compression="gzip")
    part.replace(target)
    return "fetched", "all genes, so figures differ from those of benchmarks/results"


def _lacks(path: Path, facts: Mapping[str, Any]) -> str:
    """What a file lacks, or ""."""
    if path.suffix != ".h5ad":
        return ""
    from anndata import read_h5ad

    try:
        table = read_h5ad(path, backed="r")
    except (OSError, ValueError, KeyError) as error:
        return f"it cannot be read ({type(error).__name__}: {error})"
    try:
        lacking = [f"obs[{key!r}]" for key in facts.get("obs", ()) if key not in table.obs]
        lacking += [f"var[{key!r}]" for key in facts.get("var", ()) if key not in table.var]
        lacking += [] if Keys.SPATIAL in table.obsm else [f"obsm[{Keys.SPATIAL!r}]"]
        lacking += [f"its image {name}" for name in _images(table) if not (path.parent / name).is_file()]
    finally:
        table.file.close()
    return f"it lacks {', '.join(lacking[:4])}" if lacking else ""


def _images(table: AnnData) -> list[str]:
    """Names of the image files of a table's sections, relative to its folder."""
    entries = [value.get("metadata", {}) for value in table.uns.get(Keys.UNS_SPATIAL, {}).values()]
    return sorted({str(entry["image_file"]) for entry in entries if entry.get("image_file")})


def _placed(found: Path, target: Path, *, copy: bool) -> str:
    """Link or copy a file, with the images that lie beside it, or a folder."""
    if found.is_dir():
        return _whole(found, target, copy=copy)
    state = _whole(found, target, copy=copy)
    if found.suffix == ".h5ad":
        from anndata import read_h5ad

        table = read_h5ad(found, backed="r")
        names = _images(table)
        table.file.close()
        for name in names:
            if not (target.parent / name).exists():
                _whole(found.parent / name, target.parent / name, copy=copy)
    return state


def _whole(found: Path, target: Path, *, copy: bool) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        try:
            target.symlink_to(found.resolve(), target_is_directory=found.is_dir())
        except OSError:
            logger.debug("%s cannot be linked, so it is copied.", found)
        else:
            return "linked"
    if found.is_dir():
        shutil.copytree(found, target)
    else:
        shutil.copy2(found, target)
    return "copied"


def _dlpfc(section: str, mirror: str | None) -> AnnData:
    adata = dlpfc(section, image="lowres", base_url=mirror)
    adata.obs["sum_umi"] = np.asarray(adata.X.sum(axis=1)).ravel()
    adata.var["gene_name"] = adata.var_names.astype(str)
    return adata


def _her2st(mirror: str | None) -> AnnData:
    """All sections of the patients A to F in one table, as the scripts read them."""
    from anndata import concat

    parts = []
    for section in _HER2ST:
        part = her2st(section, image=False, base_url=mirror)
        part.obs["section"] = section
        parts.append(part)
    whole = concat(parts, join="outer", fill_value=0)
    whole.uns[Keys.UNS_SPATIAL] = {
        section: part.uns[Keys.UNS_SPATIAL][section] for section, part in zip(_HER2ST, parts, strict=True)
    }
    for key in ("label", "section", "patient"):
        whole.obs[key] = whole.obs[key].astype("category")
    return whole
