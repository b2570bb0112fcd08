"""Readers of the sections of an opened slide, with the features of frozen encoders that they stand on."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._validate import message
from stalign.data import Vocabulary, table_of, write
from stalign.data.spots import niche_for, read_section
from stalign.train.config import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stalign.data.spots import SpotReader
    from stalign.models.config import InputSpec
    from stalign.train.config import DataConfig
    from stalign.train.slides import Opened


def read(
    one: Opened,
    section: str,
    spec: InputSpec,
    vocabulary: Vocabulary | None,
    features: Mapping[str, NDArray[np.floating]],
    seed: int,
) -> SpotReader:
    """Make a section ready for the network.

    Parameters
    ----------
    one
        Its slide.
    section
        Its name.
    spec
        What the network reads.
    vocabulary
        The genes of the run; None where no section has counts.
    features
        Frozen features of each branch that takes some, (n_obs, d) each.
    seed
        Seed of the subsample that the gene basis is fitted to.

    Returns
    -------
    The reader.
    """
    given = one.slide.spec
    found = next(found for found in one.sections if found.name == section)
    return read_section(
        found,
        spec,
        vocabulary or Vocabulary(()),
        keys=one.keys,
        image=given.image,
        genes=given.genes and vocabulary is not None,
        features={branch: values[found.rows] for branch, values in features.items()},
        random_state=seed,
    )


def features_of(one: Opened, config: DataConfig, spec: InputSpec) -> dict[str, NDArray[np.float32]]:
    """Get frozen features: given as arrays, in the table, or computed by an encoder and cached.

    Parameters
    ----------
    one
        The slide.
    config
        Which encoders compute features.
    spec
        What the network reads.

    Returns
    -------
    Features (n_obs, d) float32 by branch.

    Raises
    ------
    KeyError
        If the table does not hold features that are named.
    ValueError
        If an array does not have a row for each spot.
    """
    found: dict[str, NDArray[np.float32]] = {}
    table, given = one.table, one.slide.spec
    for branch, where in given.features.items():
        key = where.removeprefix("obsm:")
        if where == key:
            values = np.load(resolve(one.slide.root, where))
            if len(values) != table.n_obs:
                expected = f"Expected {table.n_obs} rows of features for {branch!r} in {where!r}"
                raise ValueError(message(expected, found=len(values)))
        elif key in table.obsm:
            values = table.obsm[key]
        else:
            expected = f"Expected features of {branch} in obsm"
            raise KeyError(message(expected, found=repr(key), available=table.obsm.keys()))
        found[branch] = np.asarray(values, np.float32)
    for branch, encoder in config.encoders.items():
        level = branch.split("_")[0]
        key = f"X_{encoder}_{level}"
        if branch in found:
            continue
        if key in table.obsm:
            found[branch] = np.asarray(table.obsm[key], np.float32)
        else:
            found[branch] = _encoded(one, encoder, weights_of(config, encoder), level, spec)
    return found


def weights_of(config: DataConfig, encoder: str) -> str | None:
    """Find the weights of an encoder that a run names.

    Parameters
    ----------
    config
        Where they are; a relative path starts from `root`.
    encoder
        Name of the encoder.

    Returns
    -------
    A path, `random`, or None for the published ones.
    """
    weights = config.encoder_weights.get(encoder)
    return weights if weights in (None, "random") else str(resolve(config.root, weights))


def _encoded(one: Opened, encoder: str, weights: str | None, level: str, spec: InputSpec) -> NDArray[np.float32]:
    """Features of a slide by an encoder, of the niches of the run."""
    from stalign import tl

    given, key = one.slide.spec, "stalign_features"
    noted = {"uns": {Keys.UNS_NICHES: {"params": asdict(niche_for(spec))}}}
    own: Any = write(one.data, noted, copy=True, table_key=given.table_key)
    tl.encode(
        own,
        encoder,
        level=level,
        weights=weights,
        layer=given.layer,
        total_counts=given.total_counts,
        gene_key=given.gene_key,
        orthologs=one.slide.orthologs,
        mpp=given.mpp,
        library_key=given.library_key,
        table_key=given.table_key,
        image_key=given.image_key,
        key_added=key,
    )
    return np.asarray(table_of(own, given.table_key).obsm[key], np.float32)
