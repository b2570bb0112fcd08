"""Files from the network: fetched once with pooch, checked against their hash, kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from stalign._settings import logger, settings
from stalign._validate import message, one_of
from stalign.core.files import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

ENVIRONMENT = "STALIGN_DATASETS_URL"  # a mirror that holds a folder for each data set
_TIMEOUT = 30  # seconds without an answer


@cache
def registry() -> dict[str, dict[str, str]]:
    """Read the hashes of public files.

    Returns
    -------
    For each data set a hash per path: `sha256:` of the content, or `gitblob:`, the SHA-1 by which git knows a file.
    """
    return dict(json.loads(files("stalign.datasets").joinpath("registry.json").read_text(encoding="utf-8")))


@cache
def _known() -> dict[str, dict[str, str]]:
    return dict(json.loads(files("stalign.datasets").joinpath("sources.json").read_text(encoding="utf-8")))


def source_of(dataset: str) -> dict[str, str]:
    """Read where a data set is from: its `url`, `licence`, `citation`, and what checks its files, `check`."""
    return _known()[dataset]


def sources(name: str | None = None) -> pd.DataFrame:
    """List the public data that can be fetched, with their licences.

    Parameters
    ----------
    name
        One of them, such as `her2st`; None for all.

    Returns
    -------
    A row per data set, named as its folder in the cache: `call`, the function that fetches it; `url`, its host;
    `licence`, as its publisher states it; `citation`; and `check`, what a file is checked against.

    Raises
    ------
    ValueError
        If there is no data set of this name.

    Notes
    -----
    Of a file whose hash nobody publishes, that of the first download is kept beside it and checked from then on. That
    tells a file that changed, and not one that was wrong at first.

    Examples
    --------
    >>> import stalign as st
    >>> st.datasets.sources().loc["hgnc", "licence"]
    'CC0-1.0'
    """
    import pandas as pd

    if name is not None:
        one_of(name, _known(), name="name")
    chosen = {key: value for key, value in _known().items() if name in (None, key)}
    return pd.DataFrame.from_dict(chosen, orient="index")


def folder(dataset: str) -> Path:
    """Name the folder of a data set in the cache.

    Parameters
    ----------
    dataset
        Name of the data set.

    Returns
    -------
    `settings.cache_dir / "datasets" / dataset`.
    """
    return settings.cache_dir / "datasets" / dataset


def fetch(
    dataset: str,
    path: str,
    target: Path,
    *,
    host: str,
    base_url: str | None,
    headers: dict[str, str] | None = None,
    gated: str = "",
) -> Path:
    """Fetch a file unless it is there and sound.

    Parameters
    ----------
    dataset
        Name of the data set.
    path
        Path of the file below the host, as in the registry.
    target
        Where the file goes.
    host
        URL that `path` is relative to.
    base_url
        URL to use instead, or None for the mirror in `STALIGN_DATASETS_URL`, if there is one, and else `host`.
    headers
        Headers of the request, sent to `host` alone and to no mirror.
    gated
        How to get access where `host` asks for it, for the message.

    Returns
    -------
    `target`.

    Raises
    ------
    ConnectionError
        If the host cannot be reached.
    FileNotFoundError
        If the host does not give the file.
    PermissionError
        If it asks for access.
    ValueError
        If what it gives has another hash.

    Notes
    -----
    Of a file without a published hash, that of the first download is kept beside it and holds from then on.
    """
    import pooch

    mirror = os.environ.get(ENVIRONMENT)
    root = base_url or (f"{mirror.rstrip('/')}/{dataset}" if mirror else host)
    url = f"{root.rstrip('/')}/{path}"
    noted, old = (target.with_name(f"{dot}{target.name}.sha256") for dot in (".", ""))
    if old.is_file():  # of earlier versions; readers of folders pass over hidden files alone
        old.replace(noted)
    known = registry().get(dataset, {}).get(path)
    if known is None and noted.is_file():
        known = f"sha256:{noted.read_text(encoding='utf-8').strip()}"
    blob = known.removeprefix("gitblob:") if known and known.startswith("gitblob:") else None
    if blob and target.is_file() and git_blob(target) != blob:
        target.unlink()
    loud = pooch.get_logger()
    level = loud.level
    loud.setLevel(logging.WARNING)
    if not target.is_file():
        logger.info("Fetching %s", url)
    try:
        pooch.retrieve(
            url,
            known_hash=None if blob else known,
            fname=target.name,
            path=target.parent,
            downloader=pooch.HTTPDownloader(
                progressbar=settings.show_progress, timeout=_TIMEOUT, headers=headers if root == host else None
            ),
        )
    except OSError as error:  # requests raises its own kinds of it
        _explain(error, url, target, gated)
    except ValueError as error:
        raise ValueError(_wrong_hash(url, known)) from error
    finally:
        loud.setLevel(level)
    if blob and git_blob(target) != blob:
        target.unlink()
        raise ValueError(_wrong_hash(url, known))
    if known is None:
        noted.write_text(sha256_of(target), encoding="utf-8")
    return target


def git_blob(path: Path) -> str:
    """Compute the SHA-1 by which git knows a file: that of its content after the word blob and its length.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    40 hexadecimal digits.
    """
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _wrong_hash(url: str, known: str | None) -> str:
    hint = "The file was changed at its source or on the way: try again, or report it"
    return message(f"Expected {url} to have the hash {known}", found="another", hint=hint)


def _explain(error: OSError, url: str, target: Path, gated: str) -> None:
    """Turn an error of the network into one that says what to do."""
    response = getattr(error, "response", None)
    hint = f"Fetch it by other means and put it at {target}, or name a mirror with `base_url=` or {ENVIRONMENT}"
    if response is not None:
        found = f"the answer {response.status_code} {response.reason}"
        if gated and response.status_code in (401, 403):
            asked = message(f"Expected access to {url}", found=found, hint=f"{gated}. Or: {hint}")
            raise PermissionError(asked) from error
        raise FileNotFoundError(message(f"Expected a file at {url}", found=found, hint=hint)) from error
    if type(error).__module__.startswith("requests"):
        found = f"no connection ({type(error).__name__})"
        raise ConnectionError(message(f"Expected to reach {url}", found=found, hint=hint)) from error
    raise error
