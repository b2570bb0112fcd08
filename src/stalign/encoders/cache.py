"""Features on disk, found by the content that they were made from."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._files import move
from stalign._settings import logger

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VERSION = 1  # goes up when patches are cut or prepared in another way


class FeatureCache:
    """Chunks of features, one file each.

    A chunk's name is a hash of its input (the patches' pixels, or the counts) and of all that turns input into
    features. A file is written under another name and then moved, so that what is there is whole: an interrupted run
    goes on where it stopped.

    Parameters
    ----------
    folder
        Where the files are; None for no cache.
    scope
        All that decides the features besides the input: encoder, weights, options, precision.
    """

    def __init__(self, folder: Path | None, scope: str) -> None:
        self.folder = folder
        self.scope = f"{_VERSION}:{scope}"
        self.hits = 0
        self._unread: set[str] = set()  # files that may be sound: left as they are

    def key(self, *parts: NDArray[Any] | bytes) -> str:
        """Hash an input.

        Parameters
        ----------
        parts
            Arrays or bytes.

        Returns
        -------
        The name of its chunk.
        """
        digest = hashlib.blake2b(self.scope.encode(), digest_size=20)
        for part in parts:
            view = memoryview(part)  # type: ignore[arg-type]
            digest.update(f"{view.shape}{view.format}".encode())
            digest.update(view.cast("B") if view.nbytes else b"")
        return digest.hexdigest()

    def get(self, key: str, shape: tuple[int, int]) -> NDArray[np.float32] | None:
        """Find a chunk.

        Parameters
        ----------
        key
            Its name.
        shape
            Its rows and columns.

        Returns
        -------
        Features, `shape` float32, or None where there are none, or only a file that is damaged or cannot be read.
        """
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            found: Any = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            if getattr(error, "errno", None) is None:
                logger.warning("The cached features in %s are damaged (%s) and made anew.", path, error)
            else:
                logger.warning(
                    "The cached features in %s cannot be read (%s): computed, and left as they are.", path, error
                )
                self._unread.add(key)
            return None
        if found.shape != shape or found.dtype != np.float32:
            return None
        self.hits += 1
        return np.asarray(found)

    def put(self, key: str, features: NDArray[np.float32]) -> None:
        """Keep a chunk in the place of none or a damaged one; go on without a cache where it can't be written to.

        Parameters
        ----------
        key
            Its name.
        features
            (n, dim) float32.
        """
        if self.folder is None or key in self._unread:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as stream:
                    np.save(stream, features, allow_pickle=False)
                move(Path(name), path)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("Features are not cached: %s can't be written to (%s).", self.folder, error)
            self.folder = None

    def _path(self, key: str) -> Path:
        return Path(self.folder or "") / key[:2] / f"{key}.npy"
