"""Slides opened one after the other, with what is wrong with those that cannot be read."""

from __future__ import annotations

import errno
import os
import zlib
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeVar

from stalign._settings import logger, progress
from stalign._validate import message
from stalign.train.cache import NotKeptError, SectionCache, hash_of, key_of
from stalign.train.readers import features_of, read
from stalign.train.slides import open_slide
from stalign.train.survey import Survey, survey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from stalign.data import Vocabulary
    from stalign.data.spots import SpotReader
    from stalign.models.config import InputSpec
    from stalign.train.config import DataConfig
    from stalign.train.slides import Opened, Slide

T = TypeVar("T")
ADVICE = 'Mend it, list it under `exclude`, or set `data.on_error = "skip"`'
_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC}  # what the machine lacks, whatever the slide


class SlideReader:
    """Opens slides once in memory, or twice where what is made of them is kept on disk in between.

    Parameters
    ----------
    config
        What is left out, and what is done about a slide that cannot be read.
    spec
        What the network reads.
    seed
        Seed of the subsample that a section's gene basis is fitted to.
    cache
        Where what is made of slides is kept; None for memory.
    encoders
        Hash of the weights of each frozen encoder.
    advice
        What the user can do about a slide that cannot be read.
    """

    def __init__(
        self,
        config: DataConfig,
        spec: InputSpec,
        seed: int,
        cache: SectionCache | None,
        *,
        encoders: Mapping[str, str] | None = None,
        advice: str = ADVICE,
    ) -> None:
        self.config, self.spec, self.seed, self.cache, self.advice = config, spec, seed, cache, advice
        self.encoders = dict(encoders or {})
        self.opened: dict[int, Opened] = {}

    def each(self, slides: Sequence[Slide], what: str, make: Callable[[Slide], T]) -> list[T | str]:
        """Make something of each slide, or say why it cannot be read.

        Processes that share a cache start at different slides, so that each finds what the others have made.

        Parameters
        ----------
        slides
            The slides.
        what
            What is being done.
        make
            Makes it.

        Returns
        -------
        What was made of each slide, or the reason.

        Raises
        ------
        RuntimeError
            If a slide cannot be read, unless `config.on_error` is `skip`. Errors that are not of the slide pass
            through, with its name in a note.
        """
        first = 0
        if self.cache is not None:
            rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
            first = len(slides) * rank // world
        made: dict[int, T | str] = {}
        for i in progress([*range(first, len(slides)), *range(first)], desc=what, unit="slide"):
            slide = slides[i]
            try:
                made[i] = make(slide)
            except NotKeptError:  # nothing is wrong with the slide
                raise
            except Exception as error:
                if not _of_the_slide(error):
                    error.add_note(f"While reading slide {slide.name!r}.")
                    raise
                cause = _cause(error)
                if self.config.on_error == "stop":
                    msg = message(f"Cannot read slide {slide.name!r}", found=cause, hint=self.advice)
                    raise RuntimeError(msg) from error
                logger.warning("Cannot read slide %s: %s", slide.name, cause)
                made[i] = f"cannot be read: {cause}"
        return [made[i] for i in range(len(slides))]

    def survey(self, slide: Slide, by_ensembl: Mapping[str, str]) -> Survey:
        """Survey a slide.

        Parameters
        ----------
        slide
            The slide.
        by_ensembl
            Symbol of each Ensembl id.

        Returns
        -------
        The survey.
        """
        names = hash_of(sorted(by_ensembl.items()))
        key = self._key(slide, {"exclude": self.config.exclude, "least": self.config.min_spots, "names": names})
        if key is not None and self.cache is not None:
            kept = self.cache.get(f"survey-{key}", self.spec)
            if kept is not None:
                return Survey(**{name: list(value) for name, value in kept.items()})
        one = self._open(slide)
        found = survey(one, self.config, by_ensembl)
        if key is not None and self.cache is not None:
            self.cache.put(f"survey-{key}", {f.name: getattr(found, f.name) for f in fields(found)})
            self.opened.pop(id(slide))
        return found

    def readers(self, slide: Slide, found: Survey, vocabulary: Vocabulary | None) -> list[SpotReader]:
        """Make the readers of a slide's usable sections, and let the slide go.

        Parameters
        ----------
        slide
            The slide.
        found
            Its survey.
        vocabulary
            The genes of the run.

        Returns
        -------
        The readers.
        """
        genes = None if vocabulary is None else hash_of([vocabulary.symbols, vocabulary.ensembl])
        base = self._key(slide, {"input": asdict(self.spec), "genes": genes, "seed": self.seed})
        one: Opened | None = None
        features: dict[str, NDArray[np.float32]] = {}
        out = []
        for name in found.sections:
            key = None if base is None else f"section-{base}-{hash_of(name)}"
            reader = None if key is None or self.cache is None else self.cache.get(key, self.spec)
            if reader is None:
                if one is None:
                    one = self._open(slide)
                    features = features_of(one, self.config, self.spec)
                reader = read(one, name, self.spec, vocabulary, features, self.seed)
                if key is not None and self.cache is not None:
                    self.cache.put(key, reader)
                    reader = self.cache.get(key, self.spec) or reader
            out.append(reader)
        self.opened.pop(id(slide), None)
        return out

    def _open(self, slide: Slide) -> Opened:
        if id(slide) not in self.opened:
            self.opened[id(slide)] = open_slide(slide)
        return self.opened[id(slide)]

    def _key(self, slide: Slide, more: dict[str, Any]) -> str | None:
        if self.cache is None or not slide.path.exists():
            return None
        niche = {"n_neighbors": self.spec.n_neighbors, "include_self": self.spec.include_self}
        encoders = {"encoders": self.config.encoders, "weights": self.encoders}
        return key_of(slide, {**niche, **encoders, **more})


def _of_the_slide(error: Exception) -> bool:
    """Say whether an error tells of what a file or table holds, rather than of the program or the machine."""
    if isinstance(error, OSError):
        return error.errno not in _MACHINE
    if _text(error).startswith("Expected"):  # a message of this package
        return True
    if isinstance(error, KeyError):
        return " " in _text(error)  # what h5py and pandas say; a bare key is a mistake in the program
    return isinstance(error, ValueError | EOFError | zlib.error) or type(error) is RuntimeError  # as h5py's


def _text(error: Exception) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _cause(error: Exception) -> str:
    """Say what went wrong, with the kind of error where its text alone would not tell."""
    text = _text(error)
    told = text.startswith("Expected") or (isinstance(error, (OSError, ValueError)) and " " in text)
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return text if told else f"{name}: {text}".rstrip(": ")
