"""What the image encoder makes of overlapping windows if they share convolutions, as Markdown.

    python benchmarks/strips.py --image ../shared/data/her2st/images/C2.jpg --mpp 0.688

Every convolution pads a window with zeros at its border. So layers that run over the whole tissue once, of which
windows are then cut, give other features than those of each window alone. Windows lie on a lattice on which the layers
can be cut without moving them, so that what is measured is the padding and nothing else. r and error are those of the
image embedding, as `benchmarks/hd.py` has them for `image_step`. To cut windows of bins anywhere, the shared layers
have to run once for each px of their stride, which the work counts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from hd import difference
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import stalign
from stalign.models.batch import Batch
from stalign.models.fold import folded

STAGES = ("layer1", "layer2", "layer3", "layer4")
WINDOW_UM = 200.0
BIN_UM = 8.0
Image.MAX_IMAGE_PIXELS = None  # the image is known


def tissue(file: Path, mpp: float, side: int, px_um: float) -> np.ndarray:
    """Cut the middle of an image, side px of px_um µm each."""
    with Image.open(file) as image:
        centre, half = np.array(image.size) / 2, side * px_um / mpp / 2
        box = (*(centre - half), *(centre + half))
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR, box=box))


def through(net: torch.nn.Module, image: torch.Tensor, shared: int) -> tuple[torch.Tensor, int]:
    """Features of an image after the stem and some layers, and how many px apart they lie."""
    with torch.inference_mode():
        found = net.maxpool(net.act1(net.bn1(net.conv1(image))))
        for name in STAGES[:shared]:
            found = getattr(net, name)(found)
    return found, image.shape[-1] // found.shape[-1]


def rest(net: torch.nn.Module, found: torch.Tensor, shared: int) -> torch.Tensor:
    """Features (b, d) of windows that have been through some of the layers."""
    with torch.inference_mode():
        for name in STAGES[shared:]:
            found = getattr(net, name)(found)
        return net.global_pool(found)


def windows(values: torch.Tensor, width: int, step: int) -> torch.Tensor:
    """Cut all windows, (b, c, width, width), `step` apart."""
    cut = values[0].unfold(1, width, step).unfold(2, width, step)  # (c, rows, columns, width, width)
    return cut.permute(1, 2, 0, 3, 4).reshape(-1, cut.shape[0], width, width).contiguous()


def gflop(function, *given) -> float:
    """Work of a call, in 10⁹ operations."""
    with FlopCounterMode(display=False) as counter:
        function(*given)
    return counter.get_total_flops() / 1e9


def main() -> None:
    """Measure each number of shared layers and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--mpp", type=float, required=True, help="µm per px of the image")
    parser.add_argument("--weights", default="stalign-mini")
    parser.add_argument("--side", type=int, default=768, help="px of the network, default: %(default)s")
    arguments = parser.parse_args()
    checkpoint = stalign.models.load_weights(arguments.weights)
    px = checkpoint.config.input.niche_px
    picture = tissue(arguments.image, arguments.mpp, arguments.side, WINDOW_UM / px)
    network = folded(checkpoint.network)
    encoder = network.image_encoders["niche"]
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    mean, std = pixels.mean(dim=(2, 3), keepdim=True), pixels.std(dim=(2, 3), keepdim=True)
    image = (pixels - mean) / std
    bins = (px * BIN_UM / WINDOW_UM) ** -2  # windows of bins for each px of tissue

    def embedding(features: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            tokens = encoder.tokens(features)
            batch = Batch(section=torch.zeros(len(tokens), dtype=torch.long), niche_image=tokens)
            return network.embed(batch, level="niche").image.numpy()

    step = 16  # px, on which windows can be cut after any layer
    alone = windows(image, px, step)
    exact = embedding(rest(encoder.backbone, through(encoder.backbone, alone, 0)[0], 0))
    one = gflop(lambda: rest(encoder.backbone, through(encoder.backbone, alone[:1], 0)[0], 0))
    print(f"{len(alone)} windows of {WINDOW_UM:g} µm in {px} px, {one * 1000:.0f} MFLOP each; bins of {BIN_UM:g} µm\n")
    print("| run once over the tissue | r | error | work, share of that of each window |\n|---|---:|---:|---:|")
    for shared in range(len(STAGES) + 1):
        found, stride = through(encoder.backbone, image, shared)
        cut = windows(found, px // stride, step // stride)
        facts = difference(exact, embedding(rest(encoder.backbone, cut, shared)))
        whole = gflop(through, encoder.backbone, image, shared) / image[0, 0].numel() / bins * stride**2
        after = gflop(rest, encoder.backbone, cut[:1], shared)
        name = "stem" + "".join(f", {layer}" for layer in STAGES[:shared])
        print(f"| {name} | {facts['r']:.3f} | {facts['error']:.2f} | {(whole + after) / one:.2f} |")


if __name__ == "__main__":
    main()
