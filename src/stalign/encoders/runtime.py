"""Where and how precisely an encoder runs."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._settings import logger, settings
from stalign._validate import message, one_of

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16")


def pick_device(device: str | None) -> torch.device:
    """Choose a device: the one asked for, the one in the settings, CUDA where there is one, else the CPU.

    Parameters
    ----------
    device
        A torch device, or None.

    Returns
    -------
    The device.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    import torch

    name = device or settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        hint = "Pass `device='cpu'` or install a torch build for it"
        raise ValueError(message("Expected a device that torch can use", found=repr(str(name)), hint=hint)) from error
    return chosen


@cache
def fast_bf16(kind: str) -> bool:
    """Whether bfloat16 is faster than float32 on a kind of device.

    Parameters
    ----------
    kind
        Type of the torch device: `cpu`, `cuda` or `mps`.

    Returns
    -------
    True for CUDA that supports it and for CPUs with AMX or AVX512-BF16; elsewhere bfloat16 is emulated and slow.
    """
    import torch

    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    info = Path("/proc/cpuinfo")
    if kind != "cpu" or not info.is_file():
        return False
    flags = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "").split()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def check_precision(precision: str, kind: str) -> None:
    """See that a precision is known, and warn where the device only emulates it.

    Parameters
    ----------
    precision
        `fp32` or `bf16`.
    kind
        Type of the torch device.

    Raises
    ------
    ValueError
        If the precision is another one.
    """
    one_of(precision, PRECISIONS, name="precision")
    if precision == "bf16" and not fast_bf16(kind):
        logger.warning("bf16 is emulated on this %s and slower than fp32.", kind)


def autocast(device: torch.device, precision: str) -> Any:
    """Context in which a network runs at a precision.

    Parameters
    ----------
    device
        Where it runs.
    precision
        `fp32` or `bf16`. At `bf16` matrix products are done in bfloat16, sums and norms in float32: embeddings then
        agree with those at `fp32` to a cosine of about 0.999.

    Returns
    -------
    A context manager.

    Raises
    ------
    ValueError
        If the precision is another one.
    """
    import torch

    check_precision(precision, device.type)
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=torch.bfloat16)
