"""Tables of genes: other names, and orthologs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stalign.data import read_aliases, read_orthologs
from stalign.datasets._fetch import fetch, folder, source_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_HGNC_FILE = "hgnc_complete_set.txt"


def gene_aliases(path: str | Path | None = None, *, base_url: str | None = None) -> dict[str, str]:
    """Read other names of human genes, for `aliases=` of `tl.embed` and `tl.encode`.

    Parameters
    ----------
    path
        A table of your own: a copy of HGNC's complete set, or a TSV or CSV with a column `alias` and a column `symbol`.
        None fetches HGNC's, about 17 MB.
    base_url
        A mirror with `hgnc_complete_set.txt`; None for HGNC's host, or for the mirror that the environment variable
        STALIGN_DATASETS_URL names.

    Returns
    -------
    The approved symbol of each earlier symbol and alias. What is the approved symbol of a gene is no other name of
    another; an earlier symbol of one gene that is an alias of another stands for the first; and a name that is the
    earlier symbol of two genes, or an alias of two, is left out, which the log says.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or the host does not have it.
    ConnectionError
        If the host cannot be reached and the table was not fetched before.
    ValueError
        If it is no such table, or has changed since it was fetched.

    Notes
    -----
    Renamed families that are met often (septins, MARCH proteins, histones, tRNA synthetases, ATP synthase, SLC9A3R1 …)
    are known without this table, in either direction. HGNC's data are CC0 (genenames.org). The table that was
    fetched is kept in `settings.cache_dir / "datasets" / "hgnc"`; delete it there for a newer one.

    Examples
    --------
    >>> import stalign as st
    >>> aliases = st.datasets.gene_aliases()  # doctest: +SKIP
    >>> st.tl.embed(adata, aliases=aliases)  # doctest: +SKIP
    """
    if path is None:
        host = source_of("hgnc")["url"]
        path = fetch("hgnc", _HGNC_FILE, folder("hgnc") / _HGNC_FILE, host=host, base_url=base_url)
    return read_aliases(path)


def orthologs(path: str | Path, *, columns: Sequence[str] = ()) -> dict[str, str]:
    """Read a table of orthologs, for `orthologs=` of `tl.embed`, `tl.encode` and others.

    Parameters
    ----------
    path
        TSV or CSV with a header, gzipped or not, such as an export of Ensembl BioMart or MGI's table of human and
        mouse.
    columns
        Columns of the other species' symbol and of the human one; empty finds those that are named after mouse and
        human.

    Returns
    -------
    Human symbol of each symbol of the other species; of several the first in the table.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no table, or the columns cannot be told.

    Examples
    --------
    >>> import stalign as st
    >>> mouse = st.datasets.orthologs("mouse_human.tsv")  # doctest: +SKIP
    >>> st.tl.embed(adata, orthologs=mouse)  # doctest: +SKIP
    """
    return read_orthologs(path, columns)
