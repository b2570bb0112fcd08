"""What sections were embedded from: image, genes or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stalign._constants import Keys
from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


def described(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what sections were embedded from, for the log.

    Parameters
    ----------
    records
        What `record_of` says of each section.

    Returns
    -------
    Such as "image and genes", or "image and genes in 2 sections, genes alone in 1".
    """
    words = {"both": "image and genes", "gene": "genes alone", "image": "the image alone"}
    kinds = [words[record["modality"]] for record in records.values() if record["modality"] in words]
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
        Keys.EMBED_GENE: ("the image alone", "It needs counts; name their layer with `layer=`"),
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
