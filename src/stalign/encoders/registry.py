"""The registry of encoders: one card each, found by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stalign._validate import message
from stalign.encoders.gene_cards import GENE_CARDS
from stalign.encoders.image_cards import IMAGE_CARDS
from stalign.encoders.timm_cards import PREFIX, timm_card

if TYPE_CHECKING:
    import pandas as pd

    from stalign.encoders.card import Card

_CARDS: dict[str, Card] = {card.name: card for card in (*IMAGE_CARDS, *GENE_CARDS)}
_ALIASES = {
    "hoptimus0": "h-optimus-0",
    "uni2h": "uni2-h",
    "hibou": "hibou-b",
    "clip": "clip-vit-b32",
    "color": "colour",
    "lite0": "efficientnet-lite0",
}
_COLUMNS = (
    "modality", "dim", "input_px", "input_um", "mean", "std", "n_parameters", "licence", "commercial", "gated",
    "access", "repo", "revision", "citation", "url", "note",
)  # fmt: skip


def register(card: Card, *, replace: bool = False) -> Card:
    """Add an encoder to the registry.

    Parameters
    ----------
    card
        The encoder.
    replace
        Whether to replace an encoder of the same name.

    Returns
    -------
    The card.

    Raises
    ------
    ValueError
        If the name is taken and `replace` is False.

    Examples
    --------
    >>> import numpy as np
    >>> import stalign
    >>> from stalign.encoders import Card
    >>> class Mean:
    ...     def encode(self, patches):
    ...         return patches.mean((1, 2)).astype(np.float32)
    >>> card = Card("mean-rgb", "image", lambda card, path, **rest: Mean(), width=3, input_px=8)
    >>> stalign.encoders.register(card, replace=True).dim
    3
    """
    if card.name in _CARDS and not replace:
        hint = "Choose another name or pass `replace=True`"
        raise ValueError(message("Expected a name that is not registered", found=repr(card.name), hint=hint))
    _CARDS[card.name] = card
    return card


def get(encoder: str | Card, **options: Any) -> Card:
    """Find an encoder's card.

    Parameters
    ----------
    encoder
        A registered name; `timm:` and the name of a network of timm, such as `timm:vit_small_patch16_224`; or a card,
        which is returned with the options.
    options
        Settings of the encoder, such as `pool="cls+mean"`; the card lists them.

    Returns
    -------
    The card.

    Raises
    ------
    KeyError
        If no encoder has the name, or it has no such option.
    ValueError
        If an option does not take the value.
    ImportError
        If a network of timm is asked for and timm is not installed.

    Examples
    --------
    >>> import stalign
    >>> stalign.encoders.get("virchow2").dim
    2560
    >>> stalign.encoders.get("virchow2", pool="cls").dim
    1280
    """
    if not isinstance(encoder, str):
        return encoder.with_options(**options)
    if encoder.startswith(PREFIX):
        return timm_card(encoder).with_options(**options)
    name = encoder.lower()
    name = _ALIASES.get(name, name)
    if name not in _CARDS:
        hint = "See `stalign.encoders.list()`, or add yours with `stalign.encoders.register()`"
        raise KeyError(message("Expected a registered encoder", found=repr(encoder), available=_CARDS, hint=hint))
    return _CARDS[name].with_options(**options)


def table(modality: str | None = None) -> pd.DataFrame:
    """List the registered encoders.

    Parameters
    ----------
    modality
        `image`, `gene`, or None for both.

    Returns
    -------
    One row per encoder, indexed by name: modality, length of the embedding, input size (px, µm), normalisation,
    parameters, licence, commercial use, gate, source and citation. `gated` and `commercial` are None where the
    sources disagree or say nothing.

    Examples
    --------
    >>> import stalign
    >>> stalign.encoders.list("gene")["dim"]["scgpt"]
    np.int64(512)
    """
    import pandas as pd

    cards = [card for card in _CARDS.values() if modality in (None, card.modality)]
    rows = [[getattr(card, column) for column in _COLUMNS] for card in cards]
    return pd.DataFrame(rows, index=pd.Index([card.name for card in cards], name="name"), columns=list(_COLUMNS))


def loader_of(card: Card) -> Any:
    """Import the function that loads an encoder.

    Parameters
    ----------
    card
        The encoder.

    Returns
    -------
    A function of the card, the weights path, and the keywords `device`, `precision` and `seed`.
    """
    if not isinstance(card.loader, str):
        return card.loader
    module, _, function = card.loader.partition(":")
    return getattr(import_module(module), function)
