"""Reading of h5ad files whose images lie beside them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, MutableMapping
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from stalign._constants import Keys
from stalign._settings import logger, settings
from stalign._validate import message
from stalign.data.files import allow, below, part_of_disk
from stalign.io._files import SMALL_PX, image_size, listing, read_errors, read_image

if TYPE_CHECKING:
    from anndata import AnnData

_NAMES = ("image_file", "source_image_path")


def read_h5ad(path: str | Path, *, image: bool = True, image_root: str | Path | None = None) -> AnnData:
    """Read an h5ad file and find the images that it names.

    Parameters
    ----------
    path
        The file.
    image
        Whether to look for the images that `uns["spatial"][section]["metadata"]` names as `image_file` or
        `source_image_path`, relative to the file's folder or absolute.
    image_root
        A further folder whose images may be opened. None takes `settings.image_root`.

    Returns
    -------
    AnnData. Images of up to 25 million px are in `uns["spatial"][section]["images"]` under the name in
    `metadata["image_key"]`; of larger ones, `metadata["source_image_path"]` has the absolute path, and they are read
    when first needed.

    Raises
    ------
    FileNotFoundError
        If the file is not there, or a folder.
    ValueError
        If it is no h5ad file, or not a whole one, or an image can't be read.

    Warns
    -----
    UserWarning
        If an image is not used because it lies neither below the file's folder nor below `image_root`, links followed;
        its path is then not in the object either. A file from somebody else can name any image of your machine.

    Notes
    -----
    Of an absolute `source_image_path`, the same file name in the file's folder or in `image_root` is tried too, so a
    file can be moved with its images.

    Examples
    --------
    >>> import stalign as st, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "toy.h5ad"
    >>> st.datasets.toy(n_rows=8).write_h5ad(path)
    >>> st.io.read_h5ad(path).n_vars
    870
    """
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        found = f"the folder {path}" if path.is_dir() else f"nothing at {path}"
        hint = "`stalign.io.read_visium` reads a Space Ranger folder" if path.is_dir() else ""
        near = [name for name in listing(path.parent) if name.endswith(".h5ad")] if not path.is_dir() else None
        raise FileNotFoundError(message("Expected an h5ad file", found=found, available=near, hint=hint))
    adata = open_h5ad(path)
    entries = adata.uns.get(Keys.UNS_SPATIAL)
    if image and isinstance(entries, Mapping):
        root = settings.image_root if image_root is None else Path(image_root)
        roots = [path.parent, *([] if root is None else [root.expanduser().resolve()])]
        named = {str(library): _metadata(entry) for library, entry in entries.items()}
        files = Counter(file for metadata in named.values() for file in _base_names(metadata))
        for library, entry in entries.items():
            if named[str(library)]:
                attach(entry, roots, str(library), apart={name for name, n in files.items() if n == 1})
    return adata


def open_h5ad(file: Path) -> AnnData:
    """Read an h5ad file, or say that it is damaged."""
    import anndata

    with read_errors("an h5ad file", file, hint="Copy or fetch the file again: it may be cut short, packed or no h5ad"):
        return anndata.read_h5ad(file)


def _metadata(entry: Any) -> MutableMapping[str, Any]:
    found = entry.get("metadata") if isinstance(entry, Mapping) else None
    return found if isinstance(found, MutableMapping) else {}


def _base_names(metadata: Mapping[str, Any]) -> set[str]:
    """File names without folders, whatever system wrote them."""
    return {PureWindowsPath(metadata[key]).name for key in _NAMES if isinstance(metadata.get(key), str)}


def attach(entry: MutableMapping[str, Any], roots: list[Path], library: str, *, apart: set[str]) -> None:
    """Find the image file of a section below `roots`; of names `apart` from those of other sections, in them too."""
    metadata = entry["metadata"]
    names = [metadata[key] for key in _NAMES if isinstance(metadata.get(key), str) and metadata[key]]
    key = str(metadata.get("image_key", "fullres")) if metadata.get("image_file") is not None else "fullres"
    images = entry.get("images")
    embedded = isinstance(images, Mapping) and key in images
    moved = sorted(_base_names(metadata) & apart)
    there = [file for name in (*names, *moved) for root in roots if (file := _existing(root / name)) is not None]
    inside = [file for file in there if below(file, [part_of_disk(roots[0]), *roots[1:]])]
    if inside:
        metadata["source_image_path"] = str(allow(inside[0]))
        if embedded:
            return
        hint = "Copy or fetch it again, or pass `image=False`"
        height, width = image_size(inside[0], hint=hint)
        if height * width <= SMALL_PX:
            entry["images"] = {**(images if isinstance(images, Mapping) else {}), key: read_image(inside[0], hint=hint)}
    elif there or len(names) < sum(metadata.get(name) is not None for name in _NAMES):
        for name in _NAMES:
            metadata.pop(name, None)
        if there and not embedded:
            warnings.warn(
                message(
                    f"Expected the image of section {library!r} below {' or '.join(map(str, roots))}",
                    found=f"{there[0]}, which is not opened",
                    hint="Pass the folder that it may be read from as `image_root=`",
                ),
                UserWarning,
                stacklevel=3,
            )
    elif metadata.get("image_file") and not embedded:
        file = roots[0] / names[0]
        logger.warning("The image of section %r is not at %s.", library, file)
        metadata["source_image_path"] = str(file)  # else the name would be taken for one in the current folder


def _existing(file: Path) -> Path | None:
    """Follow links to a file; None where there is none."""
    try:
        real = file.resolve()
        return real if real.is_file() else None
    except (OSError, RuntimeError, ValueError):  # too long a name, links in a circle, NUL
        return None
