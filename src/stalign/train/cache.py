"""Sections on disk as plain arrays, mapped into memory by every process that reads them."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stalign._constants import Keys
from stalign._files import move
from stalign._settings import logger
from stalign._validate import message
from stalign.core.expression import LowRank
from stalign.core.gaussian import GaussianMean
from stalign.data.expression import Expression
from stalign.data.images import SectionImage
from stalign.data.spots import SpotReader
from stalign.models.checkpoint_files import flush
from stalign.train.config import resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stalign.models.config import InputSpec
    from stalign.train.slides import Slide

_CLASSES = {cls.__name__: cls for cls in (SectionImage, Expression, LowRank, GaussianMean)}
_CSR = ("data", "indices", "indptr")
_INDEX = "index.json"


class NotKeptError(OSError):
    """What was made of a slide cannot be written; nothing is wrong with the slide."""


@dataclass(frozen=True)
class SectionCache:
    """A folder with one folder of arrays for each thing that took long to make.

    Every process of a run may write to it: a folder is written under a temporary name and moved into place, and
    whoever comes second finds it there.

    Parameters
    ----------
    folder
        Where it is.
    """

    folder: Path

    def get(self, key: str, spec: InputSpec) -> Any:
        """Read a thing, its arrays mapped from disk.

        Parameters
        ----------
        key
            What it was put under.
        spec
            What the network reads, for section readers.

        Returns
        -------
        The thing, or None where there is none, or one that is damaged or cannot be read.
        """
        where = self.folder / key
        if not where.is_dir():
            return None
        try:
            return _unpacked(json.loads((where / _INDEX).read_text(encoding="utf-8")), where, spec)
        except (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, StopIteration) as error:
            if getattr(error, "errno", None) in (None, errno.ENOENT):
                logger.warning("Made anew what is damaged in %s: %s", where, error)
                shutil.rmtree(where, ignore_errors=True)
            else:
                logger.warning("Made anew, and left as it is, what cannot be read from %s: %s", where, error)
            return None

    def put(self, key: str, thing: Any) -> None:
        """Write a thing.

        Parameters
        ----------
        key
            What to find it by.
        thing
            Nested dicts, lists, numbers, text, arrays, CSR matrices, and section readers.

        Raises
        ------
        NotKeptError
            If it cannot be written, as on a full disk; nothing is left behind.
        """
        final = self.folder / key
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=f".{key}-") as folder:
                temporary = Path(folder) / "new"  # made with the usual permissions
                temporary.mkdir()
                index = json.dumps(_packed(thing, temporary, "x"))
                (temporary / _INDEX).write_text(index, encoding="utf-8")
                for path in temporary.iterdir():
                    flush(path)
                if not final.exists():
                    move(temporary, final)
        except OSError as error:
            if not final.exists():  # else another process was first
                hint = "Make room and start again, which finds what is there already"
                expected = f"Cannot write to the store of sections in {str(self.folder)!r}"
                raise NotKeptError(message(expected, found=str(error), hint=hint)) from error


def key_of(slide: Slide, more: Mapping[str, Any]) -> str | None:
    """Name what is made of a slide by all that it depends on.

    Parameters
    ----------
    slide
        The slide.
    more
        What else it depends on, as plain values.

    Returns
    -------
    A key, or None for a slide that is not on disk.
    """
    if slide.data is not None:
        return None
    files = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in _files(slide)]
    facts = {"files": files, "spec": asdict(slide.spec), "version": version("stalign"), **more}
    return hash_of([facts, sorted(slide.orthologs.items()) if slide.orthologs else None])


def hash_of(value: Any) -> str:
    """Hash plain values.

    Parameters
    ----------
    value
        Anything that JSON can hold.

    Returns
    -------
    32 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _files(slide: Slide) -> list[Path]:
    """Files that a slide is read from; of a collection, those that are named after it."""
    path, name = slide.path, slide.spec.slide
    if path.is_file():
        found: Iterable[Path] = [path, *_images(path)]
    elif name is not None:
        parts = ("gene_exp", "coord", "image", "st", "wsis", "metadata")
        own = f"{glob.escape(name)}[._]*"
        found = [f for part in parts for f in (*path.glob(f"{part}/{own}"), *path.glob(f"*/{part}/{own}"))]
    else:
        found = [f for f in path.rglob("*") if f.is_file()]
    given = [resolve(slide.root, where) for where in slide.spec.features.values() if not where.startswith("obsm:")]
    return sorted({*found, *given})


def _images(path: Path) -> list[Path]:
    """Image files beside an h5ad file that it names."""
    import h5py

    found = []
    try:
        with h5py.File(path) as file:
            for entry in file.get(f"uns/{Keys.UNS_SPATIAL}", {}).values():
                names = [entry.get(f"metadata/{key}") for key in ("image_file", "source_image_path")]
                found += [path.parent / name.asstr()[()] for name in names if name is not None]
    except OSError:  # no HDF5; whoever opens the slide says so
        return []
    return [file for file in found if file.is_file()]


def _packed(value: Any, folder: Path, name: str) -> Any:
    if isinstance(value, np.ndarray):
        np.save(folder / f"{name}.npy", value)
        return {"array": f"{name}.npy"}
    if sp.issparse(value):
        parts = {
            part: _packed(getattr(value, part), folder, f"{name}.{part}") for part in ("data", "indices", "indptr")
        }
        return {"csr": parts, "shape": list(value.shape)}
    if isinstance(value, SectionImage):
        value = value.in_memory()
    if isinstance(value, SpotReader) or type(value).__name__ in _CLASSES:
        parts = {
            f.name: _packed(getattr(value, f.name), folder, f"{name}.{f.name}")
            for f in fields(value)
            if f.init and f.name != "spec"
        }
        return {"class": type(value).__name__, "fields": parts}
    if is_dataclass(value):
        raise TypeError(type(value).__name__)
    if isinstance(value, dict):
        return {"dict": {key: _packed(item, folder, f"{name}.{key}") for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"tuple": [_packed(item, folder, f"{name}.{i}") for i, item in enumerate(value)]}
    return {"value": value.item() if isinstance(value, np.generic) else value}


def _unpacked(node: Any, folder: Path, spec: InputSpec) -> Any:
    kind = next(iter(node))
    if kind == "array":
        return np.load(folder / node["array"], mmap_mode="c", allow_pickle=False)  # writes stay in this process
    if kind == "csr":
        arrays = tuple(np.asarray(_unpacked(node["csr"][part], folder, spec)) for part in _CSR)
        return sp.csr_matrix(arrays, shape=node["shape"], copy=False)
    if kind == "class":
        parts = {key: _unpacked(item, folder, spec) for key, item in node["fields"].items()}
        if node["class"] == "SpotReader":
            return SpotReader(spec=spec, **parts)
        return _CLASSES[node["class"]](**parts)
    if kind == "dict":
        return {key: _unpacked(item, folder, spec) for key, item in node["dict"].items()}
    if kind == "tuple":
        return tuple(_unpacked(item, folder, spec) for item in node["tuple"])
    return node["value"]
