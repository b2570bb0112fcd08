"""Gene sentences of sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stalign._validate import one_of
from stalign.core.niches import Niche, niche_mean
from stalign.core.sentences import sentences

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse as sp
    from numpy.typing import NDArray

    from stalign.data.counts import CountKeys
    from stalign.data.section import Section
    from stalign.data.vocabulary import Vocabulary

LEVELS = ("spot", "niche")


def level_counts(section: Section, vocabulary: Vocabulary, keys: CountKeys, level: str) -> sp.csr_matrix:
    """Read the counts that sentences are made of.

    Parameters
    ----------
    section
        The section.
    vocabulary
        The genes.
    keys
        Where its counts are.
    level
        `spot`, or `niche` for means over niches.

    Returns
    -------
    CSR (n, V).

    Raises
    ------
    ValueError
        If the level is unknown, counts are negative, or no gene is known to the vocabulary.
    """
    one_of(level, LEVELS, name="level")
    counts = section.counts(vocabulary, keys).matrix
    return counts if level == "spot" else niche_mean(section.niches(Niche()), counts)


def section_sentences(
    section: Section,
    vocabulary: Vocabulary,
    keys: CountKeys,
    idf: NDArray[np.float32],
    *,
    level: str = "spot",
    **options: Any,
) -> NDArray[np.int32]:
    """Make the sentences of a section.

    Parameters
    ----------
    section
        The section.
    vocabulary
        The genes.
    keys
        Where its counts are.
    idf
        (V,) inverse document frequencies of the corpus.
    level
        `spot`, or `niche` for means over niches.
    options
        Passed to `stalign.core.sentences.sentences`.

    Returns
    -------
    (n, K) positions in the vocabulary, filled up with -1; none for a spot without counts.
    """
    return sentences(level_counts(section, vocabulary, keys, level), vocabulary.symbols, idf, **options)
