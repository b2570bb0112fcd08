"""Weights from the Hugging Face hub, by `hf://organisation/name`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._optional import require
from stalign._settings import settings
from stalign._validate import message, text_of
from stalign.models.checkpoint import load
from stalign.models.checkpoint_files import CONFIG_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stalign.models.checkpoint import Checkpoint

SCHEME = "hf://"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_TOKEN = "make a token at https://huggingface.co/settings/tokens and run `hf auth login` or set HF_TOKEN"


def from_hub(name: str, *, device: Any = "cpu") -> Checkpoint:
    """Load weights from the Hugging Face hub, or from its cache where they are there and the network is off.

    Parameters
    ----------
    name
        `hf://organisation/name`, or `hf://organisation/name@revision` for a branch, tag or commit.
    device
        Where the network goes.

    Returns
    -------
    The weights. Nothing that is downloaded is run: they are safetensors and JSON.

    Raises
    ------
    ValueError
        If it is no name of a repository, or what it holds is no sound checkpoint.
    FileNotFoundError
        If there is no such repository, revision or checkpoint in it; or not in the cache, with the network off.
    PermissionError
        If the hub asks for access.
    ConnectionError
        If the hub cannot be reached.
    ImportError
        If huggingface_hub is not installed.
    """
    parts = parsed(name)
    hub = require("huggingface_hub", purpose=f"Loading {name!r}", extra="hub")
    given = {"repo_id": parts["repo"], "endpoint": endpoint(), "local_files_only": settings.offline}
    try:
        config = Path(hub.hf_hub_download(filename=CONFIG_FILE, revision=parts["revision"], **given))
        # The same commit, should somebody upload in between.
        hub.hf_hub_download(filename=WEIGHTS_FILE, revision=config.parent.name, **given)
    except Exception as error:
        raise explained(error, name, "send") from error
    return load(config.parent, device=device)


def parsed(name: str) -> dict[str, str]:
    """Split the name of a repository into `repo` and `revision`, which may be None."""
    found = _NAME.fullmatch(str(name).removeprefix(SCHEME))
    if found is None:
        expected = "Expected the name of a repository on the hub, `organisation/name` or `user/name`"
        raise ValueError(message(expected, found=repr(name)))
    return found.groupdict()


def endpoint() -> str | None:
    """Return the address of the hub where `HF_ENDPOINT` names another."""
    return os.environ.get("HF_ENDPOINT") or None


def explained(error: BaseException, name: str, what: str) -> Exception:
    """Say in this package's words what the hub did not do."""
    expected = f"Expected the hub to {what} {name}"
    links = list(_chain(error))
    answers = [getattr(link, "response", None) for link in links]
    status = next((answer.status_code for answer in answers if answer is not None), None)
    if status in (401, 403):
        hint = f"If it is private or gated, or yours to write to, {_TOKEN}"
        return PermissionError(message(expected, found=f"answer {status}", hint=hint))
    if status == 404:
        hint = "Look for the repository, its revision, and for config.json and weights.safetensors in it"
        return FileNotFoundError(message(expected, found="answer 404", hint=hint))
    if (
        any(type(link).__name__ in ("LocalEntryNotFoundError", "OfflineModeIsEnabled") for link in links)
        and status is None
    ):
        hint = "Load it once with the network on, or pass the path of a folder"
        return FileNotFoundError(message(expected, found="not in the cache, and no network", hint=hint))
    return ConnectionError(message(expected, found=f"{type(error).__name__}: {text_of(error)[:300]}", hint="Try again"))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
