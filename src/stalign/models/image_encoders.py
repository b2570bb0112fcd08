"""Image encoders: a patch to tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from stalign._validate import message
from stalign.models.branches import ConvEncoder, Features, TimmEncoder
from stalign.models.stages import PIXELS, Stages
from stalign.models.tokens import Tokens

if TYPE_CHECKING:
    from stalign.models.branches import ImageSpec
    from stalign.models.config import ModelConfig


class ImageEncoder(Protocol):
    """Anything that makes (B, s, l) tokens of (B, 3, h, w) standardised patches, or of (B, d) features of them."""

    def __call__(self, image: Tensor) -> Tensor:
        """Return the tokens."""


def image_encoder(spec: ImageSpec, config: ModelConfig) -> BackboneEncoder:
    """Build the encoder that a specification describes.

    Parameters
    ----------
    spec
        The encoder.
    config
        The network that it is part of.
    """
    n_features = features_of(spec)
    tokens = Tokens(n_features, n_tokens=config.n_tokens, token_dim=config.token_dim, kind=spec.tokens)
    return BackboneEncoder(backbone(spec), tokens, n_features=n_features)


def backbone(spec: ImageSpec) -> nn.Module | None:
    """Build the network from patches (B, 3, h, w) to features (B, d), or None where only features come.

    Parameters
    ----------
    spec
        The encoder.
    """
    if isinstance(spec, Features):
        return None
    return _timm(spec) if isinstance(spec, TimmEncoder) else _resnet(spec)


def features_of(spec: ImageSpec) -> int:
    """Tell the width of the features of an encoder.

    Parameters
    ----------
    spec
        The encoder.
    """
    if isinstance(spec, Features):
        return spec.dim
    return spec.features if isinstance(spec, TimmEncoder) else spec.features or _pooled(spec)


class BackboneEncoder(nn.Module):
    """A backbone from patch to feature, then tokens. Given features, it makes only the tokens.

    Parameters
    ----------
    backbone
        (B, 3, h, w) -> (B, d), or None where only features come.
    tokens
        (B, d) -> (B, s, l).
    n_features
        d.
    """

    def __init__(self, backbone: nn.Module | None, tokens: Tokens, *, n_features: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokens = tokens
        self.n_features = n_features
        # Of fewer than 8 channels that come last in memory, oneDNN's AVX2 kernels spoil the heap (torch 2.14).
        convolutions = [] if backbone is None else [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
        self.convolutional = len(convolutions) > 1  # a ViT has the one that cuts its patch
        self.narrow = min((m.out_channels for m in convolutions), default=8) < 8

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, s, l) tokens.

        Parameters
        ----------
        image
            (B, 3, h, w) float, standardised; or (B, d) float features.

        Raises
        ------
        ValueError
            If the shape is neither, or patches come where there is no backbone.
        """
        if image.ndim == 2 and image.shape[1] == self.n_features:
            return self.tokens(image)
        if image.ndim != 4 or image.shape[1] != 3 or self.backbone is None:
            patches = "" if self.backbone is None else "patches (B, 3, h, w) or "
            expected = f"Expected {patches}features (B, {self.n_features}) for this image encoder"
            raise ValueError(message(expected, found=f"shape {tuple(image.shape)}"))
        image = image.contiguous() if self.narrow else image
        together = len(image)
        if self.convolutional and image.device.type == "cpu" and not self.training and not torch.is_grad_enabled():
            together = PIXELS // (image.shape[2] * image.shape[3])
        features = torch.cat([self.backbone(part) for part in image.split(max(1, together))])
        return self.tokens(features)  # (B, 3, h, w) -> (B, d) -> (B, s, l)


def standardise(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Put colours on a common scale: (image - mean) / std, per channel.

    Parameters
    ----------
    image
        (B, 3, h, w) uint8, or float on the scale 0..1.
    mean
        (B, 3) or (1, 3) float on the scale 0..1.
    std
        (B, 3) or (1, 3) float on the scale 0..1; at least one grey level is used.

    Returns
    -------
    (B, 3, h, w), of the dtype of `mean`.
    """
    scale = 1 / 255 if image.dtype == torch.uint8 else 1.0
    spread = std.clamp(min=1 / 255)
    slope, shift = scale / spread, -mean / spread
    return image.to(mean.dtype) * slope[:, :, None, None] + shift[:, :, None, None]  # (B, 3) -> (B, 3, 1, 1)


def _resnet(spec: ConvEncoder) -> nn.Module:
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    block: Any = BasicBlock if spec.block == "basic" else Bottleneck
    net: Any = ResNet(block, spec.blocks, channels=spec.channels, num_classes=spec.features)
    if spec.stem != "imagenet":  # the stem of timm is the one for 224 px
        stride = 1 if spec.stem == "cifar" else 2
        net.conv1 = nn.Conv2d(3, net.conv1.out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()
    return net


def _pooled(spec: ConvEncoder) -> int:
    return spec.channels[-1] * (1 if spec.block == "basic" else 4)


def _timm(spec: TimmEncoder) -> nn.Module:
    import timm

    more: dict[str, Any] = {"init_values": spec.init_values, "dynamic_img_size": True} if spec.init_values else {}
    net: Any = timm.create_model(spec.name, pretrained=False, num_classes=0, **more)
    net = Stages(net, spec.stages) if spec.stages else net
    if net.num_features != spec.features:
        expected = f"Expected `features` to be the width of {spec.name}, {net.num_features}"
        raise ValueError(message(expected, found=spec.features))
    return net
