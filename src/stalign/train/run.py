"""A run before it starts: sections opened, network built, loaders and schedules wired."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stalign._validate import message, one_of
from stalign.models.branches import Features, TimmEncoder
from stalign.models.config import BRANCHES
from stalign.models.network import STAlign
from stalign.models.pretrained import start_from_pretrained
from stalign.models.run_files import as_record
from stalign.train.cache import hash_of
from stalign.train.callbacks import DIVERGED
from stalign.train.clusters import with_clusters
from stalign.train.config import resolve
from stalign.train.frozen import frozen_branches, with_features
from stalign.train.initial import genes_of, initial, start_from, warn_seen
from stalign.train.loaders import SpotData, make_sampler
from stalign.train.module import AlignModule
from stalign.train.network_config import model_config
from stalign.train.placement import place
from stalign.train.slides import as_slides
from stalign.train.store import open_store
from stalign.train.trainer import Run
from stalign.train.validation import split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stalign.models.config import LossConfig, ModelConfig
    from stalign.train.config import TrainConfig
    from stalign.train.loaders import Split
    from stalign.train.placement import Placement
    from stalign.train.store import SectionStore


@dataclass
class SectionRun(Run):
    """A run of ST-Align over sections.

    Parameters
    ----------
    config
        The configuration.
    store
        The sections.
    """

    module: AlignModule
    data: SpotData
    config: TrainConfig
    store: SectionStore


def assemble(slides: Iterable[Any] | None, config: TrainConfig) -> SectionRun:
    """Open the sections and build the network of a run.

    Parameters
    ----------
    slides
        The sections, or None for those that the configuration names.
    config
        The run.

    Returns
    -------
    The run.

    Raises
    ------
    ValueError
        If no section can be used, or training and validation cannot be told apart; see `split`.
    RuntimeError
        If a section cannot be read.
    """
    shape = model_config(config)
    placement = place(config.run)  # Lightning says now what it does not know, not after all sections have been read
    data = config.data
    given = as_slides(_named(config) if slides is None else slides, root=data.root, features=data.features)
    for branches in (data.encoders, data.features, *(slide.spec.features for slide in given)):
        for branch in branches:
            one_of(branch, BRANCHES, name="branch")
    weights = initial(config.model)
    genes = () if weights is None else genes_of(weights)
    store = open_store(given, data, shape.input, genes=genes, seed=config.seed, folder=Path(config.out) / "store")
    _check_features(store, shape)
    clusters = shape.loss.negatives == "cluster"
    if clusters:
        store.sections = [with_clusters(s, seed=config.seed) for s in store.sections]
    torch.manual_seed(config.seed)
    network = STAlign(shape, len(store.vocabulary.symbols))
    start_from_pretrained(network)
    init = None if weights is None else start_from(network, weights, store.vocabulary)
    content = store.fingerprint()
    frozen = frozen_branches(network)
    store.sections = [with_features(section, network, frozen) for section in store.sections]
    train, validation = split(store, data.validation)
    if weights is not None and validation is not None:
        warn_seen(weights, validation[0])
    more: dict[str, Any] = {"placement": placement, "clusters": clusters, "content": content, "init": init}
    return wire(config, store, network.train(), train, validation, **more)


def wire(
    config: TrainConfig,
    store: SectionStore,
    network: STAlign,
    train: Split,
    validation: Split | None,
    *,
    placement: Placement | None = None,
    loss: LossConfig | None = None,
    clusters: bool = False,
    content: list[list[Any]] | None = None,
    init: dict[str, Any] | None = None,
    advice: str = DIVERGED,
) -> SectionRun:
    """Put a network and its sections together to a run.

    Parameters
    ----------
    config
        The run.
    store
        The sections.
    network
        The network.
    train, validation
        Sections and positions of their spots.
    placement
        Where it takes place; None asks Lightning.
    loss
        Losses to train with; None takes those of the network's configuration.
    clusters
        Whether negatives come from other clusters of the same section.
    content
        What the sections hold, `store.fingerprint()`; None for what the store holds now.
    init
        What the network has of the weights that training starts from, `start_from`.
    advice
        What to do about a loss that is not finite.

    Returns
    -------
    The run.
    """
    if config.run.channels_last:
        for encoder in network.image_encoders.values():
            if not encoder.narrow:
                encoder.to(memory_format=torch.channels_last)
    placement = placement or place(config.run)
    world = placement.world_size
    per_epoch = make_sampler(train, config, world=world).steps_per_epoch
    steps = config.run.steps or max(1, round(config.run.epochs * per_epoch))
    # What a run has to have in common with the one it goes on from: all but how and where it runs.
    kept = {k: v for k, v in config.to_dict().items() if k not in {"run", "out", "card"}}
    kept["data"] = {k: v for k, v in kept["data"].items() if k not in {"root", "workers", "store", "encoder_weights"}}
    sections = [
        {"section": s.name, "donor": s.donor, "study": s.study, "spots": len(s.rows), "inputs": s.stratum}
        for s in train[0]
    ]
    meta = {
        "name": config.name,
        "licence": config.card.licence,
        "description": config.card.description,
        "training_data": sections,
        "recipe": _public(config),
        **({"init": init} if init else {}),
    }
    module = AlignModule(
        network,
        config.optim,
        steps=steps,
        warmup=round(config.optim.warmup_epochs * per_epoch),
        batch_size=config.sampler.batch_size * world,
        loss=loss,
        seed=config.seed,
        fingerprint={
            "config": kept,
            "sections": store.fingerprint() if content is None else content,
            "vocabulary": hash_of([store.vocabulary.symbols, store.vocabulary.ensembl]),
            "init": init and init["sha256"],
            "steps": steps,
            "processes": world,
        },
        advice=advice,
        weights=as_record(network, store.vocabulary.symbols, store.vocabulary.ensembl, meta),
    )
    data = SpotData(config, train, validation, steps=steps, clusters=clusters)
    records = {
        "manifest.csv": store.manifest().to_csv(index=False),
        "config.json": json.dumps(config.to_dict(), indent=1) + "\n",
    }
    return SectionRun(module, data, config.run, placement, per_epoch, config, store, records=records)


def _public(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration without the folders of this machine."""
    recipe = config.to_dict()
    recipe.pop("out")
    for folder in ("root", "encoder_weights"):
        recipe["data"].pop(folder)
    return recipe


