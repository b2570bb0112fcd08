"""Expression of the most similar reference spots."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_matrix

from stalign._validate import message, one_of

WEIGHTS = ("softmax", "mean")
_BLOCK = 1024  # spots whose similarities to the reference are in memory at one time


@dataclass
class Retrieval:
    """Predicts a spot as the mean of the reference spots that look most like it.

    Parameters
    ----------
    n_neighbors
        Reference spots to take; all where there are fewer.
    weights
        `softmax`: more weight for more similar ones; `mean`: each counts alike.
    temperature
        Of the softmax over cosine similarities; the smaller, the more the nearest count.
    match
        The obsm key of what reference spots are found by, in the space of the features that find them, such as
        embeddings of gene sentences that images find; None for these features themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.retrieval import Retrieval
    >>> model = Retrieval(1).fit(np.eye(2), np.array([[3.0], [5.0]]))
    >>> model.predict(np.array([[0.1, 2.0]]))
    array([[5.]])
    """

    n_neighbors: int = 100
    weights: str = "softmax"
    temperature: float = 0.1
    match: str | None = None
    _features: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)), init=False, repr=False)
    _targets: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)), init=False, repr=False)

    def __post_init__(self) -> None:
        one_of(self.weights, WEIGHTS, name="weights")
        if self.n_neighbors < 1 or not self.temperature > 0:
            found = f"{self.n_neighbors} and {self.temperature}"
            raise ValueError(message("Expected `n_neighbors` from 1 and `temperature` above 0", found=found))

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Retrieval:
        """Keep the reference.

        Parameters
        ----------
        features
            Features, (n, f); with `match` those and what spots are found by, side by side, as in `predict`.
        targets
            Expression, (n, g).

        Returns
        -------
        The model itself.
        """
        found_by = features if self.match is None else features[:, features.shape[1] // 2 :]
        self._features, self._targets = _unit(found_by), np.asarray(targets, dtype=np.float64)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Average the most similar reference spots.

        Parameters
        ----------
        features
            Features, (m, f).

        Returns
        -------
        (m, g) float64.
        """
        if self.match is not None:
            features = features[:, : features.shape[1] // 2]
        k = min(self.n_neighbors, len(self._features))
        out = np.empty((len(features), self._targets.shape[1]))
        for start in range(0, len(features), _BLOCK):
            alike = _unit(features[start : start + _BLOCK]) @ self._features.T
            near = np.argpartition(-alike, k - 1, axis=1)[:, :k]
            weight = np.ones(near.shape)
            if self.weights == "softmax":
                own = np.take_along_axis(alike, near, axis=1)
                weight = np.exp((own - own.max(axis=1, keepdims=True)) / self.temperature)
            weight /= weight.sum(axis=1, keepdims=True)
            rows = np.repeat(np.arange(len(near)), k)
            mean = csr_matrix((weight.ravel(), (rows, near.ravel())), shape=alike.shape)
            out[start : start + _BLOCK] = mean @ self._targets
        return out


def _unit(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12), dtype=np.float64)
