"""The networks that weights can be of, told apart by the `kind` of their configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stalign._validate import one_of
from stalign.models.config import ModelConfig
from stalign.models.network import STAlign
from stalign.models.schema import build

if TYPE_CHECKING:
    Network = STAlign
    NetworkConfig = ModelConfig

NETWORKS: dict[str, tuple[type[NetworkConfig], type[Network]]] = {"st-align": (ModelConfig, STAlign)}
"""Configuration and network of each kind. A network has `config` and `n_genes`, and is made of the two."""


def config_of(values: Any) -> NetworkConfig:
    """Read the configuration of a network of any kind.

    Parameters
    ----------
    values
        What its `to_dict` returned; without a `kind`, as in the first weights, it is one of ST-Align.

    Returns
    -------
    The configuration.

    Raises
    ------
    ValueError
        If the kind or a key is unknown or lacking, or a value is wrong; the message names the key.
    """
    kind = values.get("kind", "st-align") if isinstance(values, dict) else "st-align"
    one_of(kind, NETWORKS, name="config.kind")
    return build(NETWORKS[kind][0], values, where="config")


def network_of(config: NetworkConfig, n_genes: int) -> Network:
    """Make the network of a configuration, with new weights.

    Parameters
    ----------
    config
        The configuration.
    n_genes
        V, size of the gene vocabulary.
    """
    return NETWORKS[config.kind][1](config, n_genes)
