"""The rule that assigns spots to domains once they are found: a mixture of Gaussians as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stalign._validate import message


@dataclass(frozen=True)
class Mixture:
    """A mixture of k Gaussians in d dimensions.

    Parameters
    ----------
    covariance
        `tied` or `spherical`.
    weights
        Share of each component, (k,).
    means
        Centres, (k, d).
    precisions
        Cholesky factors of the inverse covariances as scikit-learn keeps them: (d, d) for `tied`, (k,) for `spherical`.
    """

    covariance: str
    weights: np.ndarray
    means: np.ndarray
    precisions: np.ndarray

    def __post_init__(self) -> None:
        k, d = self.means.shape
        shapes = {"tied": (d, d), "spherical": (k,)}
        if self.covariance not in shapes:
            raise ValueError(message("Expected a kind of covariance", found=repr(self.covariance), available=shapes))
        if self.weights.shape != (k,) or self.precisions.shape != shapes[self.covariance]:
            found = f"weights {self.weights.shape}, means {self.means.shape}, precisions {self.precisions.shape}"
            raise ValueError(message(f"Expected the arrays of a {self.covariance} mixture", found=found))

    @classmethod
    def nearest(cls, centres: np.ndarray) -> Mixture:
        """Make the rule that assigns a spot to the nearest centre.

        Parameters
        ----------
        centres
            Centres, (k, d).

        Returns
        -------
        A spherical mixture with equal shares.
        """
        k = len(centres)
        return cls("spherical", np.full(k, 1 / k), np.asarray(centres, dtype=np.float64), np.ones(k))

    @classmethod
    def discriminant(cls, features: np.ndarray, labels: np.ndarray) -> Mixture:
        """Make the rule of linear discriminant analysis from labelled spots.

        Parameters
        ----------
        features
            Features, (n, d).
        labels
            Labels, (n,) int from 0, none empty.

        Returns
        -------
        A tied mixture: the share and mean of each label and the covariance within labels, drawn a little towards a
        sphere so that it can be inverted.
        """
        k, d = int(labels.max()) + 1, features.shape[1]
        counts = np.bincount(labels, minlength=k)
        means = np.stack([features[labels == label].mean(axis=0) for label in range(k)])
        rest = features - means[labels]
        within = rest.T @ rest / len(features)
        within += (1e-3 * np.trace(within) / d + 1e-12) * np.eye(d)
        factor = np.linalg.inv(np.linalg.cholesky(within)).T
        return cls("tied", counts / counts.sum(), means, factor)

    @classmethod
    def tied(
        cls, features: np.ndarray, labels: np.ndarray, *, least: float, tol: float = 1e-3, max_iter: int = 300
    ) -> tuple[Mixture, float]:
        """Fit Gaussians that share one covariance by EM, as scikit-learn's `GaussianMixture` does.

        With one covariance, only what is linear in a spot tells components apart, and the total scatter is the same in
        each step: a step costs n * k * d, a dozen times less than with the general rule.

        Parameters
        ----------
        features
            Features, (n, d), finite.
        labels
            Components to start from, (n,) int from 0, none empty.
        least
            What is added to each variance.
        tol
            Gain of the mean log-likelihood at which EM ends.
        max_iter
            Steps at most.

        Returns
        -------
        The mixture and its mean log-likelihood.
        """
        from scipy.linalg import cholesky, solve_triangular
        from scipy.special import logsumexp

        centre = features.mean(axis=0)
        x = features - centre  # (n, d)
        n, d = x.shape
        total = x.T @ x / n  # (d, d)
        constant = 0.5 * d * np.log(2 * np.pi)

        def fitted(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """Sizes (k,), means (k, d), and the factor (d, d) of the inverse covariance."""
            sizes = shares.sum(axis=0) + 10 * np.finfo(float).eps
            means = shares.T @ x / sizes[:, None]
            within = total - (means.T * (sizes / n)) @ means + least * np.eye(d)
            return sizes, means, solve_triangular(cholesky(within, lower=True), np.eye(d), lower=True).T

        sizes, means, factor = fitted(np.eye(int(labels.max()) + 1)[labels])
        bound = -np.inf
        for _ in range(max_iter):
            inverse = factor @ factor.T  # (d, d)
            slopes = means @ inverse  # (k, d)
            scores = x @ slopes.T + (np.log(sizes / n) - 0.5 * (slopes * means).sum(axis=1))  # (n, k)
            norms = logsumexp(scores, axis=1)  # (n,)
            before, bound = (
                bound,
                norms.mean() - 0.5 * np.sum(total * inverse) + np.log(np.diag(factor)).sum() - constant,
            )
            sizes, means, factor = fitted(np.exp(scores - norms[:, None]))
            if abs(bound - before) < tol:
                break
        return cls("tied", sizes / sizes.sum(), means + centre, factor), float(bound)

    def take(self, order: np.ndarray) -> Mixture:
        """Reorder or drop components.

        Parameters
        ----------
        order
            Positions of the components to keep, (m,) int.

        Returns
        -------
        A mixture of m components, whose shares sum to 1 again.
        """
        weights = self.weights[order]
        precisions = self.precisions if self.covariance == "tied" else self.precisions[order]
        return Mixture(self.covariance, weights / weights.sum(), self.means[order], precisions)

    def posterior(self, features: np.ndarray) -> np.ndarray:
        """Give the probability of each component.

        Parameters
        ----------
        features
            Features, (n, d), finite.

        Returns
        -------
        (n, k) float64, rows sum to 1.

        Raises
        ------
        ValueError
            If the number of features differs from that of the mixture.
        """
        from sklearn.mixture import GaussianMixture

        features = np.asarray(features, dtype=np.float64)
        if features.shape[1] != self.means.shape[1]:
            raise ValueError(message(f"Expected {self.means.shape[1]} features", found=str(features.shape[1])))
        model = GaussianMixture(len(self.means), covariance_type=self.covariance)
        model.weights_, model.means_, model.precisions_cholesky_ = self.weights, self.means, self.precisions
        return np.asarray(model.predict_proba(features))

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Give the most probable component.

        Parameters
        ----------
        features
            Features, (n, d), finite.

        Returns
        -------
        (n,) intp from 0.
        """
        return np.asarray(self.posterior(features).argmax(axis=1).astype(np.intp))
