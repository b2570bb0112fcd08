"""Reading of h5ad files whose images lie beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.data.pixels import file_levels, read_file
from stalign.io._files import SMALL_PX, listing

if TYPE_CHECKING:
    from anndata import AnnData


def read_h5ad(path: str | Path, *, image: bool = True) -> AnnData:
    """Read an h5ad file and find the images that it names.

    Parameters
    ----------
    path
        The file.
    image
        Whether to look for images that `uns["spatial"][library]["metadata"]["image_file"]` names relative to the file's
        folder.

    Returns
    -------
    AnnData. Images of up to 25 million px are in `uns["spatial"][library]["images"]` under the name in
    `metadata["image_key"]`; of larger ones, `metadata["source_image_path"]` has the absolute path, and they are read
    when first needed.

    Raises
    ------
    FileNotFoundError
        If the file is not there, or a folder.
    ValueError
        If it is no h5ad file, or not a whole one.

    Examples
    --------
    >>> import stalign as st, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "toy.h5ad"
    >>> st.datasets.toy(n_rows=8).write_h5ad(path)
    >>> st.io.read_h5ad(path).n_vars
    870
    """
    import anndata

    path = Path(path).expanduser().resolve()
    if not path.is_file():
        found = f"the folder {path}" if path.is_dir() else f"nothing at {path}"
        hint = "`stalign.io.read_visium` reads a Space Ranger folder" if path.is_dir() else ""
        near = [name for name in listing(path.parent) if name.endswith(".h5ad")] if not path.is_dir() else None
        raise FileNotFoundError(message("Expected an h5ad file", found=found, available=near, hint=hint))
    try:
        adata = anndata.read_h5ad(path)
    except (OSError, KeyError) as error:
        cause = str(error).split("\n")[0]
        raise ValueError(message("Expected an h5ad file", found=f"{path}, which can't be read ({cause})")) from error
    if image:
        for library, entry in adata.uns.get(Keys.UNS_SPATIAL, {}).items():
            attach(entry, path.parent, library)
    return adata


def attach(entry: dict[str, Any], where: Path, library: str) -> None:
    """Find the image file of a library: put a small image into its entry, and the path of a large one.

    Parameters
    ----------
    entry
        The library's part of uns["spatial"]; it is changed.
    where
        Folder that `image_file` is relative to.
    library
        Name of the library, for the log.
    """
    metadata = entry.get("metadata", {})
    name = metadata.get("image_file")
    key = str(metadata.get("image_key", "fullres"))
    if not name or key in entry.get("images", {}):
        return
    file = (where / str(name)).resolve()
    if not file.is_file():
        logger.warning("The image of section %r is not at %s.", library, file)
        return
    metadata["source_image_path"] = str(file)
    height, width = file_levels(file)[0]
    if height * width <= SMALL_PX:
        entry.setdefault("images", {})[key] = read_file(file)
