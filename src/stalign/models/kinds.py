"""The networks that weights can be of, told apart by the `kind` of their configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stalign._validate import one_of
from stalign.models.config import CONFIGS, ModelConfig
from stalign.models.hibio import HiBioST
from stalign.models.hibio_config import HIBIO_CONFIGS, HiBioConfig
from stalign.models.network import STAlign
from stalign.models.schema import build

if TYPE_CHECKING:
    Network = STAlign | HiBioST
    NetworkConfig = ModelConfig | HiBioConfig

NETWORKS: dict[str, tuple[Any, Any]] = {"st-align": (ModelConfig, STAlign), "hibio": (HiBioConfig, HiBioST)}
"""Configuration and network of each kind. A network has `config` and `n_genes`, and is made of the two."""
BASES: dict[str, NetworkConfig] = {**CONFIGS, **HIBIO_CONFIGS}
"""Configurations that training starts from, by name."""


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
    found: NetworkConfig = build(NETWORKS[kind][0], values, where="config")
    return found


def network_of(config: NetworkConfig, n_genes: int, **parts: bool) -> Network:
    """Make the network of a configuration, with new weights.

    Parameters
    ----------
    config
        The configuration.
    n_genes
        V, size of the gene vocabulary.
    **parts
        What the network is made without, as `images=False`, where its kind can be.
    """
    made: Network = NETWORKS[config.kind][1](config, n_genes, **parts)
    return made
