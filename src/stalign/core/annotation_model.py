"""What it takes to give the spots of another section the labels of annotated ones, and the file that holds it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message
from stalign.core.annotation_features import Part, View, view_features
from stalign.core.annotation_heads import ABSENT, Fitted, Head, Linear, averaged
from stalign.core.files import write_whole
from stalign.core.mean_field import mean_field, softmax_log
from stalign.core.novelty import Novelty

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stalign.core.annotation_features import SectionData

FORMAT = "stalign-annotation-1"


@dataclass(frozen=True)
class Prediction:
    """What a model says of the spots of one section.

    Parameters
    ----------
    probability
        Class probabilities, (n, k); NaN for spots without features.
    novelty
        Share of labelled spots that are more like their class, (n,) from 0 to 1; NaN for spots without features.
    """

    probability: np.ndarray
    novelty: np.ndarray


@dataclass(frozen=True)
class AnnotationModel:
    """Labels that were learned from annotated spots, ready to be given to further ones.

    Parameters
    ----------
    names
        Name of each label, in order.
    colors
        Colour of each label, `#RRGGBB`.
    use_rep
        The obsm key of the embedding.
    width
        Columns of the embedding.
    genes
        Genes of the expression features; none where there are none.
    bases
        Principal components of each source, (r, d) or (r, g).
    views
        Components and smoothing that each classifier reads.
    heads
        A classifier per view.
    strength
        Strength of the mean field over neighbouring spots.
    temperature, final_temperature
        What log-probabilities are divided by, before and after the mean field. The strength is divided by the first
        where that is above 1.
    novelty
        Distances from the classes, in the components of the embedding.
    figures
        Held-out accuracy and what else was measured as the model was fitted.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> stalign.tl.annotate(adata, "domain")
    >>> stalign.tl.annotation_model(adata).names
    ('L1', 'L2/3', 'L4', 'L5/6', 'WM')
    """

    names: tuple[str, ...]
    colors: tuple[str, ...]
    use_rep: str
    width: int
    genes: tuple[str, ...]
    bases: Mapping[str, np.ndarray]
    views: tuple[View, ...]
    heads: tuple[Head, ...]
    strength: float
    temperature: float
    final_temperature: float
    novelty: Novelty
    figures: Mapping[str, float]

    def predict(self, section: SectionData, *, given: np.ndarray | None = None) -> Prediction:
        """Give class probabilities to the spots of a section.

        Parameters
        ----------
        section
            The section, with expression in the order of `genes`.
        given
            The class of each spot, (n,) int, -1 where it is not known; known ones are held as neighbours.

        Returns
        -------
        The prediction.
        """
        plain = self.novelty_view
        features = view_features(section, self.bases, [*self.views, plain])
        logs = averaged(features, self.views, self.heads) / self.temperature
        usable = section.usable
        smoothed = mean_field(logs, section.near, self.strength / max(self.temperature, 1.0), given=given)
        probability = np.exp(softmax_log(np.log(np.maximum(smoothed, np.exp(ABSENT))) / self.final_temperature))
        novelty = self.novelty.share_nearer(features[plain])
        probability[~usable], novelty[~usable] = np.nan, np.nan
        return Prediction(probability, novelty)

    @property
    def novelty_view(self) -> View:
        """The view that distances are measured in."""
        return (Part("rep", 0, self.novelty.means.shape[1]),)

    @property
    def can_be_saved(self) -> bool:
        """Whether all classifiers are linear."""
        return not any(isinstance(head, Fitted) for head in self.heads)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array of the model, by name."""
        found = {f"basis_{source}": basis for source, basis in self.bases.items()}
        for number, head in enumerate(self.heads):
            if isinstance(head, Fitted):
                raise TypeError(
                    message(
                        "Expected a linear classifier, such as the default or LogisticRegression, to save",
                        found=type(head.classifier).__name__,
                        hint="Only linear classifiers are written, as files hold no pickles; annotate with "
                        "`classifier='logistic'` or fit again where the model is needed",
                    )
                )
            found[f"coef_{number}"], found[f"intercept_{number}"] = head.coef, head.intercept
        novelty = self.novelty
        return found | {
            "means": novelty.means, "precision": novelty.precision, "quantiles": novelty.quantiles,
        }  # fmt: skip

    def spec(self) -> dict[str, Any]:
        """Everything but the arrays, of kinds that JSON holds."""
        return {
            "format": FORMAT,
            "names": list(self.names),
            "colors": list(self.colors),
            "use_rep": self.use_rep,
            "width": self.width,
            "genes": list(self.genes),
            "views": [[[part.source, part.passes, part.n_components] for part in view] for view in self.views],
            "strength": self.strength,
            "temperature": self.temperature,
            "final_temperature": self.final_temperature,
            "auc": self.novelty.auc,
            "figures": dict(self.figures),
        }

    def to_dict(self) -> dict[str, Any]:
        """Write the model as one JSON text and arrays, which AnnData's files can hold.

        Returns
        -------
        A dictionary that `from_dict` takes.

        Raises
        ------
        TypeError
            If a classifier is not linear.
        """
        return {"spec": json.dumps(self.spec()), **self.arrays()}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> AnnotationModel:
        """Read what `to_dict` wrote.

        Parameters
        ----------
        state
            The dictionary.

        Returns
        -------
        The model.

        Raises
        ------
        ValueError
            If an entry is missing or does not fit the others.
        """
        try:
            spec = json.loads(str(state["spec"]))
            if spec["format"] != FORMAT:
                raise ValueError(message(f"Expected the format {FORMAT}", found=repr(spec["format"])))
            arrays = {name: np.asarray(value, dtype=np.float64) for name, value in state.items() if name != "spec"}
            views = tuple(tuple(Part(str(s), int(p), int(n)) for s, p, n in view) for view in spec["views"])
            heads = tuple(Linear(arrays[f"coef_{i}"], arrays[f"intercept_{i}"]) for i in range(len(views)))
            bases = {name.removeprefix("basis_"): value for name, value in arrays.items() if name.startswith("basis_")}
            novelty = Novelty(arrays["means"], arrays["precision"], arrays["quantiles"], float(spec["auc"]))
            model = cls(
                tuple(spec["names"]), tuple(spec["colors"]), spec["use_rep"], int(spec["width"]), tuple(spec["genes"]),
                bases, views, heads, float(spec["strength"]), float(spec["temperature"]),
                float(spec["final_temperature"]), novelty, spec["figures"],
            )  # fmt: skip
            k = len(model.names)
            fits = all(
                head.coef.shape == (k, sum(part.n_components for part in view)) and head.intercept.shape == (k,)
                for view, head in zip(views, heads, strict=True)
            )
            fits &= bases["rep"].shape[1] == model.width and len(model.colors) == k and novelty.means.shape[0] == k
            fits &= all(part.n_components <= len(bases[part.source]) for view in views for part in view)
        except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
            expected = f"Expected an annotation model of the format {FORMAT}"
            raise ValueError(message(expected, found=repr(error))) from error
        if not fits:
            raise ValueError(message("Expected arrays that fit each other", found="others in this annotation model"))
        return model

    def save(self, path: str | Path) -> Path:
        """Save to one safetensors file: arrays, and the rest as JSON in its header. No pickle.

        Parameters
        ----------
        path
            Where to; `.safetensors` is added where it is missing.

        Returns
        -------
        The path written.

        Raises
        ------
        TypeError
            If a classifier is not linear.
        """
        from safetensors.numpy import save

        path = Path(path)
        path = path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")
        arrays = {name: np.ascontiguousarray(value, dtype=np.float64) for name, value in self.arrays().items()}
        return write_whole(path, save(arrays, metadata={"spec": json.dumps(self.spec())}))

    @classmethod
    def load(cls, path: str | Path) -> AnnotationModel:
        """Load what `save` wrote.

        Parameters
        ----------
        path
            The safetensors file.

        Returns
        -------
        The model.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a saved annotation model.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(message("Expected a saved annotation model", found=f"no file {str(path)!r}"))
        try:
            with safe_open(path, framework="numpy") as file:
                spec = (file.metadata() or {}).get("spec")
                state = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(message("Expected a saved annotation model", found=f"{str(path)!r}, {error}")) from error
        return cls.from_dict(state if spec is None else {"spec": spec, **state})