def _check_features(store: SectionStore, shape: ModelConfig) -> None:
    """See that each branch gets what it reads in every section, before the first step."""
    for branch in BRANCHES:
        spec = getattr(shape, branch)
        width = spec.dim if isinstance(spec, Features) else spec.features if isinstance(spec, TimmEncoder) else None
        for section in store.sections:
            reader = section.reader
            given = reader.features.get(branch)
            there = reader.windows is not None if branch.endswith("image") else reader.expression is not None
            where = f"for `{branch}` in section {section.name!r}"
            untrained = isinstance(spec, TimmEncoder) and spec.frozen and not spec.weights
            if given is None and there and (isinstance(spec, Features) or untrained):
                hint = "Name an encoder in `data.encoders`, or give arrays in `features`"
                raise ValueError(message(f"Expected features {where}", found="none", hint=hint))
            if given is not None and given.shape[1] != width:
                expected = "no features" if width is None else f"features of width {width}"
                hint = f"Set `model.{branch} = {{ kind = 'features', dim = {given.shape[1]} }}`"
                raise ValueError(message(f"Expected {expected} {where}", found=f"width {given.shape[1]}", hint=hint))


def _named(config: TrainConfig) -> list[Any]:
    from stalign.train.manifest import kept_slides

    manifest = config.data.manifest
    more = kept_slides(resolve(config.data.root, manifest)) if manifest else []
    return [*config.data.sections, *more]
