"""Configuration of a training run: frozen, checked classes with their defaults."""

from __future__ import annotations

import os
from dataclasses import field
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from stalign._validate import message
from stalign.models.schema import Bool, Float, Int, configuration, key, plain
from stalign.train.best_step import check_validated
from stalign.train.options import AugmentConfig, CardConfig, OptimConfig, RunConfig, SamplerConfig

_OURS = "ours"
Patterns = tuple[str, ...]
Optional = str | None


@configuration
class SectionSpec:
    """Where one table or slide folder is, and how it is read."""

    path: Annotated[str, key("h5ad, zarr, Space Ranger folder, or the root of a collection", "path")]
    format: Annotated[
        Literal["auto", "h5ad", "spatialdata", "visium", "stimage", "hest"],
        key("`h5ad`, `spatialdata`, `visium`, `stimage` or `hest`; `auto` tells the first three apart"),
    ] = "auto"
    slide: Annotated[Optional, key("name of the slide in a collection, an STimage-1K4M or HEST copy")] = None
    donor: Annotated[Optional, key("who the slide is from, for `exclude` and `validation`")] = None
    study: Annotated[Optional, key("likewise")] = None
    organ: Annotated[Optional, key('stands before the genes of a sentence (HiBio-ST, `metadata = "prefix"`)')] = None
    disease: Annotated[Optional, key("likewise")] = None
    donor_key: Annotated[Optional, key("obs column of the donor, for tables of several")] = None
    library_key: Annotated[Optional, key("obs column that tells sections apart; none for a single section")] = None
    table_key: Annotated[Optional, key("table of a SpatialData store, where there are several")] = None
    image_key: Annotated[Optional, key("image, where there are several")] = None
    include: Annotated[Patterns, key("sections to take; all where empty", "patterns")] = ()
    exclude: Annotated[Patterns, key("sections to leave out", "patterns")] = ()
    layer: Annotated[Optional, key("layer of the raw counts; `.X` without")] = None
    total_counts: Annotated[Optional, key("obs column of the total counts, for tables of selected genes")] = None
    gene_key: Annotated[Optional, key("var column of the gene names; the index without")] = None
    orthologs: Annotated[Optional, key("table of orthologs (TSV or CSV), for other species", "path")] = None
    ortholog_columns: Annotated[
        tuple[str, ...],
        key(
            "its columns: the other species' symbol, the human one; empty takes those whose names contain `mouse` and "
            "`human` and, where there are several, `symbol`"
        ),
    ] = ()
    mpp: Annotated[Float | None, key("where the spot pitch does not tell it", "µm per px of the coordinates")] = None
    image: Annotated[Bool, key("whether to use the image")] = True
    genes: Annotated[Bool, key("whether to use the counts")] = True
    features: Annotated[
        dict[str, str],
        key("features of a branch given as arrays, (n_obs, d), in the order of the table", "path or `obsm:KEY`"),
    ] = field(default_factory=dict)


