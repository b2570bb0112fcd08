"""The card of an encoder: everything known about it before anything is downloaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from stalign._validate import message, one_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Access = Literal["hub", "folder", "package", "none"]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of RGB in 0..1
_PARTS = {"cls+mean": 2, "all": 4}  # tokens that a pooling puts side by side
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Card:
    """One encoder, described.

    Parameters
    ----------
    name
        What users write, such as `uni`.
    modality
        `image` encodes patches, `gene` encodes counts.
    loader
        `module:function` (imported on first use) or a function that takes the card, the weights file or folder
        (None for random weights and for encoders without weights), the device, the precision and the seed, and
        returns an object with `encode`. Features of encoders that are given as functions are not cached.
    width
        Length of one pooled token of the encoder; `dim` is the length of what comes out.
    access
        `hub`: on the Hugging Face hub; `folder`: a file that you fetch from its authors; `package`: in a Python package
        that is installed with stalign; `none`: has no weights.
    repo, revision, files
        Hub repository (or Python package), commit or branch, and the weights files to try in turn, best first.
    sha256
        Published hashes of files, by file name.
    architecture
        The name of the network in `stalign.encoders.vision`, for image encoders.
    layout
        How the checkpoint names its tensors; see `stalign.encoders.rename`.
    input_px
        Side of the square input, px of the encoder.
    input_um
        Side of the field of view that the encoder was trained on, µm; level `native` cuts this.
    resize_px
        Side to which patches are resized before the centre of `input_px` is cut out; 0 for `input_px`.
    mean, std
        Of RGB in 0..1, subtracted and divided by.
    interpolation
        `bilinear` or `bicubic`, antialiased.
    n_parameters
        Parameters of the network that runs here.
    licence, commercial, gated
        As published; None where the sources disagree or say nothing.
    citation, url
        Where to read more.
    options
        Settings of this encoder with their defaults, such as `pool`; `get(name, pool=...)` changes them.
    choices
        The values that an option may take, by option.
    note
        What a user should know.

    Examples
    --------
    >>> import stalign
    >>> card = stalign.encoders.get("hibou-b")
    >>> card.dim, card.input_px, card.licence
    (768, 224, 'Apache-2.0')
    """

    name: str
    modality: Literal["image", "gene"]
    loader: str | Callable[..., Any]
    width: int
    access: Access = "none"
    repo: str = ""
    revision: str = "main"
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    sha256: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""
    layout: str = "timm"
    input_px: int = 224
    input_um: float = 112.0
    resize_px: int = 0
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    n_parameters: int = 0
    licence: str = ""
    commercial: bool | None = None
    gated: bool | None = None
    citation: str = ""
    url: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        one_of(self.modality, ("image", "gene"), name="modality")
        one_of(self.access, ("hub", "folder", "package", "none"), name="access")
        one_of(self.interpolation, ("bilinear", "bicubic"), name="interpolation")
        if self.access == "hub" and "/" not in self.repo:
            raise ValueError(
                message("Expected `repo` to be `owner/name` for an encoder on the hub", found=repr(self.repo))
            )
        if self.width < 1 or self.input_px < 1 or self.input_um <= 0:
            raise ValueError(message("Expected `width`, `input_px` and `input_um` to be above zero", found=self.name))

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        if "n_comps" in self.options:
            return int(self.options["n_comps"])
        return self.width * _PARTS.get(self.options.get("pool", ""), 1)

    @property
    def needs_weights(self) -> bool:
        """Whether the encoder has weights at all."""
        return self.access != "none"

    def with_options(self, **options: Any) -> Card:
        """Return a card with other options.

        Parameters
        ----------
        options
            Names and values; see `card.options`.

        Returns
        -------
        The changed card.

        Raises
        ------
        KeyError
            If the encoder has no such option.
        ValueError
            If the option does not take the value.
        """
        for key, value in options.items():
            if key not in self.options:
                raise KeyError(
                    message(f"Expected an option of the encoder {self.name!r}", found=repr(key), available=self.options)
                )
            if key in self.choices:
                one_of(value, self.choices[key], name=key)
        return replace(self, options={**self.options, **options})

    def digest(self) -> str:
        """Hash of all that decides the features apart from the weights.

        Returns
        -------
        Sixteen hexadecimal digits.
        """
        known = asdict(replace(self, loader="", n_parameters=0))
        decisive = ("name", "modality", "width", "architecture", "layout", "input_px", "resize_px", "mean", "std")
        chosen = {key: known[key] for key in (*decisive, "interpolation", "options")}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True, default=str).encode()).hexdigest()[:16]
