"""What it takes to give the spots of another section the domains of this one."""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from stalign._validate import message
from stalign.core.files import write_whole
from stalign.core.mixture import Mixture

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "stalign-domains-1"
_ROWS = 1 << 16  # rows that are centred at a time
_ARRAYS = ("centre", "components", "weights", "means", "precisions")


@dataclass(frozen=True)
class Projection:
    """A centred projection of features.

    Parameters
    ----------
    centre
        Mean of the features it was fitted to, (d,).
    components
        Principal axes, (r, d); none, (0, d), for features that are only centred.
    """

    centre: np.ndarray
    components: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, n_components: int | None) -> Projection:
        """Fit principal components.

        Parameters
        ----------
        features
            Features, (n, d), finite.
        n_components
            How many, at most min(n - 1, d); None keeps the features as they are.

        Returns
        -------
        The projection. The entry of largest size is positive in every axis, so that signs do not depend on chance.
        """
        features = np.asarray(features)
        n, d = features.shape
        centre = features.mean(axis=0, dtype=np.float64)
        if n_components is None:
            return cls(centre, np.empty((0, d)))
        r = max(1, min(n_components, n - 1))
        if n <= _ROWS:
            return cls(centre, principal_axes(features - centre, r))
        gram, middle = np.zeros((d, d)), centre.astype(np.result_type(features.dtype, np.float32))
        for start in range(0, n, _ROWS):
            rows = features[start : start + _ROWS] - middle  # float32 stays, which halves the time
            gram += rows.T @ rows
        return cls(centre, _top(gram, min(r, d)))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Project.

        Parameters
        ----------
        features
            Features, (n, d).

        Returns
        -------
        (n, r) float64, or (n, d) without components.
        """
        features = np.asarray(features)
        if not len(self.components):
            return np.asarray(features - self.centre)
        parts = [features[start : start + _ROWS] for start in range(0, max(len(features), 1), _ROWS)]
        return np.concatenate([(rows - self.centre) @ self.components.T for rows in parts])


def principal_axes(centred: np.ndarray, n_components: int) -> np.ndarray:
    """Find the directions of largest variance.

    Parameters
    ----------
    centred
        Features less their mean, (n, d).
    n_components
        How many, at most d.

    Returns
    -------
    (r, d), orthonormal rows by decreasing variance; the entry of largest size of each is positive.
    """
    n, d = centred.shape
    r = min(n_components, d)
    if d <= n:
        return _top(centred.T @ centred, r)
    return _signed(np.linalg.svd(centred, full_matrices=False)[2][:r])


def _top(gram: np.ndarray, r: int) -> np.ndarray:
    return _signed(np.linalg.eigh(gram)[1][:, ::-1].T[:r])


def _signed(axes: np.ndarray) -> np.ndarray:
    return np.asarray(axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None])


@dataclass(frozen=True)
class DomainModel:
    """Domains that were found once, ready to be given to further spots.

    Parameters
    ----------
    names
        Name of each domain.
    colors
        Colour of each domain, `#RRGGBB`.
    use_rep
        The obsm key of the features.
    projection
        From the features to the space they were clustered in.
    mixture
        The domains in that space.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> adata.obsm["X_toy"] = adata.X[:, :30].toarray()
    >>> stalign.tl.domains(adata, 3, use_rep="X_toy")
    >>> stalign.tl.domain_model(adata).names
    ('1', '2', '3')
    """

    names: tuple[str, ...]
    colors: tuple[str, ...]
    use_rep: str
    projection: Projection
    mixture: Mixture

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.colors) == len(self.mixture.weights):
            found = f"{len(self.names)} names, {len(self.colors)} colours, {len(self.mixture.weights)} components"
            raise ValueError(message("Expected a name and a colour for every domain", found=found))

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Give each spot its domain.

        Parameters
        ----------
        features
            Features, (n, d), of the kind the model was fitted to.

        Returns
        -------
        Positions in `names`, (n,) intp; -1 for rows with NaN.

        Raises
        ------
        ValueError
            If the number of features differs.
        """
        features = np.asarray(features)
        expected = len(self.projection.centre)
        if features.ndim != 2 or features.shape[1] != expected:
            raise ValueError(
                message(f"Expected features (n, {expected}), as the model was fitted to", found=str(features.shape))
            )
        labels = np.full(len(features), -1, dtype=np.intp)
        valid = np.isfinite(features).all(axis=1)
        if valid.any():
            labels[valid] = self.mixture.predict(self.projection(features[valid]))
        return labels

    def to_dict(self) -> dict[str, Any]:
        """Write the model as arrays and strings, which AnnData's files can hold.

        Returns
        -------
        A dictionary that `from_dict` takes.
        """
        return {
            "format": FORMAT,
            "use_rep": self.use_rep,
            "covariance": self.mixture.covariance,
            "names": np.array(self.names, dtype=str),
            "colors": np.array(self.colors, dtype=str),
            "centre": self.projection.centre,
            "components": self.projection.components,
            "weights": self.mixture.weights,
            "means": self.mixture.means,
            "precisions": self.mixture.precisions,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> DomainModel:
        """Read what `to_dict` wrote.

        Parameters
        ----------
        state
            The dictionary.

        Returns
        -------
        The model.

        Raises
        ------
        ValueError
            If an entry is missing or does not fit the others.
        """
        needed = ("format", "use_rep", "covariance", "names", "colors", *_ARRAYS)
        missing = [name for name in needed if name not in state]
        if missing or state["format"] != FORMAT:
            found = f"without {', '.join(missing)}" if missing else f"format {state['format']!r}"
            raise ValueError(message(f"Expected a domain model of the format {FORMAT}", found=found))
        arrays = {name: np.asarray(state[name], dtype=np.float64) for name in _ARRAYS}
        mixture = Mixture(str(state["covariance"]), arrays["weights"], arrays["means"], arrays["precisions"])
        projection = Projection(arrays["centre"], arrays["components"])
        names, colors = (tuple(str(value) for value in state[name]) for name in ("names", "colors"))
        return cls(names, colors, str(state["use_rep"]), projection, mixture)

    def save(self, path: str | Path) -> Path:
        """Save to one npz file: arrays, and the rest as JSON. No pickle.

        Parameters
        ----------
        path
            Where to; `.npz` is added where it is missing.

        Returns
        -------
        The path written.
        """
        path = Path(path)
        path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
        state = self.to_dict()
        arrays = {name: state.pop(name) for name in _ARRAYS}
        text = json.dumps({**state, "names": list(self.names), "colors": list(self.colors)})
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, model=np.array(text), **arrays)
        return write_whole(path, content.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> DomainModel:
        """Load what `save` wrote.

        Parameters
        ----------
        path
            The npz file.

        Returns
        -------
        The model.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a saved domain model.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(message("Expected a saved domain model", found=f"no file {str(path)!r}"))
        try:
            with np.load(path, allow_pickle=False) as stored:
                state = json.loads(str(stored["model"])) | {name: stored[name] for name in _ARRAYS}
        except (KeyError, OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            raise ValueError(message("Expected a saved domain model", found=f"{str(path)!r}, {error}")) from error
        return cls.from_dict(state)