@configuration
class DataConfig:
    """What is trained on."""

    root: Annotated[str, key("where relative paths start, from the folder of this file", "path", _OURS)] = "."
    sections: Annotated[tuple[SectionSpec, ...], key("tables, as `[[data.sections]]` below", "", _OURS)] = ()
    manifest: Annotated[Optional, key("slides that a curator kept, added to `sections`", "path", _OURS)] = None
    exclude: Annotated[
        Patterns, key("sections, slides, files, donors or studies that no run may see", "patterns", _OURS)
    ] = ()
    validation: Annotated[
        Patterns,
        key(
            "sections, slides, donors or studies whose loss is logged and that are not trained on; each must fit "
            "something, and no donor and no counts may be on both sides",
            "patterns",
            _OURS,
        ),
    ] = ()
    min_spots: Annotated[Int, key("sections with fewer usable ones are dropped", "spots", "both papers", ge=1)] = 50
    max_genes: Annotated[
        Int,
        key(
            "size of the vocabulary: those in most sections, ties broken by detection and name",
            "genes",
            "ours (code: 4384, as in `st-align.toml`)",
            ge=1,
        ),
    ] = 20_000
    vocabulary: Annotated[
        Optional, key("file of further genes, one a line or in the first column of a CSV or TSV", "path", _OURS)
    ] = None
    pathways: Annotated[
        Optional, key("gene sets of HiBio-ST's pathway term, GMT or GMT.gz; none ship", "path", _OURS)
    ] = None
    encoders: Annotated[
        dict[str, str],
        key('frozen encoder of a branch of kind `features`, `{ niche_image = "uni" }`; computed once', "", _OURS),
    ] = field(default_factory=dict)
    encoder_weights: Annotated[
        dict[str, str], key('weights of an encoder, `{ uni = "uni.bin" }`; the published ones without', "path", _OURS)
    ] = field(default_factory=dict)
    features: Annotated[
        dict[str, str],
        key(
            'features given as arrays, for all slides that name none, `{ niche_image = "uni/{slide}.npy" }`',
            "path or `obsm:KEY`",
            _OURS,
        ),
    ] = field(default_factory=dict)
    store: Annotated[
        Literal["memory", "disk"], key("`memory`, or `disk`: arrays that all processes map", "", _OURS)
    ] = "memory"
    on_error: Annotated[
        Literal["stop", "skip"], key("`stop` at a section that cannot be read, or `skip` it", "", _OURS)
    ] = "stop"
    workers: Annotated[Int, key("cut patches ahead of the loop; 0 cuts them in the loop", "processes", _OURS, ge=0)] = 0


def _path(text: str) -> Path:
    """Make a path of a text, as users of TOML and of Windows write them."""
    path = Path(text).expanduser()
    if path.exists():
        return path
    if any(letter < " " for letter in text):
        hint = r"In TOML write 'D:\temp' in single quotes, or D:/temp; in double quotes \t is a tab and \n a new line"
        raise ValueError(message("Expected a path without control characters", found=repr(text), hint=hint))
    if os.name == "nt" or "\\" not in text:
        return path
    if PureWindowsPath(text).drive:
        raise ValueError(message("Expected a path on this machine", found=f"{text}, a path of Windows"))
    return Path(text.replace("\\", "/")).expanduser()


def _out(text: str) -> str:
    return str(_path(text))


@configuration
class TrainConfig:
    """A training run."""

    name: Annotated[str, key("name of the weights", "", _OURS)] = "stalign-custom"
    out: Annotated[
        str,
        AfterValidator(_out),
        key("folder of the run, from the working directory; `~` is the home folder, as in all paths", "path", _OURS),
    ] = "runs/stalign-custom"
    seed: Annotated[Int, key("seed of everything random", "", "ours (code: 42, as in `st-align.toml`)", ge=0)] = 0
    model: Annotated[
        dict[str, Any],
        key(
            "`base` names a network (`stalign-mini`, `st-align`), or `init` the weights to start from, by name or "
            "folder; further keys replace those of its configuration"
        ),
    ] = field(default_factory=dict)
    loss: Annotated[dict[str, Any], key("keys of the losses to replace")] = field(default_factory=dict)
    data: Annotated[DataConfig, key("what is trained on")] = field(default_factory=DataConfig)
    sampler: Annotated[SamplerConfig, key("how batches are drawn")] = field(default_factory=SamplerConfig)
    augment: Annotated[AugmentConfig, key("augmentation")] = field(default_factory=AugmentConfig)
    optim: Annotated[OptimConfig, key("the optimiser and its schedules")] = field(default_factory=OptimConfig)
    run: Annotated[RunConfig, key("how the loop runs")] = field(default_factory=RunConfig)
    card: Annotated[CardConfig, key("what the weights say about themselves")] = field(default_factory=CardConfig)

    def __post_init__(self) -> None:
        check_validated(self.run, validates=bool(self.data.validation))

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values that JSON can hold."""
        return plain(self)


def resolve(root: str | Path, path: str | Path) -> Path:
    """Return a path that is relative to `root`, with `~` for the user's home and either slash between folders.

    Parameters
    ----------
    root
        A folder.
    path
        A path.

    Raises
    ------
    ValueError
        If there is no such file and the path is one of Windows, or has control characters.
    """
    return _path(str(root)) / _path(str(path))
