"""What sections were embedded from: image, genes or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message, one_of
from stalign.tl._batch import LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from stalign.data.spots import SpotReader
    from stalign.models.config import ModelConfig


def facts_of(reader: SpotReader) -> dict[str, Any]:
    """Say what a section was embedded from.

    Parameters
    ----------
    reader
        The section.

    Returns
    -------
    Its name, modality, spots, image and genes, for a row of the record.
    """
    image, expression = reader.image, reader.expression
    return {
        "section": reader.name,
        "modality": reader.modality,
        "n_valid": int(reader.valid.sum()),
        "image_key": "" if image is None else image.key,
        "image_mpp": np.nan if image is None else float(image.mpp),
        "gene_coverage": np.nan if expression is None else float(expression.coverage),
        "n_genes": 0 if expression is None else int(expression.n_matched),
        "niche_sd_um": np.nan if expression is None else float(expression.niche_sd_um),
    }


def gene_lists(reader: SpotReader) -> dict[str, NDArray[np.str_]]:
    """List the genes of a section that did not find one of the weights, and the other way round; the log has the first.

    Parameters
    ----------
    reader
        The section.

    Returns
    -------
    `missing_genes`, of the weights, and `unknown_genes`, of the table; nothing for a section without counts.
    """
    expression = reader.expression
    if expression is None:
        return {}
    found = {"missing_genes": expression.missing, "unknown_genes": expression.unknown}
    words = {
        "missing_genes": "of the weights that the table lacks",
        "unknown_genes": "of the table that they do not know",
    }
    for key, names in found.items():
        if names:
            shown, where = ", ".join(names[:5]), f"uns[{Keys.UNS!r}]['embed'][{key!r}]"
            logger.info("Genes %s: %d, such as %s; %s lists them.", words[key], len(names), shown, where)
    return {key: np.array(names, dtype=str) for key, names in found.items()}


def described(facts: Iterable[Mapping[str, Any]]) -> str:
    """Say what sections were embedded from, for the log.

    Parameters
    ----------
    facts
        What `facts_of` says of each section.

    Returns
    -------
    Such as "image and genes", or "image and genes in 2 sections, genes alone in 1".
    """
    words = {"both": "image and genes", "gene": "genes alone", "image": "the image alone"}
    kinds = [words[one["modality"]] for one in facts if one["modality"] in words]
    if len(set(kinds)) == 1:
        return kinds[0]
    return ", ".join(f"{kind} in {kinds.count(kind)} section(s)" for kind in dict.fromkeys(kinds))


def check_modality(table: AnnData, use_rep: str) -> None:
    """Check that an embedding of images or genes is not missed because the section was embedded without them.

    Parameters
    ----------
    table
        The table.
    use_rep
        The obsm key that is asked for.

    Raises
    ------
    KeyError
        If the section was embedded, and not from what `use_rep` holds.
    """
    known = {
        Keys.EMBED_IMAGE: ("genes alone", "It needs an image that is fine enough for the weights; see the log"),
        Keys.EMBED_FUSED: ("the image or the genes alone", "It needs both; see the log of `tl.embed`"),
        Keys.EMBED_GENE: ("the image alone", "It needs raw counts, in X or the layer that `tl.embed` takes"),
    }
    if use_rep in known and use_rep not in table.obsm and Keys.EMBED in table.obsm:
        made_of, hint = known[use_rep]
        raise KeyError(
            message(
                f"Expected an embedding in obsm[{use_rep!r}]",
                found=f"a table that `stalign.tl.embed` embedded from {made_of}",
                available=table.obsm.keys(),
                hint=hint,
            )
        )


def check_features(config: ModelConfig, features: Mapping[str, str], *, image: bool, genes: bool) -> None:
    """Check that the features that the weights need are given.

    Parameters
    ----------
    config
        The network's configuration.
    features
        The obsm key of each branch's features.
    image, genes
        Whether images and counts are used.

    Raises
    ------
    ValueError
        If a branch is unknown, or one that takes features has none.
    """
    from stalign.models.branches import Features
    from stalign.models.config import BRANCHES

    for branch in features:
        one_of(branch, BRANCHES, name="features")
    for branch, used in ((f"{LEVEL}_image", image), (f"{LEVEL}_gene", genes)):
        if used and isinstance(getattr(config, branch), Features) and branch not in features:
            what = "image" if branch.endswith("image") else "genes"
            hint = (
                f"Write them with `tl.encode(data, ..., level={LEVEL!r})` and pass their obsm key as "
                f"`features={{{branch!r}: key}}`, or pass `{what}=False`"
            )
            expected = f"Expected features of a frozen encoder for the branch {branch!r} of {config.name!r}"
            raise ValueError(message(expected, found="none", hint=hint))


def features_by_branch(table: AnnData, features: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
    """Get the features of frozen encoders.

    Parameters
    ----------
    table
        The table.
    features
        The obsm key of each branch's features.

    Returns
    -------
    Features (n_obs, d) float32 by branch.

    Raises
    ------
    KeyError
        If one of them does not exist.
    """
    for branch, key in features.items():
        if key not in table.obsm:
            expected, hint = f"Expected features of {branch} in obsm", "Write them with `tl.encode`"
            raise KeyError(message(expected, found=repr(key), available=table.obsm.keys(), hint=hint))
    return {branch: np.asarray(table.obsm[key], np.float32) for branch, key in features.items()}
