"""Tools: embed, cut into domains, score, predict genes and retrieve."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stalign.core.clustering import GMM, KMeans, Leiden
    from stalign.core.domain_model import DomainModel
    from stalign.core.retrieval import Retrieval
    from stalign.tl._domains import domain_model, domains
    from stalign.tl._embed import embed
    from stalign.tl._encode import encode
    from stalign.tl._image_features import ImageFeatures
    from stalign.tl._predict_genes import predict_genes
    from stalign.tl._probe import probe
    from stalign.tl._retrieve import retrieve
    from stalign.tl._score import score
    from stalign.tl._splits import Folds

_WHERE = {
    "Folds": "stalign.tl._splits",
    "GMM": "stalign.core.clustering",
    "ImageFeatures": "stalign.tl._image_features",
    "KMeans": "stalign.core.clustering",
    "Leiden": "stalign.core.clustering",
    "Retrieval": "stalign.core.retrieval",
    "DomainModel": "stalign.core.domain_model",
    "domain_model": "stalign.tl._domains",
    "domains": "stalign.tl._domains",
    "embed": "stalign.tl._embed",
    "encode": "stalign.tl._encode",
    "predict_genes": "stalign.tl._predict_genes",
    "probe": "stalign.tl._probe",
    "retrieve": "stalign.tl._retrieve",
    "score": "stalign.tl._score",
}
__all__ = [
    "GMM",
    "DomainModel",
    "Folds",
    "ImageFeatures",
    "KMeans",
    "Leiden",
    "Retrieval",
    "domain_model",
    "domains",
    "embed",
    "encode",
    "predict_genes",
    "probe",
    "retrieve",
    "score",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    msg = f"module 'stalign.tl' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return __all__
