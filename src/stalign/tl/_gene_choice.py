"""Which genes are predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stalign._validate import message, whole
from stalign.tl._expression import most_variable, variances

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from scipy import sparse

    from stalign.tl._expression import Spots

    Genes: TypeAlias = "str | int | Sequence[str] | VariableGenes | None"

N_GENES = 50  # genes that are returned where none is reliable
N_CANDIDATES = 1000  # most variable genes that are tried for reliability
RELIABLE = "reliable"


@dataclass(frozen=True)
class VariableGenes:
    """The genes of the largest variance within a section, averaged over sections, as HiBio-ST and BLEEP choose them.

    Parameters
    ----------
    n
        How many.

    Examples
    --------
    >>> import stalign
    >>> stalign.tl.VariableGenes(50)
    VariableGenes(n=50)
    """

    n: int = 300

    def __post_init__(self) -> None:
        whole(self.n, name="n")

    def of(self, expression: sparse.csr_matrix, groups: np.ndarray) -> np.ndarray:
        """Choose genes.

        Parameters
        ----------
        expression
            The target, CSR (n, g).
        groups
            The section of each spot, (n,).

        Returns
        -------
        Their columns, by decreasing variance, (min(n, g),) intp; of equals the first.
        """
        names = np.unique(groups)
        mean = sum(variances(expression[groups == name]) for name in names) / max(len(names), 1)
        return np.argsort(-mean, kind="stable")[: self.n]


def candidates(source: Spots, genes: Genes) -> np.ndarray:
    """List the genes to fit.

    Parameters
    ----------
    source
        Spots to fit to.
    genes
        As `tl.predict_genes` takes them.

    Returns
    -------
    (m,) str.

    Raises
    ------
    ValueError
        If there are no counts.
    KeyError
        If a gene is not one of the reference.
    """
    if source.expression is None:
        hint = "Pass a reference with raw counts, or their `layer=`"
        raise ValueError(message("Expected raw counts to fit to", found="no count matrix", hint=hint))
    if genes is None:
        return source.genes
    if isinstance(genes, VariableGenes):
        rows = source.usable & source.measured
        return np.asarray(source.genes[genes.of(source.expression[rows], source.groups[rows])])
    if isinstance(genes, int | np.integer) or how_chosen(genes) == RELIABLE:
        count = N_CANDIDATES if isinstance(genes, str) else int(genes)  # type: ignore[arg-type]
        rows = source.usable & source.measured
        return np.asarray(
            source.genes[most_variable(source.expression[rows] if rows.any() else source.expression, count)]
        )
    names = np.array(list(dict.fromkeys([genes] if isinstance(genes, str) else genes)), dtype=str)
    unknown = names[source.columns(names) < 0]
    if len(names) == 0 or len(unknown):
        found = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise KeyError(message("Expected genes of the reference", found=found or "none", available=source.genes))
    return names


def how_chosen(genes: Genes) -> str:
    """Say how genes are chosen.

    Parameters
    ----------
    genes
        As `tl.predict_genes` takes them.

    Returns
    -------
    `all`, `variable`, `variable within sections`, `reliable` or `named`.
    """
    if isinstance(genes, VariableGenes):
        return "variable within sections"
    if genes is None:
        return "all"
    if isinstance(genes, int | np.integer):
        return "variable"
    return RELIABLE if isinstance(genes, str) and genes == RELIABLE else "named"


def none_reliable(names: np.ndarray, reliability: np.ndarray) -> str:
    """Say that no gene can be relied on, and which comes closest.

    Parameters
    ----------
    names
        The genes, (g,).
    reliability
        Their mean correlation in held-out parts of the reference, (g,).

    Returns
    -------
    The warning.
    """
    best = int(np.argmax(np.nan_to_num(reliability, nan=-1.0)))
    return message(
        f"Expected genes that can be predicted in held-out parts of the reference, of {len(names)} tried",
        found=f"none; the best is {names[best]} with a Pearson of {reliability[best]:.2f}",
        hint=f"The {min(N_GENES, len(names))} most variable genes are returned, marked as not reliable",
    )
