"""A multilayer perceptron from features to expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class MLP:
    """Two hidden layers with GELU and dropout, trained with Adam on the mean squared error of standardised genes.

    The papers say that an MLP predicts genes from frozen embeddings, but not of what size or how trained: everything
    here is a choice of this library.

    Parameters
    ----------
    hidden
        Widths of the hidden layers.
    dropout
        Share of hidden units that are dropped in training.
    learning_rate
        Of Adam.
    weight_decay
        Decoupled (AdamW).
    batch_size
        Spots per step.
    max_epochs
        Largest number of passes over the spots.
    patience
        Passes without a smaller error on the tenth of the spots that is held out, after which training stops and the
        best weights are taken.
    random_state
        Seed of weights, dropout, batches and the held-out tenth.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.tl._mlp import MLP
    >>> x = np.linspace(-1, 1, 200)[:, None]
    >>> predictor = MLP(max_epochs=60)(x, x**2)
    >>> predictor(x).shape
    (200, 1)
    """

    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    batch_size: int = 128
    max_epochs: int = 150
    patience: int = 15
    random_state: int = 0

    def __call__(
        self, features: NDArray[np.float64], targets: NDArray[np.float64]
    ) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """Train.

        Parameters
        ----------
        features
            Standardised features, (n, f).
        targets
            Deviations of expression, (n, g).

        Returns
        -------
        A function from features (m, f) to deviations (m, g) float64.
        """
        import torch

        spread = targets.std(axis=0)
        spread = np.where(spread > 1e-8, spread, 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            x = torch.from_numpy(np.asarray(features, dtype=np.float32))
            y = torch.from_numpy((targets / spread).astype(np.float32))
            network = self._train(x, y)

        def predict(values: NDArray[np.float64]) -> NDArray[np.float64]:
            with torch.inference_mode():
                out = network(torch.from_numpy(np.asarray(values, dtype=np.float32)))
            return out.numpy().astype(np.float64) * spread

        return predict

    def _train(self, x, y):
        import copy

        import torch
        from torch import nn

        layers: list[nn.Module] = []
        width = x.shape[1]
        for size in self.hidden:
            layers += [nn.Linear(width, size), nn.GELU(), nn.Dropout(self.dropout)]
            width = size
        network = nn.Sequential(*layers, nn.Linear(width, y.shape[1]))
        order = torch.randperm(len(x))
        held, used = order[: max(1, len(x) // 10)], order[max(1, len(x) // 10) :]
        used = used if len(used) else held
        optimiser = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        best, best_state, waited = float("inf"), copy.deepcopy(network.state_dict()), 0
        for _ in range(self.max_epochs):
            network.train()
            for rows in used[torch.randperm(len(used))].split(self.batch_size):
                optimiser.zero_grad()
                nn.functional.mse_loss(network(x[rows]), y[rows]).backward()
                optimiser.step()
            network.eval()
            with torch.inference_mode():
                error = float(nn.functional.mse_loss(network(x[held]), y[held]))
            if error < best:
                best, best_state, waited = error, copy.deepcopy(network.state_dict()), 0
            else:
                waited += 1
                if waited >= self.patience:
                    break
        network.load_state_dict(best_state)
        return network.eval()
