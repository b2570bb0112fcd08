"""Tools: embed, cut into domains, annotate, score, predict genes and retrieve."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stalign.core.annotation_model import AnnotationModel
    from stalign.core.clustering import GMM, KMeans, Leiden
    from stalign.core.domain_model import DomainModel
    from stalign.core.retrieval import Retrieval
    from stalign.tl._annotate import annotate
    from stalign.tl._annotation_model import annotation_model
    from stalign.tl._domains import domain_model, domains
    from stalign.tl._embed import embed
    from stalign.tl._encode import encode
    from stalign.tl._few_shot import few_shot
    from stalign.tl._gene_choice import VariableGenes
    from stalign.tl._image_features import ImageFeatures
    from stalign.tl._pathways import pathways
    from stalign.tl._predict_genes import predict_genes
    from stalign.tl._probe import probe
    from stalign.tl._regions import regions
    from stalign.tl._retrieve import retrieve
    from stalign.tl._score import score
    from stalign.tl._sentences import sentences
    from stalign.tl._sgd import SGD
    from stalign.tl._splits import Folds
    from stalign.tl._suggest import suggest
    from stalign.tl._zero_shot import zero_shot

_WHERE = {
    "AnnotationModel": "stalign.core.annotation_model",
    "Folds": "stalign.tl._splits",
    "GMM": "stalign.core.clustering",
    "ImageFeatures": "stalign.tl._image_features",
    "KMeans": "stalign.core.clustering",
    "Leiden": "stalign.core.clustering",
    "Retrieval": "stalign.core.retrieval",
    "SGD": "stalign.tl._sgd",
    "VariableGenes": "stalign.tl._gene_choice",
    "DomainModel": "stalign.core.domain_model",
    "annotate": "stalign.tl._annotate",
    "annotation_model": "stalign.tl._annotation_model",
    "domain_model": "stalign.tl._domains",
    "domains": "stalign.tl._domains",
    "embed": "stalign.tl._embed",
    "encode": "stalign.tl._encode",
    "few_shot": "stalign.tl._few_shot",
    "pathways": "stalign.tl._pathways",
    "predict_genes": "stalign.tl._predict_genes",
    "probe": "stalign.tl._probe",
    "regions": "stalign.tl._regions",
    "retrieve": "stalign.tl._retrieve",
    "score": "stalign.tl._score",
    "sentences": "stalign.tl._sentences",
    "suggest": "stalign.tl._suggest",
    "zero_shot": "stalign.tl._zero_shot",
}
__all__ = [
    "GMM",
    "SGD",
    "AnnotationModel",
    "DomainModel",
    "Folds",
    "ImageFeatures",
    "KMeans",
    "Leiden",
    "Retrieval",
    "VariableGenes",
    "annotate",
    "annotation_model",
    "domain_model",
    "domains",
    "embed",
    "encode",
    "few_shot",
    "pathways",
    "predict_genes",
    "probe",
    "regions",
    "retrieve",
    "score",
    "sentences",
    "suggest",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    msg = f"module 'stalign.tl' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return __all__
