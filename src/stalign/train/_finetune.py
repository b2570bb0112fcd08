"""Adapting weights to the user's own sections, without labels."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping

from stalign._settings import logger, seed_of, settings
from stalign._validate import message, one_of
from stalign.data import Vocabulary, table_of
from stalign.models.checkpoint import Checkpoint, load, save
from stalign.models.weights import load_weights, of_kind
from stalign.train.best_step import MONITOR
from stalign.train.callbacks import Best, Timing
from stalign.train.config import DataConfig, SectionSpec, TrainConfig
from stalign.train.duplicates import alike
from stalign.train.frozen import weights_hash, with_features
from stalign.train.held_out import hold_out
from stalign.train.options import AugmentConfig, OptimConfig, RunConfig, SamplerConfig
from stalign.train.placement import on_device, place
from stalign.train.run import wire
from stalign.train.slides import Slide
from stalign.train.store import open_store
from stalign.train.trainer import check_folder, interruptible, make_trainer, own_randomness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.train.loaders import Split
    from stalign.train.store import StoredSection
    from stalign.train.trainer import Run

_ANCHOR = 0.02  # as in configs/stalign-mini.toml: at 1, the losses bend the space of genes, and domains are lost
_DIVERGED = "Lower `lr`, or raise `batch_size` or `temperature`"
_MEND = "Mend it, or leave it out of `data`"


def finetune(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    weights: str | Path | Checkpoint = "stalign-mini",
    *,
    modality: str = "both",
    train_images: bool = False,
    epochs: float = 20,
    max_seconds: float | None = 240,
    lr: float = 2e-4,
    temperature: float | None = None,
    batch_size: int = 256,
    held_out: float = 0.1,
    patience: int = 4,
    layer: str | None = None,
    total_counts: str | None = None,
    gene_key: str | None = None,
    orthologs: Mapping[str, str] | None = None,
    mpp: float | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    image_key: str | None = None,
    random_state: int | None = None,
    out: str | Path | None = None,
) -> Checkpoint:
    """Adapt weights to one or more sections, without labels.

    Parameters
    ----------
    data
        One table, of one or more sections, or several. They are not changed.
    weights
        Name of packaged weights, folder of a checkpoint, or weights.
    modality
        `both`, `gene` or `image`: what to train with. With `both`, a section that lacks one of them trains the other;
        otherwise a section that lacks what is asked for is left out.
    train_images
        Whether the convolutional encoders are trained as well. By default their features are computed once, which is
        many times faster, and only what follows them is trained.
    epochs
        Passes over the spots at most.
    max_seconds
        Seconds after the call at which training stops, whatever has been reached; reading the sections, features of
        their images and validation count. None for no limit.
    lr
        Learning rate for 256 spots a step.
    temperature
        Temperature of the losses; None takes that of the weights.
    batch_size
        Spots a step.
    held_out
        Share of the spots of each section, in one to four neighbourhoods drawn at random, that is not trained on;
        their loss decides when to stop and which state is kept. Spots around them whose niches reach into theirs are
        left out of both.
    patience
        Epochs without a lower held-out loss after which training stops.
    layer, total_counts, gene_key, orthologs, mpp, library_key, table_key, image_key
        As in `tl.embed`.
    random_state
        Seed; None for `settings.seed`.
    out
        Folder to write the weights to as well.

    Returns
    -------
    The weights, for `tl.embed(weights=...)`. `meta["finetune"]` has the held-out loss before and after, and in `spots`
    how many spots of each section were trained on, held out and left out, and the `centres` of what was held out, x
    and y in px of its coordinates. After Ctrl-C, the best weights so far, with a warning.

    Reads
    -----
    - `.X` or `layers[layer]`, (n_obs, n_vars): raw counts
    - `obsm["spatial"]`, (n_obs, 2) float: x and y in px of the full-resolution image
    - `uns["spatial"]`: image and scale factors of each section

    Raises
    ------
    ValueError
        If `modality` is unknown, `held_out` is not between 0 and 0.5, another number is out of range, no section has
        enough spots, one is too small to hold out a part of it, or two are the same; or `settings.device` is no device
        of this machine.
    RuntimeError
        If a section cannot be read.
    TypeError
        If `data` is neither AnnData nor SpatialData, or `weights` is no name, folder or checkpoint.
    FloatingPointError
        If the loss is not finite any more.
    OSError
        If `out` cannot be written to.
    KeyboardInterrupt
        After Ctrl-C before training has begun.

    Notes
    -----
    The criterion is the loss of the weights' own objective on spots that are held out: whether a spot's image still
    finds its genes, and a spot its niche. It needs no labels.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.datasets.toy(n_rows=12)
    >>> with st.settings.override(show_progress=False):
    ...     mine = st.train.finetune(adata, "stalign-mini", modality="gene", epochs=1)
    >>> before, after = mine.meta["finetune"]["held_out_loss"]
    >>> after <= before
    True
    >>> st.tl.embed(adata, weights=mine)
    """
    start = time.monotonic()
    one_of(modality, ("both", "gene", "image"), name="modality")
    if orthologs is not None and not isinstance(orthologs, Mapping):
        expected = "Expected `orthologs` to be a mapping from symbols of the other species to human ones"
        raise TypeError(message(expected, found=type(orthologs).__name__))
    if not isinstance(held_out, Real) or not 0 < float(held_out) < 0.5:
        raise ValueError(message("Expected `held_out` between 0 and 0.5", found=repr(held_out)))
    seed = seed_of(random_state)
    epochs, batch_size, lr = float(epochs), int(batch_size), float(lr)
    seconds = np.inf if max_seconds is None else float(max_seconds)
    for name, value, least in (
        ("epochs", epochs, 0),
        ("lr", lr, 0),
        ("max_seconds", seconds, 0),
        ("batch_size", batch_size, 1),
        ("patience", patience, 0),
        ("random_state", seed, -1),
        ("temperature", 1.0 if temperature is None else float(temperature), 0),
    ):
        if not value > least:
            raise ValueError(message(f"Expected `{name}` above {least}", found=value))
    for name, value in (("epochs", epochs), ("lr", lr)):
        if not np.isfinite(value):
            raise ValueError(message(f"Expected `{name}` to be finite", found=value))
    if out is not None:
        check_folder(Path(out).expanduser())
    try:
        placement = place(RunConfig(**on_device(settings.device)))
    except ValueError as error:
        expected, found = "Expected `settings.device` to be a device of this machine", repr(settings.device)
        raise ValueError(message(expected, found=found)) from error
    before = of_kind(load_weights(weights), "st-align")
    spec = SectionSpec(
        "data",
        library_key=library_key,
        table_key=table_key,
        image_key=image_key,
        layer=layer,
        total_counts=total_counts,
        gene_key=gene_key,
        mpp=mpp,
        image=modality != "gene",
        genes=modality != "image",
    )
    tables = list(data) if isinstance(data, (list, tuple)) else [data]
    for table in tables:
        table_of(table, table_key)  # before any work
    slides = [Slide(replace(spec, path=f"table {i}"), table, orthologs=orthologs) for i, table in enumerate(tables)]
    config = TrainConfig(
        name=before.config.name,
        seed=seed,
        data=DataConfig(min_spots=20),
        sampler=SamplerConfig(batch_size=batch_size),
        augment=AugmentConfig(),
        optim=OptimConfig(
            lr=lr, warmup_epochs=min(1.0, epochs / 4), weight_decay=0.0, weight_decay_end=0.0, anchor=_ANCHOR
        ),
        run=RunConfig(epochs=epochs, strategy="auto", tensorboard=False, **on_device(settings.device)),
    )
    loss = before.config.loss if temperature is None else replace(before.config.loss, temperature=temperature)
    loss = replace(loss, negatives="in_batch")
    with own_randomness():
        vocabulary = Vocabulary(before.vocabulary, before.ensembl)
        store = open_store(slides, config.data, before.config.input, vocabulary=vocabulary, seed=seed, advice=_MEND)
        content = store.fingerprint()
        _check_once(store.sections, [parts for *_, parts in content])
        network = copy.deepcopy(before.network)
        if not train_images:
            branches = ("spot_image", "niche_image")
            store.sections = [with_features(s, network, branches) for s in store.sections]
        train, validation, parts = _hold_out(store.sections, held_out, seed)
        more: dict[str, Any] = {"placement": placement, "loss": loss, "content": content, "advice": _DIVERGED}
        run = wire(config, store, network.train(), train, validation, **more)
        best = _train(run, patience=patience, end=start + seconds)
    record = {
        "weights": before.config.name,
        "sha256": before.sha256,
        "sections": [s.name for s in store.sections],
        "modality": modality,
        "temperature": loss.temperature,
        "step": best.step,
        "held_out_loss": [best.first, best.value],
        "spots": parts,
        "random_state": seed,
    }
    if "finetune" in before.meta:
        record["before"] = before.meta["finetune"]
    meta = {**before.meta, "finetune": record}
    logger.info("Held-out loss %.4f before, %.4f after %d steps.", best.first, best.value, best.step)
    network = network.cpu().eval()
    if out is not None:
        ensembl = before.ensembl or None
        return load(save(out, network, vocabulary=before.vocabulary, ensembl=ensembl, meta=meta, fp16=False))
    return Checkpoint(network, before.vocabulary, before.ensembl, meta, sha256=weights_hash(network))


def _train(run: Run, *, patience: int, end: float) -> Best:
    """Train until the held-out loss stops falling, the time is up or Ctrl-C comes, and put the best state back."""
    best = Best()
    # Not at the end of the one epoch; a loss that is not finite is no better one, but no reason to stop either.
    stop = EarlyStopping(MONITOR, patience=patience, check_on_train_epoch_end=False, check_finite=False)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"loggers": [], "out": Path(folder)}
        before = time.monotonic()
        with interruptible():
            make_trainer(run, callbacks=[best], **options).validate(run.module, datamodule=run.data, verbose=False)
        best.first = best.value
        stop.best_score = torch.tensor(best.first)
        now = time.monotonic()
        left = end - now - (now - before)  # a validation comes last
        if left <= 0:
            logger.warning("Nothing was trained: reading the sections and validating took all of `max_seconds`.")
            return best
        limit: dict[str, Any] = {"max_time": {"seconds": left}} if np.isfinite(left) else {}
        trainer = make_trainer(run, callbacks=[best, stop, Timing()], **options, **limit)
        try:
            with interruptible():
                trainer.fit(run.module, datamodule=run.data)
        except KeyboardInterrupt:
            done = trainer.global_step
            logger.warning(
                "Interrupted after %d steps: these are the best weights so far, of step %d.", done, best.step
            )
    run.module.load_state_dict(best.state)
    return best


def _check_once(sections: Sequence[StoredSection], content: Sequence[dict[str, str]]) -> None:
    """See that no section is there twice: what is held out of one would be trained on in the other."""
    for i, j, what in alike(sections, content):
        found = f"{sections[i].label} and {sections[j].label} hold the same {what}"
        raise ValueError(message("Expected each section once in `data`", found=found, hint="Leave one of them out"))


def _hold_out(sections: Sequence[StoredSection], share: float, seed: int) -> tuple[Split, Split, list[dict[str, Any]]]:
    """Split the spots of each section by neighbourhoods, and say how."""
    rng = np.random.default_rng(seed)
    parts = [hold_out(section, share, rng) for section in sections]
    for section, part in zip(sections, parts, strict=True):
        if len(part.train) < 2:
            expected = f"Expected section {section.name!r} to have room for neighbourhoods that are held out"
            hint = "Lower `held_out`, or leave the section out of `data`"
            raise ValueError(message(expected, found=f"{len(section.rows)} spots", hint=hint))
        logger.info(
            "%s: training on %d spots, holding out %d in %d neighbourhoods, leaving out %d around them.",
            section.name,
            len(part.train),
            len(part.held),
            len(part.centres),
            len(part.rim),
        )
    record = [part.record(section.name) for section, part in zip(sections, parts, strict=True)]
    return (list(sections), [p.train for p in parts]), (list(sections), [p.held for p in parts]), record
