"""Predict gene expression from images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._settings import logger, seed_of
from stalign._threads import few_threads
from stalign._validate import message, one_of, warn
from stalign.core.retrieval import Retrieval
from stalign.core.standardise import STANDARDS
from stalign.data import label_columns, open_sections, result_record, table_of
from stalign.tl._expression import TARGETS, ReadOptions, read_spots
from stalign.tl._gene_choice import N_GENES, RELIABLE, candidates, how_chosen, none_reliable
from stalign.tl._gene_fit import Plan, as_fitter, predict_parts
from stalign.tl._gene_result import gene_result
from stalign.tl._image_features import DEFAULT, ImageFeatures
from stalign.tl._splits import Folds, fold_table, split_spots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.tl._gene_choice import Genes
    from stalign.tl._gene_fit import Predicted

ACROSS = "patients"  # what reliability is told across: patients, or only the parts of one, or nobody knows
OTHER_PATIENT = 0.5  # of the factor, from one patient to another: the best is .43 from her2st C2 to C6 to A2
_SCOPES = {"patient": "The reference is one patient", "unknown": "The patients of the reference are not known"}
_WITHIN = (
    "genes are reliable within the reference's patient only, and shrinkage and intervals are those for further "
    "sections of that patient. Pass `patient_key` and a reference of several patients to have it tested on others."
)


@few_threads
def predict_genes(
    query: AnnData | SpatialData,
    reference: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
    *,
    genes: Genes = RELIABLE,
    use_rep: str | Sequence[str] | ImageFeatures | None = None,
    model: Any = "mean",
    split: str | Folds | None = None,
    standardise: str = "section",
    target: str = "cp10k",
    shrink: bool = True,
    coverage: float = 0.9,
    layer: str | None = None,
    total_counts: str | None = None,
    patient_key: str | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    random_state: int | None = None,
) -> AnnData:
    """Predict gene expression from the image, with a regression fitted to sections where both were measured.

    Features are standardised section by section, which takes out much of what differs in stain and scale; the query's
    own spots give its mean and spread, its counts are never used. A prediction is the level of the gene in the
    reference, plus what the features explain times a factor between 0 and 1, kept within the range seen in the
    reference. The factor is chosen on held-out patients of the reference (sections where it is one patient, regions
    where it is one section) and errs on the small side, so a gene that cannot be predicted gets its level.

    The same held-out parts say, before anything of the query is seen, which genes can be relied on and how far off
    predictions are. They can't say more than the reference holds: with one patient, reliability, factor and intervals
    are those for further sections of that patient, and another patient's level of a gene may lie elsewhere. Where the
    query is known to be another patient than the one of the reference, the factor is halved.

    Parameters
    ----------
    query
        Spots to predict, with an image or features: a section, or what `io.read_slide` returns.
    reference
        Sections to fit to, with an image or features and raw counts, one object or a list; None to hold out parts of
        `query`.
    genes
        `reliable`: of the 1000 most variable genes of the reference those that can be relied on, the best first, or, if
        there are none, 50 that are marked as not reliable; a number, for that many genes of the largest variance in the
        spots fitted to; `tl.VariableGenes`, for those that vary most within sections (with `split`, of all spots);
        names; or None for all genes of the reference. All but the first also return genes that are not reliable, marked
        as such.
    use_rep
        The obsm key of the features, or several, whose columns are put side by side; or `tl.ImageFeatures`, to have
        them computed from the image. None for `ImageFeatures(colours=(100, 250, 600))`: EfficientNet-Lite0 with
        ImageNet weights on windows of 112 and 224 µm, which stays in the feature cache, colour statistics of windows of
        these sides in µm, and the mean of both over what surrounds a spot.
    model
        `mean` of a linear ridge regression and one on a Gaussian kernel, of each source of features (encoder, colours)
        by itself; `ridge`, a linear one of all features; `kernel`, one on a Gaussian kernel over all features; `mlp`, a
        multilayer perceptron of scikit-learn with hidden layers of 256 and 128; `retrieval`, the mean of the 100
        reference spots that look most alike, or `tl.Retrieval` with other numbers, or that finds reference spots by
        their gene sentences (`match`); or an object with `fit(X, y)` and `predict(X)` for many outputs, such as any
        regressor of scikit-learn or `tl.SGD`, of which a copy is fitted for each fold.
    split
        Without a reference: `spot` predicts each spot from the other four fifths of the spots (seeded; neighbours fall
        on both sides, so this is the easiest task); or an obs column, such as that of the section or the patient, each
        of whose values is predicted from the others; or `tl.Folds`, for another number of folds. None for `spot`.
    standardise
        `section`: mean 0 and spread 1 in each section, cut off at 4; `rank`: normal scores of ranks in each section;
        `reference`: mean and spread of the reference for all, which keeps differences between sections and passes
        stain and scale on to the prediction; `none`: features as they are, which `match` needs.
    target
        `cp10k`: log1p of counts per 10,000 of a spot's total; `counts`: log1p of the counts themselves, which also
        differ with the depth of sequencing.
    shrink
        Whether predictions are shrunken as said above; else they are what the model makes of the features.
    coverage
        Share of spots that lie between `lower` and `upper`, between 0 and 1, if the query is like what was held out.
    layer
        Layer of the raw counts; None for `.X`. Of query and reference alike.
    total_counts
        obs column with each spot's total count over all genes, for tables that hold only some of the genes.
    patient_key
        obs column of the reference that names the patient of each spot; None for the column `patient`, `donor`,
        `subject` or `individual` (or with `_id`), where there is one, and else for each section by itself.
    library_key
        obs column that names the section of each spot; None for one section.
    table_key
        Table of SpatialData objects.
    random_state
        Seed of folds, regions and the MLP; None for `settings.seed`.

    Returns
    -------
    AnnData of all spots of the query by the predicted genes, with

    - X, float32: predictions, NaN for spots without features;
    - layers["lower"], layers["upper"], float32: ends of an interval for each spot, from the errors in held-out parts of
      the reference; NaN where there are too few;
    - layers["truth"], float32: the target of the measured counts, where the query has any; NaN for genes it lacks and
      for spots without counts;
    - obs of the query, and its obsm["spatial"] and uns["spatial"], whose images are shared and cannot be written to;
    - var, told from the reference alone: reliable_within, `patients` where patients were held out, `patient` where the
      reference is one (genes are then reliable within that patient only) or `unknown` where nobody says; reliability,
      the mean Pearson over held-out parts of the reference, and reliability_se, its standard error; reliable, whether
      the first less the second is at least 0.15; level, what predictions are centred on: the mean over sections or
      patients, weighted as a random-effects model does; level_sd, how far it differs between these (NaN where there is
      one); mean, the mean over spots; shrink, the factor (means over folds where there are several);
    - var, told from the query's counts: mse and mae of each gene over all spots compared, n of them; pearson, the mean
      over the query's sections; mse_mean, the error of predicting the mean of the spots fitted to; covered, the share
      of spots within the interval. Pearson is NaN for genes that vary in no section, and 0 in a section where the
      prediction does not vary;
    - uns["stalign"]["predict_genes"]: params, with split (`reference`, `spot`, `section` or `patient`), split_key,
      model, use_rep, standardise, target, coverage, genes (how they were chosen), shrink and random_state; alpha
      (penalties per spot, folds x regressions), n_candidates, n_reliable, held_out (`patient`, `section`, `region` or
      `spot`: what reliability is told from), n_units (patients or sections that give the level), n_patients (0 where
      unknown), reliable_within, carry (0.5 where the query is another patient than the one of the reference, else 1:
      part of `shrink`), n_reference, reference_sections, n_predicted, n_scored, n_constant_genes; folds (a DataFrame of
      sample, fold and n_spots, where samples are held out); and uns["stalign"]["embed"] of the query, where features of
      `tl.embed` were used.

    Reads
    -----
    - `uns["spatial"]` and `obsm["spatial"]`, or the images of a SpatialData: for the default features
    - `obsm[use_rep]`, (n_obs, width) float, where it is given; of the reference, `obsm[model.match]` too
    - `.X` or `layers[layer]`, (n_obs, n_vars): raw counts of the reference, and of the query for the truth
    - `obsm["spatial"]`, (n_obs, 2) float: to hold out regions where the reference is one section

    Raises
    ------
    KeyError
        If an embedding, gene, layer or column is missing.
    ValueError
        If there is no image to compute features of, there are no counts or fewer than two usable spots to fit to, no
        usable spot to predict, widths of features differ, a column of `split` has too few values, or both `reference`
        and `split` are given.
    TypeError
        If `model` has no `fit` and `predict`.

    Warns
    -----
    UserWarning
        If no gene is reliable.

    Notes
    -----
    The arguments are many because counts, image, scale and section can each lie elsewhere in a container; they have the
    same names in all calls, and all have defaults.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(12)
    >>> predicted = stalign.tl.predict_genes(adata, genes=5)
    >>> predicted.shape == (adata.n_obs, 5)
    True
    """
    one_of(standardise, STANDARDS, name="standardise")
    one_of(target, TARGETS, name="target")
    match = model.match if isinstance(model, Retrieval) else None
    _check(genes, coverage, match, standardise, both=reference is not None and split is not None)
    plan = Plan(as_fitter(model), standardise, seed_of(random_state), coverage, shrink=shrink)
    features = _features_named(use_rep)
    table = table_of(query, table_key)
    folds = split if isinstance(split, Folds) else Folds(split or "spot")
    column = folds.column if reference is None else None
    if column is not None and column not in table.obs:
        hint = "Pass `split='spot'`, or the column of sections or patients"
        known = label_columns(table)
        raise KeyError(
            message("Expected `split` to name a column of obs", found=repr(column), available=known, hint=hint)
        )
    how = ReadOptions(features, target, layer, total_counts, library_key or column, table_key)
    if column is not None and folds.kind == "patient" and patient_key is None:
        patient_key = column
    asked = read_spots(query, how, patient_key if reference is None or patient_key in table.obs else None)
    if not asked.usable.any():
        first = how.names[0]
        raise ValueError(message(f"Expected a spot with features in obsm[{first!r}]", found="NaN in every row"))
    parts = None
    if reference is None:
        parts = split_spots(asked, folds, table.obs[column] if column else None, plan.seed)
        source = asked if match is None else asked.beside(read_spots(query, how.of(match), patient_key))
    else:
        source = read_spots(reference, how, patient_key)
        source = source if match is None else source.beside(read_spots(reference, how.of(match), patient_key))
    asked = asked if match is None else asked.beside(None)
    patients, others = set(source.patients[source.measured]) - {""}, set(asked.patients) - {""}
    if reference is not None and len(patients) == 1 and others and not patients & others:
        plan = replace(plan, carry=OTHER_PATIENT)
    names = candidates(source, genes)
    found = predict_parts(plan, source, asked, names, parts)
    chosen = _reliable_first(found, names) if isinstance(genes, str) and genes == RELIABLE else np.arange(len(names))
    scope = _scope(patients)
    if reference is not None and scope != ACROSS and not (patients and others == patients):
        logger.warning("%s: %s", _SCOPES[scope], _WITHIN)
    params = {
        "split": folds.held_out(table.obs, library_key) if reference is None else "reference",
        "model": model if isinstance(model, str) else repr(model),
        "split_key": column,
        "use_rep": how.names,
        "standardise": standardise,
        "target": target,
        "coverage": float(coverage),
        "genes": how_chosen(genes),
        "shrink": shrink,
        "random_state": plan.seed,
    }
    noted: dict[str, Any] = {
        "n_candidates": len(names),
        "n_reliable": int(found.reliable.sum()),
        "held_out": found.fits[0].held_out,
        "n_units": found.fits[0].n_units,
        "n_patients": len(patients),
        "reliable_within": scope,
        "carry": plan.carry,
        "n_reference": found.n_fitted,
    }
    if column is not None and parts is not None:
        noted["folds"] = fold_table(parts, table.obs[column])
    if reference is not None:
        noted["reference_sections"] = _reference_sections(reference, library_key, table_key)
    if isinstance(plan.model, str):
        noted["alpha"] = np.array([fit.model.alpha for fit in found.fits])
    return gene_result(table, asked, names, found, chosen, result_record(params, **noted))


def _check(genes: Genes, coverage: float, match: str | None, standardise: str, *, both: bool) -> None:
    """Refuse options that mean nothing, or nothing together."""
    if not 0 < coverage < 1:
        raise ValueError(message("Expected `coverage` between 0 and 1", found=repr(coverage)))
    if isinstance(genes, int | np.integer) and genes < 1:
        raise ValueError(message("Expected at least one gene", found=str(genes)))
    if both:
        raise ValueError(message("Expected either `reference` or `split`", found="both"))
    if match is not None and standardise != "none":
        expected = "Expected `standardise='none'` where images are compared with what `match` names"
        raise ValueError(message(expected, found=repr(standardise), hint="Pass it"))


def _reliable_first(found: Predicted, names: np.ndarray) -> np.ndarray:
    """Choose the reliable genes, the best first, or the most variable ones with a warning where none is."""
    order = np.argsort(-np.nan_to_num(found.reliability), kind="stable")
    chosen = order[found.reliable[order]]
    if len(chosen):
        return np.asarray(chosen)
    warn(none_reliable(names, found.reliability))
    return np.arange(min(N_GENES, len(names)))


def _features_named(use_rep: str | Sequence[str] | ImageFeatures | None) -> list[str] | ImageFeatures:
    if use_rep is None:
        return DEFAULT
    if isinstance(use_rep, ImageFeatures):
        return use_rep
    return [use_rep] if isinstance(use_rep, str) else list(use_rep)


def _scope(patients: set[str]) -> str:
    """Say what reliability is told across: `patients`, or the parts of one `patient`, or `unknown`."""
    return ACROSS if len(patients) > 1 else "patient" if patients else "unknown"


def _reference_sections(
    reference: AnnData | SpatialData | Sequence[AnnData | SpatialData], library_key: str | None, table_key: str | None
) -> list[str]:
    """Name the sections of the reference."""
    parts = reference if isinstance(reference, list | tuple) else [reference]
    sections = [open_sections(part, library_key=library_key, table_key=table_key) for part in parts]
    names = [section.name for some in sections for section in some]
    return list(dict.fromkeys(names))
