"""Weights that training starts from: their genes are mapped one by one to those of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stalign._settings import logger
from stalign._validate import message
from stalign.models.kinds import network_of
from stalign.models.weights import REGISTRY, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from stalign.data import Vocabulary
    from stalign.models.checkpoint import Checkpoint
    from stalign.models.kinds import Network, NetworkConfig
    from stalign.train.store import StoredSection

_LOW = 0.3  # share of the run's genes that the weights know, below which a warning says so


def initial(model: Mapping[str, Any]) -> Checkpoint | None:
    """Read the weights that a run starts from.

    Parameters
    ----------
    model
        `model` of its configuration.

    Returns
    -------
    The weights that `init` names, or None.

    Raises
    ------
    ValueError
        If there are no such weights, or `base` is given as well.
    FileNotFoundError
        If a path leads nowhere.
    """
    given = model.get("init")
    if given is None:
        return None
    if not isinstance(given, str):
        what = "Expected `model.init` to name weights or a folder of weights"
        raise ValueError(message(what, found=repr(given), available=REGISTRY))
    if "base" in model:
        hint = "Leave `model.base` out: the weights of `model.init` say what network they are"
        raise ValueError(message("Expected one of `model.base` and `model.init`", found="both", hint=hint))
    return load_weights(given)


def genes_of(weights: Checkpoint) -> list[tuple[str, str]]:
    """Return the genes that weights know, as symbols with their Ensembl ids, "" where unknown."""
    return list(zip(weights.vocabulary, weights.ensembl or [""] * len(weights.vocabulary), strict=True))


def start_from(network: Network, weights: Checkpoint, vocabulary: Vocabulary) -> dict[str, Any]:
    """Put weights into a network, gene by gene.

    A branch that the configuration makes anew starts at random, as do genes that the weights do not know.

    Parameters
    ----------
    network
        The network of the run; it is changed.
    weights
        The weights.
    vocabulary
        The genes of the run.

    Returns
    -------
    What was taken over, for the `meta` of weights.

    Raises
    ------
    ValueError
        If no gene is known, or something else than a branch does not fit.
    """
    place = _places(vocabulary, weights)
    known = np.flatnonzero(place >= 0)
    if not len(known):
        found = f"{', '.join(vocabulary.symbols[:3])}, ...; the weights know {', '.join(weights.vocabulary[:3])}, ..."
        hint = "Name `orthologs` for other species, or leave `model.init` out"
        raise ValueError(message("Expected genes that the weights of `model.init` know", found=found, hint=hint))
    state, wanted = weights.network.state_dict(), network.state_dict()
    axes, parts = _gene_axes(network.config), _changed_parts(network.config, weights.config)
    wrong = [
        name for name in {**wanted, **state}
        if name not in wanted or name not in state or not _fits(wanted[name], state[name], axes.get(name))
    ]  # fmt: skip
    left = [name for name in wrong if not name.startswith(parts)]
    if left:
        found = f"{len(left)} that differ, such as {left[0]}"
        hint = "Change only branches, losses, input and dropout of `model` beside `init`, or leave `init` out"
        raise ValueError(message("Expected the network to have the shapes of `model.init`", found=found, hint=hint))
    anew = sorted({part for part in parts for name in wrong if name.startswith(part)})
    to, of = torch.from_numpy(known), torch.from_numpy(place[known])
    with torch.no_grad():
        for name, tensor in wanted.items():
            if name.startswith(tuple(anew)):
                continue
            axis = axes.get(name)
            if axis is None:
                tensor.copy_(state[name])
            else:  # tokens that are no genes come before them
                first = tensor.shape[axis] - len(place)
                rows = state[name].index_select(axis, of + state[name].shape[axis] - len(weights.vocabulary))
                tensor.index_copy_(axis, to + first, rows)
                if first == state[name].shape[axis] - len(weights.vocabulary):
                    tensor.narrow(axis, 0, first).copy_(state[name].narrow(axis, 0, first))
    left_out = len(weights.vocabulary) - len(set(place[known].tolist()))
    genes = {"known": len(known), "new": len(place) - len(known), "left_out": left_out}
    record = {
        "weights": weights.config.name,
        "sha256": weights.sha256,
        "genes": genes,
        "new_parts": [part.rstrip(".") for part in anew],
        "changed": _changes(weights.config.to_dict(), network.config.to_dict()),
        "training_data": weights.meta.get("training_data", []),
    }
    if "init" in weights.meta:
        record["before"] = weights.meta["init"]
    _log(record, len(place))
    return record


def warn_seen(weights: Checkpoint, validation: Iterable[StoredSection]) -> None:
    """Warn of sections to validate on, or other sections of their donors, that the weights were trained on.

    Parameters
    ----------
    weights
        What training starts from.
    validation
        The sections to validate on.
    """
    known = weights.meta.get("training_data", [])
    for section in validation:
        for row in known:
            study = _same(row.get("study"), section.study, or_unknown=True)
            if study and (_same(row.get("section"), section.name) or _same(row.get("donor"), section.donor)):
                logger.warning(
                    "The weights of `model.init` were trained on section %s of donor %s: the validation loss of %s "
                    "does not hold for unseen tissue.",
                    row.get("section"),
                    row.get("donor"),
                    section.label,
                )
                break


def _same(a: str | None, b: str | None, *, or_unknown: bool = False) -> bool:
    return a.casefold() == b.casefold() if a and b else or_unknown


def _places(vocabulary: Vocabulary, weights: Checkpoint) -> NDArray[np.int64]:
    """Find each gene of the run among those of the weights, by symbol or else by Ensembl id, (V,); -1 for none."""
    genes = genes_of(weights)
    by_symbol = {symbol.casefold(): i for i, (symbol, _) in enumerate(genes)}
    by_id = {ensembl: i for i, (_, ensembl) in enumerate(genes) if ensembl}
    ids = vocabulary.ensembl or ("",) * len(vocabulary.symbols)
    found = [
        by_symbol.get(symbol.casefold(), by_id.get(ensembl, -1))
        for symbol, ensembl in zip(vocabulary.symbols, ids, strict=True)
    ]
    return np.array(found, np.int64)


def _gene_axes(config: NetworkConfig) -> dict[str, int]:
    """Name the tensors of a network that have an axis of genes, and say which it is."""
    with torch.device("meta"):
        some, more = network_of(config, 2).state_dict(), network_of(config, 3).state_dict()
    axes = {}
    for name, tensor in some.items():
        differ = [i for i, (a, b) in enumerate(zip(tensor.shape, more[name].shape, strict=True)) if a != b]
        if differ:
            axes[name] = differ[0]
    return axes


def _changed_parts(now: Any, before: Any) -> tuple[str, ...]:
    """Name the parts of the network that the configuration has changed."""
    changed = [parts for key, parts in now.parts.items() if getattr(now, key) != getattr(before, key)]
    return tuple(f"{part}." for parts in changed for part in parts)


def _fits(a: torch.Tensor, b: torch.Tensor, axis: int | None) -> bool:
    """Say whether two tensors have one shape, apart from the number of genes."""
    shapes = [[n for i, n in enumerate(tensor.shape) if i != axis] for tensor in (a, b)]
    return shapes[0] == shapes[1]


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> dict[str, list[Any]]:
    """List the keys of a network's configuration that differ, with both values."""
    changes: dict[str, list[Any]] = {}
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changes |= _changes(old, new, f"{where}{key}.")
        elif old != new and where + key != "name":
            changes[where + key] = [old, new]
    return changes


def _log(record: Mapping[str, Any], n_genes: int) -> None:
    genes = record["genes"]
    logger.log(
        30 if genes["known"] < _LOW * n_genes else 20,
        "Starting from %s: it knows %d of %d genes of the run (%.0f %%), the others start at random; %d of its genes "
        "are left out.",
        record["weights"],
        genes["known"],
        n_genes,
        100 * genes["known"] / n_genes,
        genes["left_out"],
    )
    if record["new_parts"]:
        logger.warning("Starting at random, not from %s: %s.", record["weights"], ", ".join(record["new_parts"]))
    for key, (old, new) in record["changed"].items():
        logger.info("%s was %r in %s and is %r.", key, old, record["weights"], new)
