"""The network's configuration; `stalign-mini`, `stalign-small` and `st-align` are its values."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from stalign._constants import N_NEIGHBORS, NICHE_WINDOW_UM, VISIUM_SPOT_UM
from stalign._validate import message
from stalign.models.branches import AEGene, ConvEncoder, Features, GeneSpec, GeneTable, ImageSpec, TimmEncoder
from stalign.models.schema import Bool, Float, Int, build, configuration, key, plain

BRANCHES = ("spot_image", "niche_image", "spot_gene", "niche_gene")
_BOTH, _CODE, _OURS = "both papers", "code", "ours"
Colour = tuple[Float, Float, Float]


@configuration
class InputSpec:
    """What the network was trained to read. It travels with the weights."""

    spot_px: Annotated[Int, key("side of a spot's patch after resampling", "px of the patch", _BOTH, gt=0)] = 28
    niche_px: Annotated[Int, key("side of a niche's patch", "px of the patch", _BOTH, gt=0)] = 64
    spot_um: Annotated[
        Float, key("side of the window of a spot that is smaller, such as a bin or a cell", "µm", _OURS, gt=0)
    ] = VISIUM_SPOT_UM
    niche_um: Annotated[Float, key("side of the window of the niche of such a spot", "µm", _OURS, gt=0)] = (
        NICHE_WINDOW_UM
    )
    fixed_windows: Annotated[Bool, key("windows have these sides around spots of any size", "", _OURS)] = False
    n_neighbors: Annotated[Int, key("in a niche beside the spot itself", "spots", _BOTH, gt=0)] = N_NEIGHBORS
    include_self: Annotated[
        Bool, key("niche counts include the spot's (workshop eq. 2; arXiv: neighbours only)", "", "workshop")
    ] = True
    max_mpp: Annotated[Float, key("coarser images are not used", "µm per px of the image", _OURS, gt=0)] = 8.0
    stain: Annotated[
        Literal["section", "imagenet"],
        key('colours are standardised by those of their `"section"`, or by `mean` and `std`', "", _CODE),
    ] = "section"
    mean: Annotated[Colour, key('red, green and blue, where `stain` is "imagenet"', "0 to 1", _CODE)] = (
        0.485, 0.456, 0.406,
    )  # fmt: skip
    std: Annotated[Colour, key("likewise", "0 to 1", _CODE)] = (0.229, 0.224, 0.225)
    gene_target_sum: Annotated[
        Float, key("after normalisation; 0 leaves the counts as they are", "counts a spot", _CODE)
    ] = 1e4
    log1p: Annotated[Bool, key("take log(1 + x) after that", "", _CODE)] = True
    rank: Annotated[Int, key("of each section's own gene basis; 0 for the genes themselves", "components", _CODE)] = 50
    niche_sigma: Annotated[
        Float,
        key(
            "weigh the spots of a niche's expression by a Gaussian of the distance, to 3 σ; 0 for the niche's "
            "mean. `stalign-mini`: 80",
            "µm",
            _OURS,
        ),
    ] = 0.0
    small_sigma: Annotated[
        Float,
        key(
            "the same around spots smaller than `spot_um`, such as bins and cells, if it is less than `niche_sigma`",
            "µm",
            _OURS,
            gt=0,
        ),
    ] = 40.0
    centre: Annotated[
        Literal["section", "none"], key('`"section"` subtracts the section\'s mean expression', "", _CODE)
    ] = "section"


@configuration
class Head:
    """The projection of the flattened tokens into the space of the losses."""

    hidden: Annotated[Int, key("hidden width (code: 2048)")]
    out: Annotated[Int, key("width of the embedding (code: 1024)")]


@configuration
class LossConfig:
    """The three contrastive terms and their options."""

    temperature: Annotated[
        Float, key("τ of eq. 10 and 11: where it starts, or stays (the papers give none)", "of cosines", _CODE, gt=0)
    ] = 0.1
    learn_temperature: Annotated[Bool, key("learn it, within 0.01 and 1", "", _CODE)] = False
    lambda_spot: Annotated[
        Float, key("weight of the spot term (workshop, section 3.4; code: 0.3)", "share", "workshop")
    ] = 0.4
    lambda_niche: Annotated[
        Float, key("weight of the niche term; the spot–niche term has the rest", "share", "workshop, code")
    ] = 0.3
    symmetric: Annotated[Bool, key("image to genes and back (eq. 10; code: image to genes only)", "", _BOTH)] = True
    symmetric_cross: Annotated[Bool, key("spot to niche and back (eq. 11: spot to niche only)", "", _BOTH)] = False
    positive_in_denominator: Annotated[
        Bool, key("the sum holds the positive too (arXiv eq. 10 and 11: it does not)", "", "workshop, code")
    ] = True
    negatives: Annotated[
        Literal["in_batch", "cluster"],
        key('`"in_batch"`, or `"cluster"`: five spots of other clusters of the section, as in the code', "", _BOTH),
    ] = "in_batch"

    def __post_init__(self) -> None:
        if min(self.lambda_spot, self.lambda_niche, self.lambda_cross) < -1e-9:
            found = f"{self.lambda_spot} and {self.lambda_niche}"
            raise ValueError(
                message("Expected `lambda_spot` and `lambda_niche` >= 0 with a sum of at most 1", found=found)
            )

    @property
    def lambda_cross(self) -> float:
        """Weight of the spot-niche term (arXiv eq. 12; workshop, section 3.4)."""
        return 1 - self.lambda_spot - self.lambda_niche


@configuration
class ModelConfig:
    """The whole network. `dataclasses.replace` makes variants.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from stalign.models.config import MINI
    >>> replace(MINI, fusion="concat").fusion
    'concat'
    """

    name: Annotated[str, key("for messages and file names")]
    spot_image: Annotated[ImageSpec, key("AE-Img: conv, timm or features", "", _CODE, discriminator="kind")]
    niche_image: Annotated[ImageSpec, key("likewise (papers: features of UNI)", "", _BOTH, discriminator="kind")]
    spot_gene: Annotated[
        GeneSpec,
        key("gene_table, ae_gene or features (papers: scGPT)", "", _BOTH, discriminator="kind"),
    ]
    niche_gene: Annotated[GeneSpec, key("likewise (papers: AE-Gene)", "", _CODE, discriminator="kind")]
    head: Annotated[Head, key("`hidden` and `out`: widths of the projection heads and of the embedding", "", _CODE)]
    n_tokens: Annotated[Int, key("s, a modality and level", "tokens", _CODE, gt=0)] = 8
    token_dim: Annotated[Int, key("l, width of a token", "", _CODE, gt=0)] = 512
    n_heads: Annotated[Int, key("of the fusion network and the gene transformers", "heads", _CODE, gt=0)] = 8
    head_dim: Annotated[Int, key("width of a head of the fusion network", "", _CODE, gt=0)] = 64
    fusion: Annotated[
        Literal["abfn", "concat"],
        key('`"abfn"` (eq. 7 to 9), or `"concat"`, for the ablation (workshop, table 3)', "", _BOTH),
    ] = "abfn"
    fusion_hidden: Annotated[
        Int,
        key(
            "width of W_I and W_G between attention and fused tokens (code: 512 to 64 to 256); 0 for the papers' one "
            "linear layer each",
            "",
            _CODE,
            ge=0,
        ),
    ] = 64
    dropout: Annotated[
        Float, key("in attention and feed-forward networks, not in the ResNet", "share", "arXiv", ge=0, lt=1)
    ] = 0.1
    residual: Annotated[
        Bool, key("fused tokens are gene tokens and a correction that starts at zero, heads likewise", "", _OURS)
    ] = False
    adaptive: Annotated[
        Bool, key("`false`: encoders frozen at random, for the ablation (workshop, table 3)", "", _BOTH)
    ] = True
    input: Annotated[InputSpec, key("what it reads, the keys below")] = field(default_factory=InputSpec)
    loss: Annotated[LossConfig, key("its losses")] = field(default_factory=LossConfig)
    kind: Annotated[Literal["st-align"], key("which network it is", "", _OURS)] = "st-align"

    def __post_init__(self) -> None:
        if self.token_dim % 2:
            raise ValueError(
                message("Expected an even `token_dim`, since fusion joins two halves (eq. 9)", found=self.token_dim)
            )
        for branch in ("spot_gene", "niche_gene"):
            spec = getattr(self, branch)
            if isinstance(spec, GeneTable) and spec.width != self.flat:
                expected = f"Expected `{branch}.width` to be n_tokens * token_dim = {self.flat}"
                raise ValueError(message(expected, found=spec.width))
        if self.residual and self.head.out != self.flat:
            expected = f"Expected `head.out` to be n_tokens * token_dim = {self.flat} in a residual network"
            raise ValueError(message(expected, found=self.head.out))

    @property
    def flat(self) -> int:
        """Width of the flattened tokens, s * l."""
        return self.n_tokens * self.token_dim

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Modules of the network that each branch makes, by its key."""
        levels, table = ("spot", "niche"), ("gene_table",)
        kinds = {"image": (), "gene": table}
        return {f"{lv}_{kind}": (f"{kind}_encoders.{lv}", *more) for lv in levels for kind, more in kinds.items()}

    @property
    def backbones(self) -> dict[str, TimmEncoder]:
        """Networks of timm, by the name of the module of the network that holds each."""
        specs = {level: getattr(self, f"{level}_image") for level in ("spot", "niche")}
        return {f"image_encoders.{lv}.backbone": spec for lv, spec in specs.items() if isinstance(spec, TimmEncoder)}

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain dictionaries and lists, ready for JSON."""
        return plain(self)

    @classmethod
    def from_dict(cls, data: Any) -> ModelConfig:
        """Build a configuration from what `to_dict` returned.

        Parameters
        ----------
        data
            Nested dictionaries. Keys that are left out take their defaults.

        Raises
        ------
        ValueError
            If a key is unknown or lacking, or a value impossible; the message names the key.
        """
        return build(cls, data, where="config")


MINI = ModelConfig(
    name="stalign-mini",
    spot_image=ConvEncoder(stem="cifar"),
    niche_image=ConvEncoder(stem="strided"),
    spot_gene=GeneTable(),
    niche_gene=GeneTable(),
    head=Head(hidden=64, out=512),
    n_tokens=8,
    token_dim=64,
    n_heads=8,
    head_dim=8,
    fusion_hidden=64,
    residual=True,
    input=InputSpec(niche_sigma=80.0),
)

_LITE0 = TimmEncoder(
    "tf_efficientnet_lite0", features=424, tokens="linear", weights="efficientnet-lite0", stages=(3, 4, 5, 6)
)
SMALL = ModelConfig(
    name="stalign-small",
    spot_image=_LITE0,
    niche_image=_LITE0,
    spot_gene=GeneTable(width=256),
    niche_gene=GeneTable(width=256),
    head=Head(hidden=64, out=256),
    n_tokens=8,
    token_dim=32,
    n_heads=4,
    head_dim=8,
    fusion_hidden=32,
    residual=True,
    input=InputSpec(spot_px=64, niche_px=128, niche_sigma=80.0),
)

# The authors' code puts a batch norm and a 3x3 convolution in front of UNI; they are left out, since UNI would then see
# colours that it was not trained on. It has no heads for the niche's image and genes either, which eq. 10 needs.
ST_ALIGN = ModelConfig(
    name="st-align",
    spot_image=ConvEncoder(
        channels=(64, 128, 256, 512), blocks=(3, 4, 6, 3), block="bottleneck", stem="cifar", features=512, tokens="conv"
    ),
    niche_image=Features(dim=1024),
    spot_gene=Features(dim=512),
    niche_gene=AEGene(),
    head=Head(hidden=2048, out=1024),
    input=InputSpec(niche_px=224, stain="imagenet", rank=0, centre="none"),
)
CONFIGS = {config.name: config for config in (MINI, SMALL, ST_ALIGN)}
