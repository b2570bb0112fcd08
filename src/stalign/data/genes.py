"""The genes of a table: their symbols or Ensembl ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stalign._settings import logger
from stalign._validate import message

if TYPE_CHECKING:
    from anndata import AnnData

_ENSEMBL = re.compile(r"ENS[A-Z]{0,4}G\d{11}(\.\d+)?")
_SYMBOL_COLUMNS = ("gene_name", "gene_names", "gene_symbols", "gene_symbol", "feature_name", "symbol", "SYMBOL")


def gene_ids(table: AnnData, gene_key: str | None = None) -> tuple[list[str], str]:
    """Get the identifier of each gene, a symbol where there is one.

    Parameters
    ----------
    table
        The table.
    gene_key
        Column of var to read. None reads var_names; where those are Ensembl ids and a usual symbol column is there
        (`gene_name`, `gene_symbols`, `feature_name`, ...), the symbols are taken, and the Ensembl id of genes without.

    Returns
    -------
    The identifiers, (n_vars,), and their kind: `symbol` or `ensembl`.

    Raises
    ------
    KeyError
        If `gene_key` is not a column of var.

    Examples
    --------
    >>> import stalign
    >>> from stalign.data import gene_ids
    >>> ids, kind = gene_ids(stalign.datasets.toy(n_rows=8))
    >>> kind
    'symbol'
    """
    if gene_key is not None:
        if gene_key not in table.var:
            raise KeyError(
                message(
                    "Expected `gene_key` to name a column of var", found=repr(gene_key), available=table.var.columns
                )
            )
        return _named(table, gene_key)
    names = [str(name) for name in table.var_names]
    if _kind(names) == "symbol":
        return names, "symbol"
    column = next((name for name in _SYMBOL_COLUMNS if name in table.var), None)
    if column is None:
        return names, "ensembl"
    logger.info("Gene names are Ensembl ids; symbols are read from var[%r].", column)
    return _named(table, column)


def _named(table: AnnData, column: str) -> tuple[list[str], str]:
    texts = [str(value).strip() for value in table.var[column]]
    missing = {"", "nan", "None", "<NA>"}
    ids = [str(name) if text in missing else text for name, text in zip(table.var_names, texts, strict=True)]
    return ids, _kind(ids)


def _kind(ids: list[str]) -> str:
    hits = sum(_ENSEMBL.fullmatch(name.strip()) is not None for name in ids)
    return "ensembl" if ids and hits > len(ids) / 2 else "symbol"
