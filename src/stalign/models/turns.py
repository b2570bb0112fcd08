"""Mirrored and turned patches."""

from __future__ import annotations

import torch


def turn(images: torch.Tensor, flip: torch.Tensor | None, turns: torch.Tensor | None) -> torch.Tensor:
    """Mirror patches left to right, then turn them anticlockwise.

    Parameters
    ----------
    images
        Square patches, (b, 3, h, h).
    flip
        Which are mirrored, (b,); None for none.
    turns
        Quarter turns, (b,); None for none.

    Returns
    -------
    Patches, (b, 3, h, h).
    """
    out = images
    if flip is not None:
        out = torch.where(flip[:, None, None, None], out.flip(-1), out)
    if turns is not None:
        for k in (1, 2, 3):
            out = torch.where((turns == k)[:, None, None, None], torch.rot90(out, k, (-2, -1)), out)
    return out
