"""The files of scGPT: args.json, the weights with their old and new names, and vocab.json."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import torch

from stalign._validate import message, one_of
from stalign.encoders.runtime import PRECISIONS, pick_device
from stalign.encoders.scgpt import ScGPT, ScGPTConfig, embed
from stalign.encoders.state import assign, read_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import scipy.sparse as sp
    from numpy.typing import NDArray

    from stalign.encoders.card import Card

_FLASH = re.compile(
    r"\.self_attn\.(?:_impl\.)?Wqkv\."
)  # flash attention's names; rows are query, key, value as in torch
_IMPL = re.compile(r"\.self_attn\._impl\.")
_OTHER_PARTS = tuple(
    rf"{part}\."
    for part in ("decoder", "mvc_decoder", "cls_decoder", "flag_encoder", "grad_reverse_discriminator", "batch_encoder")
)
_RANDOM_TOKENS = 60_697  # rows of the published checkpoint


class ScGPTEncoder:
    """scGPT on counts.

    Parameters
    ----------
    model
        The network.
    vocabulary
        Row of the gene embedding by symbol; empty for random weights, whose rows are those of the table's own genes.
    options
        `sample`, `max_length` and `seed`.
    device
        Where it runs.
    precision
        `fp32` or `bf16`.
    """

    def __init__(
        self,
        model: ScGPT,
        vocabulary: Mapping[str, int],
        *,
        options: Mapping[str, Any],
        device: torch.device,
        precision: str,
    ) -> None:
        self.model = model.eval().requires_grad_(requires_grad=False).to(device)
        self.vocabulary = tuple(vocabulary)
        self.rows = torch.tensor(list(vocabulary.values()), dtype=torch.int64).numpy()
        self.options = dict(options)
        self.device = device
        self.precision = precision

    def encode(self, counts: sp.csr_matrix, names: Sequence[str]) -> NDArray[np.float32]:
        """Embed cells, spots or niches.

        Parameters
        ----------
        counts
            Raw counts in the order of `vocabulary`, CSR (n, n_genes).
        names
            Name of each row, (n,), which seeds its ties and its sample.

        Returns
        -------
        Embeddings of unit length, (n, 512) float32; NaN for rows without a count.

        Raises
        ------
        ValueError
            If there are more genes than rows of a random embedding.
        """
        counts = counts.tocsr().copy()
        width = self.model.config.n_tokens
        if not self.vocabulary and counts.shape[1] > width - 3:
            raise ValueError(message(f"Expected at most {width - 3} genes", found=counts.shape[1]))
        if self.vocabulary:
            counts.indices = self.rows[counts.indices]
        counts.resize((counts.shape[0], width))
        given = {key: self.options[key] for key in ("sample", "max_length", "seed")}
        return embed(self.model, counts, names, device=self.device, precision=self.precision, **given)


def load(
    card: Card, path: Path | None, *, device: str | None = None, precision: str = "fp32", seed: int = 0
) -> ScGPTEncoder:
    """Load scGPT from its authors' folder.

    Parameters
    ----------
    card
        The encoder.
    path
        Folder with args.json, vocab.json and best_model.pt or a safetensors copy of it; the weights file in such a
        folder; or None for random parameters.
    device
        Torch device.
    precision
        `fp32` or `bf16`.
    seed
        Of random parameters.

    Returns
    -------
    The encoder.

    Raises
    ------
    FileNotFoundError
        If the vocabulary is not beside the weights.
    ValueError
        If the checkpoint is of another kind, or its files do not fit each other.
    """
    one_of(precision, PRECISIONS, name="precision")
    kwargs: dict[str, Any] = {"options": card.options, "device": pick_device(device), "precision": precision}
    if path is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = ScGPT(ScGPTConfig(_RANDOM_TOKENS))
        return ScGPTEncoder(model, {}, **kwargs)
    folder = path if path.is_dir() else path.parent
    state = renamed(read_state(path))
    vocabulary, cls_id = read_vocabulary(folder, len(state.get("encoder.embedding.weight", ())))
    with torch.device("meta"):
        model = ScGPT(read_config(folder, n_tokens=len(state["encoder.embedding.weight"]), cls_id=cls_id))
    assign(model, state, ignore=_OTHER_PARTS, name=card.name)
    return ScGPTEncoder(model, vocabulary, **kwargs)


def renamed(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Turn the names of flash attention into torch's.

    Parameters
    ----------
    state
        Tensors of the checkpoint.

    Returns
    -------
    The same tensors by other names.
    """
    plain = {_FLASH.sub(".self_attn.in_proj_", name): value for name, value in state.items()}
    return {_IMPL.sub(".self_attn.", name): value for name, value in plain.items()}


def read_config(folder: Path, *, n_tokens: int, cls_id: int) -> ScGPTConfig:
    """Read the sizes of a checkpoint.

    Parameters
    ----------
    folder
        With args.json; the published sizes hold where there is none.
    n_tokens
        Rows of the gene embedding.
    cls_id
        Row of the class token.

    Returns
    -------
    The sizes.

    Raises
    ------
    ValueError
        If values are embedded in another way than the published model does.
    """
    file = folder / "args.json"
    args = json.loads(file.read_text()) if file.is_file() else {}
    if args.get("input_emb_style", "continuous") != "continuous":
        raise ValueError(message("Expected a checkpoint with `continuous` values", found=repr(args["input_emb_style"])))
    names = {"embsize": "embsize", "nheads": "nhead", "d_hid": "d_hid", "nlayers": "nlayers", "n_bins": "n_bins"}
    given = {new: int(args[old]) for old, new in names.items() if old in args}
    return ScGPTConfig(n_tokens, cls_id=cls_id, pad_value=float(args.get("pad_value", -2)), **given)


def read_vocabulary(folder: Path, n_tokens: int) -> tuple[dict[str, int], int]:
    """Read the vocabulary of a checkpoint.

    Parameters
    ----------
    folder
        With vocab.json: rows of the gene embedding by symbol. Where it lacks the special tokens, they are taken to
        follow the genes as `<pad>`, `<cls>`, `<eoc>`.
    n_tokens
        Rows of the gene embedding.

    Returns
    -------
    Rows by symbol without the special tokens, and the row of the class token.

    Raises
    ------
    FileNotFoundError
        If there is no vocab.json.
    ValueError
        If it does not fit the embedding.
    """
    file = folder / "vocab.json"
    if not file.is_file():
        hint = "It comes with the weights in the authors' folder; the hub's copies of the weights lack it"
        raise FileNotFoundError(message("Expected vocab.json beside the weights of scGPT", found=folder, hint=hint))
    vocabulary = json.loads(file.read_text())
    rows = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    cls_id = vocabulary.get("<cls>") if rows else None
    if rows and cls_id is None and len(rows) + 3 == n_tokens:
        cls_id = len(rows) + 1
    if cls_id is None or len(set(rows)) != len(rows) or min(rows) < 0 or max(rows) >= n_tokens:
        found = f"{len(rows)} entries for an embedding of {n_tokens} rows"
        raise ValueError(message("Expected vocab.json to fit the weights, with a row for `<cls>`", found=found))
    return {gene: row for gene, row in vocabulary.items() if not gene.startswith("<")}, cls_id
