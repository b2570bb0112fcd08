"""Learning of labels from annotated spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from stalign._validate import message
from stalign.core.annotation_choice import STRENGTHS, Task, choose, fit_heads
from stalign.core.annotation_features import broad_views, fit_bases, view_features, views_of
from stalign.core.annotation_model import AnnotationModel
from stalign.core.label_folds import label_groups, split_groups
from stalign.core.novelty import fit_novelty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stalign.core.annotation_features import SectionData

_CHOICE_SPOTS = 20_000  # labelled spots that cross-validation and distances use at most


def fit_annotation(
    sections: Sequence[SectionData],
    names: Sequence[str],
    colors: Sequence[str],
    *,
    use_rep: str,
    genes: Sequence[str] = (),
    classifier: Any = None,
    choice: bool = True,
    spatial: bool | float = True,
    by_section: bool = False,
    carried: bool = False,
    seed: int = 0,
) -> AnnotationModel:
    """Learn labels.

    Parameters
    ----------
    sections
        Sections with labelled spots, some or all.
    names
        Name of each class.
    colors
        Colour of each class.
    use_rep
        The obsm key of the embedding, which is noted.
    genes
        Genes of the expression, in order; none where sections have none.
    classifier
        As `annotation_heads.fit_head` takes it.
    choice
        Whether views are chosen by cross-validation; else the plain one.
    spatial
        Whether the strength of the mean field is chosen by cross-validation, but for carried labels, which are not
        smoothed; or the strength; False for none.
    by_section
        Whether cross-validation holds out whole sections, as it should where labels are carried to further ones.
    carried
        Whether labels are carried to sections without any, so that spots do not have labelled neighbours.
    seed
        Seed.

    Returns
    -------
    The model.

    Raises
    ------
    ValueError
        If there are labels of fewer than two classes.
    """
    labels = np.concatenate([part.labels for part in sections])
    usable = np.concatenate([part.usable for part in sections])
    rows = np.flatnonzero((labels >= 0) & usable)
    number = np.repeat(np.arange(len(sections)), [len(part.labels) for part in sections])
    coords = np.concatenate([part.coords for part in sections])
    rows = rows[np.lexsort((*coords[rows].T, number[rows]))]  # so that the order of the spots does not matter
    if len(np.unique(labels[rows])) < 2:
        found = [names[label] for label in np.unique(labels[rows])]
        raise ValueError(
            message("Expected spots of at least two labels", found=", ".join(map(repr, found)) or "no labelled spot",
                    hint="Label a few spots of each kind")
        )  # fmt: skip
    bases = fit_bases(sections, seed=seed)
    views = views_of(bases)[: None if choice else 1]
    parts = [view_features(section, bases, views) for section in sections]
    features = {view: np.concatenate([part[view] for part in parts]) for view in views}
    groups = label_groups(sections, by_section=by_section, seed=seed)
    some = rows
    if len(rows) > _CHOICE_SPOTS:
        some = np.sort(np.random.default_rng(seed).choice(rows, _CHOICE_SPOTS, replace=False))
    split = split_groups(labels[some], groups[some], seed=seed)
    graph = sparse.csr_matrix(sparse.block_diag([part.near for part in sections]))
    folds = [(some[fit], some[held]) for fit, held in split]
    task = Task(features, labels, usable, graph, len(names), folds, classifier, seed, hold_known=not carried)
    # Where no neighbour has a label, smoothing loses small classes before it mends anything.
    strengths = (float(spatial),) if spatial is not True else (0.0,) if carried else STRENGTHS
    chosen = choose(task, views, broad_views(bases) if choice else views, strengths)
    heads = fit_heads(features, chosen.views, rows, labels[rows], task)
    novelty = fit_novelty(features[views[0]][some], labels[some], len(names), split)
    figures = {
        "accuracy": chosen.accuracy, "plain_accuracy": chosen.plain_accuracy, "novelty_auc": novelty.auc,
        "calibration_error": chosen.calibration_error, "n_labelled": float(len(rows)),
        "n_folds": float(chosen.n_folds),
    }  # fmt: skip
    return AnnotationModel(
        tuple(names), tuple(colors), use_rep, sections[0].rep.shape[1], tuple(genes),
        {source: bases[source] for source in bases if source == "rep" or any(
            part.source == source for view in chosen.views for part in view)},
        chosen.views, tuple(heads), chosen.strength, chosen.temperature, chosen.final_temperature, novelty, figures,
    )  # fmt: skip
