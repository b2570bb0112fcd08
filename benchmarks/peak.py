"""How much of the rate of a matrix product the image network reaches on one thread, as Markdown.

    python benchmarks/peak.py

Patches of niches through the folded network of the packaged weights, and the product of two square matrices of 2,048,
in float32 and in bfloat16; medians of nine calls, by CPU time.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

import stalign
from stalign.models.fold import folded

if TYPE_CHECKING:
    from collections.abc import Callable

_SIDE, _PATCHES = 2048, 48


def rate(call: Callable[[], object]) -> float:
    """10⁹ operations a second of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    seconds = []
    for _ in range(9):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return counter.get_total_flops() / statistics.median(seconds) / 1e9


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    checkpoint = stalign.models.load_weights("stalign-mini")
    px = checkpoint.config.input.niche_px
    patches = torch.randn(_PATCHES, 3, px, px).contiguous(memory_format=torch.channels_last)
    matrix = torch.randn(_SIDE, _SIDE)
    print("| precision | network, GFLOP/s | matrix product, GFLOP/s | share |\n|---|---:|---:|---:|")
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        network = folded(checkpoint.network, precision).image_encoders["niche"].backbone
        square = matrix.to(dtype)
        with torch.inference_mode():
            reached, peak = rate(lambda net=network: net(patches)), rate(lambda a=square: a @ a)
        print(f"| {precision} | {reached:.0f} | {peak:.0f} | {reached / peak:.2f} |")


if __name__ == "__main__":
    main()
