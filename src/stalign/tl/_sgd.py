"""A linear layer trained as HiBio-ST trains it for few-shot prediction, by itself or with the image tower below it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stalign._threads import threads_for
from stalign._validate import message, positive, whole

if TYPE_CHECKING:
    from os import PathLike

    import torch

    class Rows(Protocol):
        """Features or patches of spots, read by their numbers."""

        def __len__(self) -> int: ...
        def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


_BLOCK = 256  # spots that are predicted at one time


@dataclass
class SGD:
    """A linear layer by stochastic gradient descent, for `tl.few_shot` and `tl.predict_genes`.

    Its weights start at 0 and its bias at the mean of the training spots, so that it starts as the baseline. The loss
    is the sum over the spots of a batch of the mean squared error over genes. The defaults are those of HiBio-ST; with
    unit vectors as features they move predictions little.

    Parameters
    ----------
    tower
        Weights of HiBio-ST, a name or a folder, whose image tower and projection are trained with the layer, on
        mirrored and turned patches, for `tl.few_shot`; None for a layer on features that stay as they are.
    epochs
        Times that every training spot is read.
    lr
        Learning rate.
    batch_size
        Spots to a step.
    momentum, weight_decay
        Of the optimiser.
    seed
        Of the order of spots and the turns of patches; `tl.few_shot` puts its own there.

    Notes
    -----
    Batch norms of the tower keep their statistics, so that a prediction does not depend on the batch.

    Examples
    --------
    >>> import numpy as np
    >>> import stalign
    >>> model = stalign.tl.SGD(epochs=1).fit(np.ones((4, 2)), np.full((4, 3), 5.0))
    >>> model.predict(np.ones((1, 2)))
    array([[5., 5., 5.]], dtype=float32)
    """

    tower: str | PathLike[str] | None = None
    epochs: int = 30
    lr: float = 5e-5
    batch_size: int = 256
    momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 0
    _model: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        whole(self.epochs, name="epochs")
        whole(self.batch_size, name="batch_size")
        positive(self.lr, name="lr")

    def fit(self, features: Rows, targets: np.ndarray) -> SGD:
        """Train the layer.

        Parameters
        ----------
        features
            (n, f); with a tower, patches (n, 3, h, h) uint8.
        targets
            Expression, (n, g).

        Returns
        -------
        The model itself.

        Raises
        ------
        ValueError
            If there is a tower and there are no patches.
        """
        import torch

        from stalign.encoders.runtime import pick_device
        from stalign.models.linear_head import LinearHead, Schedule, train_head
        from stalign.models.weights import load_weights, of_kind

        device = pick_device(None)
        first = features[np.arange(1)]
        tower, width = None, first.shape[1]
        if self.tower is not None:
            if first.ndim != 4:
                hint = "Call `tl.few_shot`, which cuts them, or leave out `tower`"
                raise ValueError(message("Expected patches to train the image tower on", found="features", hint=hint))
            tower = of_kind(load_weights(self.tower, device=device), "hibio").network
            width = tower.config.dim
        values = torch.from_numpy(np.asarray(targets, dtype=np.float32))
        how = Schedule(self.epochs, self.lr, self.batch_size, self.momentum, self.weight_decay, self.seed)
        model = LinearHead(tower, width, values.mean(dim=0))
        with threads_for(self.epochs * len(features), images=tower is not None, sklearn=False):
            self._model = train_head(model, lambda rows: _read(features, rows.numpy()), values, how, device)
        return self

    def predict(self, features: Rows) -> np.ndarray:
        """Predict expression.

        Parameters
        ----------
        features
            As for `fit`, (m, …).

        Returns
        -------
        (m, g) float32.

        Raises
        ------
        ValueError
            If the model was not fitted.
        """
        import torch

        if self._model is None:
            raise ValueError(message("Expected a fitted model", found=repr(self), hint="Call `fit` first"))
        device = self._model.head.weight.device
        with torch.inference_mode():
            parts = [
                self._model(_read(features, rows).to(device)).cpu().numpy()
                for rows in np.split(np.arange(len(features)), range(_BLOCK, len(features), _BLOCK))
            ]
        return np.concatenate(parts)


def _read(features: Rows, rows: np.ndarray) -> torch.Tensor:
    """Read some spots: patches stay bytes, all else is float32."""
    import torch

    values = features[rows]
    return torch.from_numpy(values if values.dtype == np.uint8 else np.asarray(values, dtype=np.float32))
