"""The network, its losses and its weights, in torch."""

from __future__ import annotations

from stalign.models.batch import Batch, Outputs
from stalign.models.branches import AEGene, ConvEncoder, Features, GeneTable, TimmEncoder
from stalign.models.checkpoint import Checkpoint, load, save
from stalign.models.config import CONFIGS, MINI, ST_ALIGN, Head, InputSpec, LossConfig, ModelConfig
from stalign.models.losses import AlignmentLoss, info_nce, shared_niches
from stalign.models.network import Level, STAlign, n_parameters, n_parameters_of
from stalign.models.share import push_to_hub
from stalign.models.weights import REGISTRY, Weights, load_weights

__all__ = [
    "CONFIGS",
    "MINI",
    "REGISTRY",
    "ST_ALIGN",
    "AEGene",
    "AlignmentLoss",
    "Batch",
    "Checkpoint",
    "ConvEncoder",
    "Features",
    "GeneTable",
    "Head",
    "InputSpec",
    "Level",
    "LossConfig",
    "ModelConfig",
    "Outputs",
    "STAlign",
    "TimmEncoder",
    "Weights",
    "info_nce",
    "load",
    "load_weights",
    "n_parameters",
    "n_parameters_of",
    "push_to_hub",
    "save",
    "shared_niches",
]
