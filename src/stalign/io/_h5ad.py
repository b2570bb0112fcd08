"""Reading of h5ad files whose images lie beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._constants import Keys
from stalign._settings import logger
from stalign.data.images import file_levels, read_file
from stalign.io._files import SMALL_PX

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
        If the file is not there.

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
    adata = anndata.read_h5ad(path)
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
