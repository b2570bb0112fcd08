"""A run of HiBio-ST before it starts: sentences of its sections, pathways, network and schedules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from stalign._settings import logger, progress, settings
from stalign._validate import message
from stalign.core.pathways import Pathways
from stalign.core.sentences import DocumentFrequencies, sentences
from stalign.data.gene_sets import read_gmt
from stalign.models.branches import TimmEncoder
from stalign.models.gene_tokens import GeneTokens
from stalign.models.hibio import HiBioST
from stalign.models.pretrained import start_from_pretrained
from stalign.models.run_files import as_record
from stalign.train.cache import hash_of
from stalign.train.config import resolve
from stalign.train.frozen import weights_hash
from stalign.train.hibio_data import PairedSection, SentenceData, images_of
from stalign.train.hibio_module import HiBioModule
from stalign.train.initial import genes_of, initial, start_from, warn_seen
from stalign.train.loaders import make_sampler
from stalign.train.overlaps import overlaps
from stalign.train.placement import place
from stalign.train.run import SectionRun, fingerprint_of, meta_of, records_of, slides_of
from stalign.train.store import open_store
from stalign.train.validation import split

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from stalign.models.checkpoint import Checkpoint
    from stalign.models.hibio_config import HiBioConfig
    from stalign.train.config import SectionSpec, TrainConfig
    from stalign.train.placement import Placement
    from stalign.train.store import SectionStore, StoredSection

STORE = "store"
UNKNOWN = "?"  # organ or disease of a slide that nothing is said of
_CHUNK = 512  # spots whose images are encoded at one time


def assemble(slides: Iterable[Any] | None, config: TrainConfig, shape: HiBioConfig) -> SectionRun:
    """Open the sections and build the network of a run of HiBio-ST.

    Parameters
    ----------
    slides
        The sections, or None for those that the configuration names.
    config
        The run.
    shape
        The network's configuration.

    Returns
    -------
    The run. Sections without an image count for document frequencies only, those to validate on do not.

    Raises
    ------
    ValueError
        If no section has image and counts, the pathway term has no gene sets, or training and validation cannot be told
        apart; see `split`.
    FileNotFoundError
        If there is no such file of gene sets.
    RuntimeError
        If a section cannot be read.
    """
    placement = place(config.run)  # Lightning says now what it does not know, not after all sections have been read
    given = slides_of(slides, config)
    sets = _gene_sets(config, shape)
    weights = initial(config.model)
    genes = () if weights is None else genes_of(weights)
    folder = Path(config.out) / STORE
    store = open_store(given, config.data, shape.reading, genes=genes, seed=config.seed, folder=folder)
    words = {slide.name: _words(slide.spec) for slide in given} if shape.sentence.metadata == "prefix" else {}
    return wire(config, shape, store, placement, sets=sets, words=words, weights=weights)


def wire(
    config: TrainConfig,
    shape: HiBioConfig,
    store: SectionStore,
    placement: Placement,
    *,
    sets: Mapping[str, Sequence[str]] | None = None,
    words: Mapping[str, tuple[str, ...]] | None = None,
    weights: Checkpoint | None = None,
) -> SectionRun:
    """Put sections and a network together to a run.

    Parameters
    ----------
    config
        The run.
    shape
        The network's configuration.
    store
        The sections; features that they have already stand for their patches.
    placement
        Where it takes place.
    sets
        Genes of each pathway, by name; None without a pathway term.
    words
        Tokens of organ and disease, by slide.
    weights
        What training starts from, if `model.init` names some.

    Returns
    -------
    The run.

    Raises
    ------
    ValueError
        See `assemble`.
    """
    words = words or {}
    content = store.fingerprint()
    shape = replace(shape, words=tuple(sorted({word for pair in words.values() for word in pair if word != UNKNOWN})))
    symbols = store.vocabulary.symbols
    torch.manual_seed(config.seed)
    network = HiBioST(shape, len(symbols))
    start_from_pretrained(network)
    init = None if weights is None else start_from(network, weights, store.vocabulary)
    if isinstance(shape.image, TimmEncoder) and shape.image.frozen:
        store.encoders |= {"image": weights_hash(network.image_tower)[:16]}
    idf = _idf([s for s in store.sections if s.reader.expression and not s.fits(config.data.validation)], shape)
    network.idf.copy_(torch.from_numpy(idf))
    pathways = None
    if sets is not None:
        spec = shape.pathways
        pathways = Pathways.of(sets, symbols, min_genes=spec.min_genes, max_genes=spec.max_genes)
    sections = _pair(store.sections, network, symbols, idf, pathways, words, Path(config.out) / STORE)
    store = replace(store, sections=[section.stored for section in sections])
    train, validation = split(store, config.data.validation, content)
    if weights is not None and validation is not None:
        warn_seen(weights, validation[0])
    tokens = GeneTokens(symbols, shape.words)
    per_epoch = make_sampler(train, config, world=placement.world_size).steps_per_epoch
    steps = config.run.steps or max(1, round(config.run.epochs * per_epoch))
    starts: range | tuple[int, ...] = ()
    if shape.loss.region > 0:
        starts = range(shape.regions.start * per_epoch, steps, shape.regions.every * per_epoch)
    data = SentenceData(
        config, shape, tokens, sections, train, validation, steps=steps, switch=starts[0] if starts else None
    )
    module = HiBioModule(
        network.train(),
        config.optim,
        tokens=tokens,
        sections=data.paired(train),
        n_spots=sections[-1].first + len(sections[-1].genes),
        pathways=None if pathways is None else _lists(pathways, tokens),
        renewals=starts,
        steps=steps,
        warmup=round(config.optim.warmup_epochs * per_epoch),
        batch_size=config.sampler.batch_size * placement.world_size,
        seed=config.seed,
        fingerprint={
            **fingerprint_of(config, store, content),
            "pathways": None if sets is None else hash_of(sorted((name, list(genes)) for name, genes in sets.items())),
            "init": init and init["sha256"],
            "steps": steps,
            "processes": placement.world_size,
        },
        weights=as_record(
            network, symbols, store.vocabulary.ensembl, meta_of(config, train, **({"init": init} if init else {}))
        ),
    )
    records = records_of(config, store)
    return SectionRun(module, data, config.run, placement, per_epoch, config, store, records=records)


def _gene_sets(config: TrainConfig, shape: HiBioConfig) -> dict[str, tuple[str, ...]] | None:
    """Read the sets of the pathway term; None where the term is off."""
    if not shape.loss.pathway:
        return None
    if not config.data.pathways:
        hint = "Name a GMT file there, or set `loss.pathway = 0`"
        raise ValueError(message("Expected gene sets in `data.pathways` for the pathway term", found="none", hint=hint))
    return read_gmt(resolve(config.data.root, config.data.pathways))


def _words(spec: SectionSpec) -> tuple[str, ...]:
    """Tokens of the organ and the disease of a slide."""
    named = {"organ": spec.organ, "disease": spec.disease}
    return tuple(f"{kind}:{name}" if name else UNKNOWN for kind, name in named.items())


def _counts(stored: StoredSection, level: str) -> sparse.csr_matrix:
    """Raw counts of all spots in the genes of the run, or the means of their niches, CSR (n, V)."""
    expression = stored.reader.expression
    if expression is None:
        raise ValueError(message("Expected a section with counts", found=f"none for {stored.name!r}"))
    return expression.counts if level == "spot" else sparse.csr_matrix(stored.reader.graph @ expression.counts)


def _idf(corpus: Sequence[StoredSection], shape: HiBioConfig) -> NDArray[np.float32]:
    """Inverse document frequency of each gene over the spots of sections, (V,)."""
    counts = [_counts(stored, "spot")[stored.rows] for stored in corpus]
    frequencies = [DocumentFrequencies.of(part, np.asarray(part.sum(axis=0)).ravel() > 0) for part in counts]
    return sum(frequencies[1:], frequencies[0]).idf(shape.sentence.idf)


def _pair(
    stored: Sequence[StoredSection],
    network: HiBioST,
    symbols: Sequence[str],
    idf: NDArray[np.float32],
    pathways: Pathways | None,
    words: Mapping[str, tuple[str, ...]],
    folder: Path,
) -> list[PairedSection]:
    """Write the sentences of the sections that have image and counts."""
    sections: list[PairedSection] = []
    for one in stored:
        if one.reader.modality == "both":
            first = sections[-1].first + len(sections[-1].genes) if sections else 0
            own = words.get(one.slide, ())
            sections.append(_paired(one, network, symbols, idf, pathways, first, own, folder))
    if not sections:
        found = f"{len(stored)} with one of them"
        raise ValueError(message("Expected at least one section with image and counts", found=found))
    left = len(stored) - len(sections)
    logger.info("%d sections with image and counts; %d others count for document frequencies.", len(sections), left)
    return sections


def _paired(
    stored: StoredSection,
    network: HiBioST,
    symbols: Sequence[str],
    idf: NDArray[np.float32],
    pathways: Pathways | None,
    first: int,
    words: tuple[str, ...],
    folder: Path,
) -> PairedSection:
    """Write the sentences of a section, and encode its image where the tower stays as it is."""
    spec, sets = network.config.sentence, network.config.pathways
    options: dict[str, Any] = {"length": spec.length, "mode": spec.mode, "min_count": spec.min_count}
    genes = sentences(_counts(stored, spec.level), symbols, idf, **options)
    overlap = None
    if pathways is not None:
        top = sets.positives == "top"
        largest = sets.n_positives if top else None
        overlap = overlaps(pathways, genes, folder, above=0.0 if top else sets.overlap, largest=largest)
    return PairedSection(_with_features(stored, network), genes, overlap, first, words)


def _with_features(stored: StoredSection, network: HiBioST) -> StoredSection:
    """Compute once what a frozen image tower sees in each spot of a section."""
    spec, reader = network.config.image, stored.reader
    if not isinstance(spec, TimmEncoder) or not spec.frozen or "spot_image" in reader.features:
        return stored
    device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network.to(device).eval()
    values = np.zeros((len(reader), spec.features), np.float32)
    for start in progress(range(0, len(stored.rows), _CHUNK), desc=f"Encoding the image of {stored.name}"):
        rows = stored.rows[start : start + _CHUNK]
        with torch.inference_mode():
            patches = images_of(stored, rows, network.config.input.px).to(device)
            values[rows] = network.image_features(patches).float().cpu().numpy()
    return replace(stored, reader=replace(reader, features={**reader.features, "spot_image": values}))


def _lists(pathways: Pathways, tokens: GeneTokens) -> tuple[Tensor, Tensor]:
    """Genes of all pathways as tokens, (m,) int64, and where each starts, (P,) int64."""
    genes, starts = pathways.lists()
    return torch.from_numpy(genes.astype(np.int64) + tokens.offset), torch.from_numpy(starts.astype(np.int64))
