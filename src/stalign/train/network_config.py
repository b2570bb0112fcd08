"""The network that a training configuration describes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stalign._validate import one_of
from stalign.models.kinds import BASES
from stalign.models.schema import update
from stalign.train.initial import initial

if TYPE_CHECKING:
    from stalign.models.kinds import NetworkConfig
    from stalign.train.config import TrainConfig


def model_config(config: TrainConfig) -> NetworkConfig:
    """Build the network's configuration.

    Parameters
    ----------
    config
        The run; `model.base` names the network to start from (`stalign-mini` where it is left out), or `model.init` the
        weights; other keys of `model` and all of `loss` replace what it says. A branch with a `kind` is replaced as a
        whole.

    Returns
    -------
    The configuration.

    Raises
    ------
    ValueError
        If a key is unknown or a value has the wrong type.

    Examples
    --------
    >>> from stalign.train import TrainConfig
    >>> from stalign.train.network_config import model_config
    >>> config = TrainConfig(model={"base": "stalign-mini", "dropout": 0.2}, loss={"temperature": 0.5})
    >>> shape = model_config(config)
    >>> shape.dropout, shape.loss.temperature
    (0.2, 0.5)
    """
    values: dict[str, Any] = dict(config.model)
    weights = initial(values)
    values.pop("init", None)
    base = values.pop("base", "stalign-mini")
    one_of(base, BASES, name="model.base")
    shape: Any = update(BASES[base] if weights is None else weights.config, values, where="model")
    found: NetworkConfig = replace(shape, name=config.name, loss=update(shape.loss, config.loss, where="loss"))
    return found
