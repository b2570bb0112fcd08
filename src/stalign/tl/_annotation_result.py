"""What `tl.annotate` writes: labels, confidence, novelty and probabilities of all spots, and the record of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._settings import logger
from stalign._validate import message
from stalign.data import result_record
from stalign.tl._label_sections import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stalign.core.annotation_features import SectionData
    from stalign.core.annotation_model import AnnotationModel

UNKNOWN_COLOR = "#808080"
_FALSE_ALARMS = 0.05  # share of labelled spots that `unknown=True` lets be called unknown


@dataclass(frozen=True)
class Result:
    """Labels of all spots of a table.

    Parameters
    ----------
    label
        (n,) categorical; missing where a spot has no features and had no label.
    confidence
        Probability of the label, (n,) float32.
    novelty
        Share of labelled spots that are more like their class, (n,) float32.
    given
        Whether the spot had a label, (n,) bool.
    probability
        Class probabilities, (n, k) float32.
    """

    label: pd.Categorical
    confidence: np.ndarray
    novelty: np.ndarray
    given: np.ndarray
    probability: np.ndarray

    def slots(self, key: str, index: pd.Index) -> dict[str, dict[str, Any]]:
        """Columns of obs and the matrix of obsm, by their names."""
        columns = {
            key: self.label, f"{key}_confidence": self.confidence, f"{key}_novelty": self.novelty,
            f"{key}_given": self.given,
        }  # fmt: skip
        obs = {name: pd.Series(values, index=index) for name, values in columns.items()}
        return {"obs": obs, "obsm": {f"{key}_probability": self.probability}}

    def colors(self, named: Sequence[str]) -> list[str]:
        """A colour for each category, from those of the labels."""
        return [*named, *([UNKNOWN_COLOR] if UNKNOWN in self.label.categories else [])]

    def log(self, key: str, accuracy: float) -> None:
        """Log what was annotated."""
        missing = int(self.label.isna().sum())
        right = "" if np.isnan(accuracy) else f"; {100 * accuracy:.0f} % of held-out labelled spots are right"
        logger.info(
            "Annotated %d spots, of which %d had a label: added obs[%r]%s%s.",
            *(len(self.label) - missing, int(self.given.sum()), key),
            f"; {missing} without features are NaN" if missing else "",
            right,
        )


def predict(
    n: int,
    parts: Sequence[SectionData],
    rows: Sequence[np.ndarray],
    model: AnnotationModel,
    names: Sequence[str],
    *,
    unknown: bool | float,
    overwrite: bool,
) -> Result:
    """Annotate the sections of a table of n spots, of which some can have labels that come after those of the model."""
    k, learned = len(names), len(model.names)
    if unknown and UNKNOWN in names:
        hint = "Leave out `unknown=`, rename the label, or count it as no label with `ignore=`"
        raise ValueError(message(f"Expected no label {UNKNOWN!r} beside `unknown=`", found=", ".join(names), hint=hint))
    probability, novelty = np.full((n, k), np.nan), np.full(n, np.nan)
    given = np.full(n, -1, dtype=np.intp)
    for own, part in zip(rows, parts, strict=True):
        given[own] = part.labels
        found = model.predict(part, given=None if overwrite else np.where(part.labels < learned, part.labels, -1))
        probability[own, :learned] = found.probability
        probability[own, learned:] = 0 * found.probability[:, :1]  # NaN where there are no features
        novelty[own] = found.novelty
    known = np.isfinite(probability).all(axis=1)
    codes = np.full(n, -1, dtype=np.intp)
    codes[known] = probability[known].argmax(axis=1)
    measured = given >= 0
    if not overwrite:
        probability[measured] = np.eye(k)[given[measured]]
        codes[measured] = given[measured]
    confidence = np.full(n, np.nan)
    confidence[codes >= 0] = probability[codes >= 0].max(axis=1)
    categories = list(names)
    if unknown:
        limit = 1 - (_FALSE_ALARMS if unknown is True else float(unknown))
        strange = (novelty > limit) & (overwrite | ~measured)
        codes[strange] = k
        categories = [*categories, UNKNOWN]
    return Result(
        pd.Categorical.from_codes(codes, categories=categories), confidence.astype(np.float32),
        novelty.astype(np.float32), measured, probability.astype(np.float32),
    )  # fmt: skip


def record_of(model: AnnotationModel, names: Sequence[str], **params: Any) -> dict[str, Any]:
    """What is written to uns: parameters, what was chosen, what was measured, and the model if it can be stored."""
    views = [" + ".join(f"{p.source}:{p.passes}:{p.n_components}" for p in view) for view in model.views]
    figures = {"strength": model.strength, "temperature": model.temperature, "figures": dict(model.figures)}
    record = result_record(params, views=views, labels=list(names), **figures)
    if model.can_be_saved:
        record["model"] = model.to_dict()
    else:
        logger.info("The model is not stored, as its classifier is not linear; files hold no pickles.")
    return record
