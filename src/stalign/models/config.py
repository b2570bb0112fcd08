"""The network's configuration: a frozen dataclass; `stalign-mini`, `stalign-small` and `st-align` are its values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from stalign._constants import N_NEIGHBORS, NICHE_WINDOW_UM, VISIUM_SPOT_UM
from stalign._validate import message, one_of
from stalign.models.parse import build, mapping, plain


@dataclass(frozen=True)
class InputSpec:
    """What the network was trained to read. It travels with the weights."""

    spot_px: int = 28  # px, side of the spot patch after resampling (both papers, section 3: 28)
    niche_px: int = 64  # px, side of the niche patch after resampling (papers: 84 to 168, resized to 224 for UNI)
    spot_um: float = VISIUM_SPOT_UM  # µm, side of the window of a smaller spot, such as a bin or a cell
    niche_um: float = NICHE_WINDOW_UM  # µm, side of the window of the niche of such a spot
    n_neighbors: int = N_NEIGHBORS  # spots beside the spot itself in a niche (papers: K = 3)
    include_self: bool = True  # the niche's mean counts include the spot (workshop eq. 2; arXiv: neighbours only)
    max_mpp: float = 8.0  # µm per image px above which the image is not used: a 55 µm spot would be under 7 px
    stain: str = (
        "section"  # "section": patches standardised by the colours of their section; "imagenet": by mean and std
    )
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # 0..1, red green blue, read where stain is "imagenet"
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)  # 0..1, likewise
    gene_target_sum: float = 1e4  # counts per spot after normalisation; 0 leaves the counts as they are
    log1p: bool = True  # take log(1 + x) after that
    rank: int = 50  # components of the section's own low-rank gene basis; 0 uses the expression itself
    niche_sigma: float = 0.0  # µm; weigh a niche's expression by a Gaussian of the distance; 0: its mean (papers)
    small_sigma: float = 40.0  # µm, the same around a smaller spot, such as a bin or a cell, if less than niche_sigma
    centre: str = "section"  # "section": subtract the section's mean expression; "none"

    def __post_init__(self) -> None:
        one_of(self.stain, ("section", "imagenet"), name="stain")
        one_of(self.centre, ("section", "none"), name="centre")
        _positive(self, "spot_px", "niche_px", "spot_um", "niche_um", "n_neighbors", "max_mpp")


@dataclass(frozen=True)
class ConvEncoder:
    """A ResNet of timm, trained from scratch (AE-Img, eq. 3)."""

    channels: tuple[int, int, int, int] = (32, 64, 128, 192)  # width of the four stages, before expansion
    blocks: tuple[int, int, int, int] = (1, 1, 1, 1)  # residual blocks of the four stages
    block: str = "basic"  # "basic" or "bottleneck" (expansion 4)
    stem: str = "cifar"  # "cifar": 3x3 stride 1; "strided": 3x3 stride 2; "imagenet": 7x7 stride 2 and max-pool
    features: int = 0  # width of a linear layer after the pool; 0 leaves it out (authors' code: 2048 -> 512)
    tokens: str = "linear"  # how the feature becomes tokens: "linear", or "conv" as in the authors' code

    def __post_init__(self) -> None:
        one_of(self.block, ("basic", "bottleneck"), name="block")
        one_of(self.stem, ("cifar", "strided", "imagenet"), name="stem")
        one_of(self.tokens, ("linear", "conv"), name="tokens")
        if len(self.channels) != 4 or len(self.blocks) != 4:
            raise ValueError(
                message("Expected four stages in `channels` and `blocks`", found=f"{self.channels}, {self.blocks}")
            )


@dataclass(frozen=True)
class TimmEncoder:
    """Any image model of timm on patches, new or pretrained, or given features computed before (eq. 4)."""

    name: str  # timm's name of the architecture, such as "vit_large_patch16_224" for UNI
    features: int  # width of its pooled output
    init_values: float = 0.0  # layer scale of a ViT; 0 for none (UNI: 1e-5)
    frozen: bool = True  # whether its weights stay as they are in training (papers: pretrained; code: trainable)
    tokens: str = "conv"  # as in ConvEncoder
    weights: str = ""  # what training starts from: "efficientnet-lite0", a file with timm's names, or "" for none
    stages: tuple[int, ...] = ()  # of an EfficientNet: cut after the last, features are their means; () for all
    rate: float = 1.0  # share of the learning rate that its weights are trained at, where not frozen

    def __post_init__(self) -> None:
        one_of(self.tokens, ("linear", "conv"), name="tokens")
        _positive(self, "rate")


@dataclass(frozen=True)
class Features:
    """Features computed once by a frozen encoder: UNI for niche images, scGPT for spot genes (eq. 4 and 5)."""

    dim: int  # width of the features (UNI 1024, scGPT 512)
    tokens: str = "conv"  # as in ConvEncoder

    def __post_init__(self) -> None:
        one_of(self.tokens, ("linear", "conv"), name="tokens")


@dataclass(frozen=True)
class GeneTable:
    """One vector per gene, summed with the expression as weight, then a small residual transformer over the tokens.

    The table starts close to an isometry and is shared by all branches that name one, so nothing that tells spots
    apart is lost before training.
    """

    width: int = 512  # length of a gene's vector; has to be n_tokens * token_dim
    layers: int = 2  # transformer layers, each the identity at the start
    hidden: int = 128  # width of their feed-forward networks


@dataclass(frozen=True)
class AEGene:
    """AE-Gene (eq. 6): an MLP to one long vector, cut into tokens, and a transformer encoder."""

    hidden: tuple[int, ...] = (1024, 512)  # widths of the MLP (authors' code: 4384 -> 1024 -> 512 -> 4384)
    width: int = 548  # width of a token in the transformer (authors' code: 4384 genes / 8 tokens)
    layers: int = 6  # transformer layers (arXiv, section 4.1)
    heads: int = 8  # attention heads (arXiv, section 4.1)
    head_dim: int = 64  # width of a head (authors' code)
    mlp: int = 1024  # width of the feed-forward networks (authors' code)
    out_hidden: int = 256  # hidden width of the last per-token MLP (authors' code: 548 -> 256 -> 512)


@dataclass(frozen=True)
class Head:
    """The projection of the flattened tokens into the space of the losses."""

    hidden: int  # hidden width (authors' code: 2048)
    out: int  # width of the embedding (authors' code: 1024)


@dataclass(frozen=True)
class LossConfig:
    """The three contrastive terms and their options."""

    temperature: float = 0.1  # tau of eq. 10 and 11 (authors' code: 0.1; the papers give none)
    learn_temperature: bool = False  # whether tau is learned, within [0.01, 1]
    lambda_spot: float = 0.4  # weight of the spot-level term (workshop, section 3.4: 0.4; authors' code: 0.3)
    lambda_niche: float = 0.3  # weight of the niche-level term; the spot-niche term has 1 - lambda_spot - lambda_niche
    symmetric: bool = True  # image to genes and genes to image (both papers, eq. 10); False: image to genes only (code)
    symmetric_cross: bool = False  # spot to niche and niche to spot; False: spot to niche only (both papers, eq. 11)
    positive_in_denominator: bool = True  # workshop and code: True; arXiv eq. 10 and 11: False
    negatives: str = "in_batch"  # "in_batch" (papers), or "cluster": given per anchor (code: five of other clusters)

    def __post_init__(self) -> None:
        one_of(self.negatives, ("in_batch", "cluster"), name="negatives")
        _positive(self, "temperature")
        if min(self.lambda_spot, self.lambda_niche, self.lambda_cross) < -1e-9:
            found = f"{self.lambda_spot} and {self.lambda_niche}"
            raise ValueError(
                message("Expected `lambda_spot` and `lambda_niche` >= 0 with a sum of at most 1", found=found)
            )

    @property
    def lambda_cross(self) -> float:
        """Weight of the spot-niche term (arXiv eq. 12; workshop, section 3.4)."""
        return 1 - self.lambda_spot - self.lambda_niche


ImageSpec = ConvEncoder | TimmEncoder | Features
GeneSpec = GeneTable | AEGene | Features
KINDS: dict[str, type] = {
    "conv": ConvEncoder,
    "timm": TimmEncoder,
    "features": Features,
    "gene_table": GeneTable,
    "ae_gene": AEGene,
}
BRANCHES = ("spot_image", "niche_image", "spot_gene", "niche_gene")


@dataclass(frozen=True)
class ModelConfig:
    """The whole network. `dataclasses.replace` makes variants.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from stalign.models.config import MINI
    >>> replace(MINI, fusion="concat").fusion
    'concat'
    """

    name: str  # for messages and file names
    spot_image: ImageSpec
    niche_image: ImageSpec
    spot_gene: GeneSpec
    niche_gene: GeneSpec
    head: Head
    n_tokens: int = 8  # s, tokens per modality and level (authors' code: 8)
    token_dim: int = 512  # l, width of a token (authors' code: 512)
    n_heads: int = 8  # attention heads of the fusion network and the gene transformers (authors' code: 8)
    head_dim: int = 64  # width of one head in the fusion network (authors' code: 64)
    fusion: str = "abfn"  # "abfn" (eq. 7 to 9), or "concat" for the ablation (workshop, table 3)
    fusion_hidden: int = 64  # hidden width of W_I and W_G (authors' code: 512 -> 64 -> 256)
    dropout: float = 0.1  # in attention and feed-forward networks, not in the ResNet (arXiv, section 4.1)
    residual: bool = False  # fused = gene tokens + a correction that starts at zero, and heads likewise
    adaptive: bool = True  # False: all encoders frozen at their initial state, for the ablation (workshop, table 3)
    input: InputSpec = field(default_factory=InputSpec)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        one_of(self.fusion, ("abfn", "concat"), name="fusion")
        _positive(self, "n_tokens", "token_dim", "n_heads", "head_dim")
        if not 0 <= self.dropout < 1:
            raise ValueError(message("Expected `dropout` in [0, 1)", found=self.dropout))
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

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain dictionaries and lists, ready for JSON."""
        result = asdict(self)
        for branch in BRANCHES:
            spec = getattr(self, branch)
            kind = next(name for name, cls in KINDS.items() if type(spec) is cls)
            result[branch] = {"kind": kind, **result[branch]}
        return plain(result)

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
        data = dict(mapping(data, "config"))
        for branch in BRANCHES:
            if branch in data:
                spec = dict(mapping(data[branch], branch))
                kind = spec.pop("kind", None)
                one_of(kind, KINDS, name=f"{branch}.kind")
                data[branch] = build(KINDS[kind], spec, branch)
        for name, part in (("head", Head), ("input", InputSpec), ("loss", LossConfig)):
            if name in data:
                data[name] = build(part, data[name], name)
        return build(cls, data, "config")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(message(f"Expected `{name}` > 0", found=getattr(config, name)))


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
