"""Weights shared with others on the Hugging Face hub."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from stalign._optional import require
from stalign._settings import logger, settings
from stalign._validate import message
from stalign.models.card import card
from stalign.models.checkpoint import load, save
from stalign.models.checkpoint_files import CONFIG_FILE, WEIGHTS_FILE
from stalign.models.hub import SCHEME, endpoint, explained, parsed
from stalign.models.weights import load_weights

if TYPE_CHECKING:
    import os

    from stalign.models.checkpoint import Checkpoint


def push_to_hub(
    weights: str | os.PathLike[str] | Checkpoint,
    repo: str,
    *,
    private: bool = True,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload weights to the Hugging Face hub, with their card as README.

    Parameters
    ----------
    weights
        Weights, or their name or folder.
    repo
        `organisation/name` or `user/name`; made where there is none.
    private
        Whether a repository that is made is private. The card and `config.json` name the sections, donors and studies
        that the weights were trained on.
    revision
        Branch to upload to; None for `main`.
    token
        Of the hub; None for the one of `hf auth login` or HF_TOKEN.

    Returns
    -------
    What `load_weights` and `tl.embed(weights=...)` take to have exactly these: `hf://organisation/name@commit`.

    Raises
    ------
    ValueError
        If `repo` is no name of a repository.
    PermissionError
        If the hub does not know who you are, or you may not write there.
    ConnectionError
        If the hub cannot be reached, or `settings.offline` is set.
    ImportError
        If huggingface_hub is not installed.

    Examples
    --------
    >>> import stalign as st
    >>> st.models.push_to_hub("runs/mine/weights", "my-lab/mine")  # doctest: +SKIP
    'hf://my-lab/mine@5f1c...'
    """
    name = parsed(repo)["repo"]
    hub = require("huggingface_hub", purpose="Uploading weights", extra="hub")
    found = load_weights(weights)
    if settings.offline:
        raise ConnectionError(message("Expected to be allowed to use the network", found="`settings.offline`"))
    api = hub.HfApi(endpoint=endpoint(), token=token)
    with tempfile.TemporaryDirectory() as folder:
        _write(found, Path(folder))
        (Path(folder) / "README.md").write_text(card(found, SCHEME + name), encoding="utf-8")
        try:
            api.create_repo(name, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(name, branch=revision, exist_ok=True)
            text = f"Weights {found.meta.get('name', found.config.name)}"
            made = api.upload_folder(repo_id=name, folder_path=folder, revision=revision, commit_message=text)
        except Exception as error:
            raise explained(error, name, "take weights for") from error
    logger.info("Uploaded to %s.", made.commit_url)
    return f"{SCHEME}{name}@{made.oid}"


def _write(weights: Checkpoint, folder: Path) -> None:
    """Write weights as they are: the files that they came from, or full precision."""
    if weights.path is not None and load(weights.path).sha256 == weights.sha256:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copy(weights.path / name, folder / name)
        return
    ids = weights.ensembl or None
    save(folder, weights.network, vocabulary=weights.vocabulary, ensembl=ids, meta=weights.meta, fp16=False)
