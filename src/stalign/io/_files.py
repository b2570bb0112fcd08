"""Files of a folder: which one is meant, and errors that name the one that can't be read."""

from __future__ import annotations

import gzip
import json
from contextlib import contextmanager
from fnmatch import fnmatch
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._constants import Keys
from stalign._validate import message
from stalign.data.files import allow
from stalign.data.image_files import level_sizes
from stalign.data.names import safe_key
from stalign.data.numbers import number
from stalign.data.pixels import read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

SMALL_PX = 25_000_000  # images of up to as many px are put into the object, larger ones stay on disk
AGAIN = "Copy or fetch the file again: it may be cut short"
_IMAGES = (".tif", ".tiff", ".ome.tif", ".ome.tiff", ".btf", ".svs", ".ndpi", ".png", ".jpg", ".jpeg", ".jp2", ".bmp")
_GZIP = b"\x1f\x8b"


def folder(path: str | Path) -> Path:
    """Get the absolute path of a folder that is there."""
    found = Path(path).expanduser().resolve()
    if not found.exists():
        raise FileNotFoundError(
            message("Expected a folder", found=f"nothing at {found}", available=listing(found.parent))
        )
    if not found.is_dir():
        packed = found.suffix.lower() in {".zip", ".tar", ".gz", ".tgz"}
        hint = "Unpack it and pass the folder" if packed else "Pass its folder"
        raise FileNotFoundError(message("Expected a folder", found=f"the file {found}", hint=hint))
    return found


def listing(where: Path) -> list[str]:
    """List a folder for messages: names, sorted, folders with a slash."""
    if not where.is_dir():
        return []
    return sorted(path.name + ("/" if path.is_dir() else "") for path in where.iterdir())


def first(where: Path, names: Iterable[str], *, what: str, hint: str = "") -> Path:
    """Find the first of several files or patterns, the best first; names that start with a dot fit no pattern."""
    names = list(names)
    for name in names:
        exact = where / name
        hits = [exact] if exact.exists() else [hit for hit in sorted(where.glob(name)) if hit.name[0] != "."]
        if len(hits) > 1:
            found = ", ".join(hit.name for hit in hits)
            hint = hint or "Move the others elsewhere"
            raise ValueError(message(f"Expected one file with {what} in {where}", found=found, hint=hint))
        if hits:
            return hits[0]
    raise absent(where, names, what=what, hint=hint)


def absent(where: Path, names: Iterable[str], *, what: str, hint: str = "") -> FileNotFoundError:
    """Make the error for a file that is not there."""
    names, there = list(names), listing(where if where.is_dir() else where.parent)
    packed = [name for name in there if any(fnmatch(name, f"{wanted}.gz") for wanted in names)]
    return FileNotFoundError(
        message(
            f"Expected {what} in {where} ({' or '.join(names)})",
            found="no such file" if where.is_dir() else "no such folder",
            available=there,
            hint=f"Unpack {packed[0]} with gunzip" if packed else hint,
        )
    )


@contextmanager
def read_errors(what: str, file: Path, *, hint: str = AGAIN) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into an error that names the file."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        own = error.__cause__ if str(error).startswith("Expected") else None
        cause = str(own or error).split("\n")[0]
        raise ValueError(
            message(
                f"Expected {what}", found=f"{file}, which can't be read ({type(error).__name__}: {cause})", hint=hint
            )
        ) from error


def content(file: Path) -> bytes:
    """Read a file, unpacked if it is gzipped, whatever its suffix."""
    found = file.read_bytes()
    return gzip.decompress(found) if found.startswith(_GZIP) else found


def is_gzip(file: Path) -> bool:
    """Find out whether a file is gzipped, whatever its suffix."""
    with file.open("rb") as handle:
        return handle.read(2) == _GZIP


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object in any UTF, with or without a byte order mark, gzipped or not."""
    try:
        found = json.loads(content(file))
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(message(f"Expected a JSON object in {file}", found=str(error), hint=AGAIN)) from error
    if not isinstance(found, dict):
        raise ValueError(message(f"Expected a JSON object in {file}", found=f"a {type(found).__name__}"))
    return found


def scale_factors(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Get scale factors with numbers as floats, without those that are None."""
    named = ("spot_diameter_fullres", "microns_per_pixel", "bin_size_um")
    return {
        key: number(values, key, where=where) if key in named or key.endswith("_scalef") else value
        for key, value in values.items()
        if value is not None
    }


def image_file(where: Path, stem: str) -> Path | None:
    """Find the image of a name; files beside it that are no images, such as outlines, are not looked at."""
    there = {path.name.lower(): path for path in where.glob(f"{escape(stem)}.*")}
    return next((there[name] for suffix in _IMAGES if (name := f"{stem}{suffix}".lower()) in there), None)


def image_size(file: Path, *, hint: str) -> tuple[int, int]:
    """Read height and width of an image."""
    with read_errors("an image", file, hint=hint):
        return level_sizes(file)[0]


def read_image(file: Path, *, hint: str) -> NDArray[np.uint8]:
    """Read an image as RGB."""
    with read_errors("an image", file, hint=hint):
        return read_file(file)


def put_image(entry: dict[str, Any], key: str, file: Path, *, hint: str) -> None:
    """Put the path of an image that may be opened into a section's entry, and the pixels of a small one."""
    height, width = image_size(file, hint=hint)
    if height * width <= SMALL_PX:
        entry.setdefault("images", {})[key] = read_image(file, hint=hint)
    entry["metadata"] |= {"image_key": key, "source_image_path": str(allow(file))}


def put_entry(adata: AnnData, name: str, entry: dict[str, Any]) -> None:
    """Make an entry the only one of uns["spatial"], with the section's name in it where it can't be the key."""
    key = safe_key(name)
    if key != name:
        entry["metadata"]["name"] = name
    adata.uns[Keys.UNS_SPATIAL] = {key: entry}
