"""Which spots are predicted from which others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stalign._validate import message
from stalign.core.folds import deal
from stalign.core.standardise import N_FOLDS

if TYPE_CHECKING:
    from stalign.tl._expression import Spots

    Parts = list[tuple[np.ndarray, np.ndarray]]

PATIENT = ("patient", "donor", "subject", "individual")
SECTION = ("section", "library", "slide", "sample", "slice")
SPOT = "spot"


@dataclass(frozen=True)
class Folds:
    """Folds of spots or samples.

    Parameters
    ----------
    by
        `spot`, or an obs column, such as that of the section or the patient, whose values stay together.
    n
        How many folds; None leaves out one value at a time, or a fifth of the spots. Spots and samples are dealt at
        random, samples so that folds have about as many spots.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(12, n_sections=3)
    >>> colour = stalign.tl.ImageFeatures("colour", windows=(100.0,))
    >>> folds = stalign.tl.Folds("library", n=2)
    >>> predicted = stalign.tl.predict_genes(adata, genes=2, split=folds, use_rep=colour)
    >>> len(predicted.uns["stalign"]["predict_genes"]["alpha"])
    2
    """

    by: str = SPOT
    n: int | None = None

    def __post_init__(self) -> None:
        if self.n is not None and self.n < 2:
            raise ValueError(message("Expected at least two folds", found=repr(self.n)))

    @property
    def column(self) -> str | None:
        """The obs column, or None for spots."""
        return None if self.by == SPOT else self.by

    @property
    def kind(self) -> str:
        """What is held out, by the name of the column: `spot`, `section`, `patient`, or `column` for any other."""
        if self.column is None:
            return SPOT
        words = {"patient": PATIENT, "section": SECTION}
        return next((kind for kind, some in words.items() if any(word in self.by.lower() for word in some)), "column")

    def held_out(self, obs: pd.DataFrame, library_key: str | None) -> str:
        """Tell what is held out: `kind`, or `section` where each section has one value of the column.

        Parameters
        ----------
        obs
            The spots' annotation.
        library_key
            Its column of the section of each spot; None where there is none.

        Returns
        -------
        `spot`, `section`, `patient` or `column`.
        """
        if self.kind != "column" or library_key is None or library_key not in obs:
            return self.kind
        values = obs.groupby(library_key, observed=True)[self.by].nunique()
        return "section" if (values <= 1).all() else "column"


def split_spots(spots: Spots, folds: Folds, column: pd.Series | None, seed: int) -> Parts:
    """Plan which spots are predicted from which others.

    Parameters
    ----------
    spots
        All spots.
    folds
        How.
    column
        The values that stay together; None for spots.
    seed
        Seed of what is dealt at random.

    Returns
    -------
    For each part, the spots to fit to and the spots to predict, (n,) bool.

    Raises
    ------
    ValueError
        If the column has one value or fewer than there are folds, or there are too few usable spots.
    """
    rng = np.random.default_rng(seed)
    if column is None:
        rows = np.flatnonzero(spots.usable)
        count = folds.n or N_FOLDS
        if len(rows) < 2:
            raise ValueError(message("Expected at least two spots with features", found=str(len(rows))))
        fold = np.full(len(spots.features), -1)
        fold[rng.permutation(rows)] = np.arange(len(rows)) % count
    else:
        fold = pd.factorize(column, sort=True)[0]
        values = fold.max(initial=-1) + 1
        if values < (folds.n or 2):
            hint = "Pass `split='spot'`, or a reference"
            expected = f"Expected at least {folds.n or 'two'} values in obs[{column.name!r}]"
            raise ValueError(message(expected, found="one" if values == 1 else str(values), hint=hint))
        if folds.n is not None:
            sizes = np.bincount(fold[(fold >= 0) & spots.usable], minlength=values)
            fold = np.where(fold >= 0, deal(sizes, folds.n, rng)[fold], -1)
    return [((fold >= 0) & (fold != part), fold == part) for part in range(fold.max() + 1)]


def fold_table(parts: Parts, column: pd.Series) -> pd.DataFrame:
    """List which samples were held out together.

    Parameters
    ----------
    parts
        From `split_spots`.
    column
        The values that stay together.

    Returns
    -------
    A row per sample: sample, fold and n_spots.
    """
    rows = [
        {"sample": str(name), "fold": number, "n_spots": int(count)}
        for number, (_, test) in enumerate(parts)
        for name, count in column[test].astype(str).value_counts(sort=False).sort_index().items()
        if count
    ]
    return pd.DataFrame(rows, columns=["sample", "fold", "n_spots"])
