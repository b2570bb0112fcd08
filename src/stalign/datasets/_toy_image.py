"""The H&E-like image of the toy section: textured eosin, and nuclei that change from band to band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Texture:
    """How one band looks.

    Parameters
    ----------
    density
        Nuclei per mm².
    radius
        Mean radius of a nucleus in µm.
    elongation
        Long axis over short axis.
    eosin
        Strength of the pink background, 0 to 1.
    fibres
        Strength of stripes along the band.
    """

    density: float
    radius: float
    elongation: float
    eosin: float
    fibres: float


TEXTURES = (
    Texture(density=700, radius=3.4, elongation=1.3, eosin=0.34, fibres=0.25),
    Texture(density=2300, radius=4.2, elongation=1.2, eosin=0.40, fibres=0.10),
    Texture(density=3300, radius=3.6, elongation=1.1, eosin=0.43, fibres=0.06),
    Texture(density=1500, radius=5.2, elongation=1.5, eosin=0.46, fibres=0.14),
    Texture(density=2000, radius=3.3, elongation=2.0, eosin=0.60, fibres=0.60),
)
_COARSE = 4  # px between samples of what varies slowly
_EOSIN = np.array([0.10, 0.62, 0.30], dtype=np.float32)  # optical density per unit of stain in red, green and blue
_HAEMATOXYLIN = np.array([0.78, 0.92, 0.42], dtype=np.float32)


def _enlarge(field: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Enlarge a field that was sampled every `_COARSE` px, by bilinear interpolation."""
    large = Image.fromarray(field).resize(
        (field.shape[1] * _COARSE, field.shape[0] * _COARSE), Image.Resampling.BILINEAR
    )
    return np.asarray(large)[: shape[0], : shape[1]]


def _noise(rng: np.random.Generator, shape: tuple[int, int], grain: float) -> np.ndarray:
    """Smooth noise with mean 0 and deviation 1; `grain` is its length scale in px."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), grain, truncate=2.5)
    return np.asarray(field / field.std())


def _nuclei(
    rng: np.random.Generator,
    shape: tuple[int, int],
    mpp: float,
    domain: Field,
    angle: Field,
    textures: Sequence[Texture],
    cells: np.ndarray | None,
) -> np.ndarray:
    """Haematoxylin of the nuclei, (height, width) float32."""
    height, width = shape
    if cells is None:
        most = max(texture.density for texture in textures)
        n = rng.poisson(most * height * width * mpp**2 / 1e6)
        centre = rng.uniform((0, 0), (height, width), size=(n, 2))
        band = domain(centre[:, 1] * mpp, centre[:, 0] * mpp)
        density = np.array([texture.density for texture in textures])
        kept = (band >= 0) & (rng.random(n) < density[band] / most)
        centre, band = centre[kept], band[kept]
    else:
        centre, band = cells[:, ::-1] / mpp, domain(*cells.T)
    n = len(centre)
    radius = np.array([t.radius for t in textures])[band] / mpp * rng.lognormal(0, 0.18, n)
    stretch = np.sqrt(np.array([t.elongation for t in textures])[band] * rng.lognormal(0, 0.08, n))
    turn = angle(centre[:, 1] * mpp, centre[:, 0] * mpp) + rng.normal(0, 0.35, n)
    shape_of = np.stack([np.cos(turn), np.sin(turn), stretch, radius, rng.uniform(0.55, 1.0, n)]).astype(np.float32)
    reach = int(np.ceil(max(t.radius * np.sqrt(t.elongation) for t in textures) / mpp * 1.35))
    dy, dx = (offset.ravel().astype(np.int32) for offset in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    corner = np.floor(centre).astype(np.int32)
    shift = (centre - corner - 0.5).astype(np.float32)
    stain = np.zeros(height * width, dtype=np.float32)
    for part in (slice(start, start + 20_000) for start in range(0, n, 20_000)):
        cos, sin, long, size, strength = shape_of[:, part, None]
        row, column = corner[part, :1] + dy, corner[part, 1:] + dx
        y, x = dy.astype(np.float32) - shift[part, :1], dx.astype(np.float32) - shift[part, 1:]
        along, across = (x * cos + y * sin) / long, (y * cos - x * sin) * long
        ink = np.clip(size + np.float32(0.5) - np.sqrt(along**2 + across**2), 0, 1) * strength
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (ink > 0)
        np.maximum.at(stain, row[inside].astype(np.intp) * width + column[inside], ink[inside])
    return stain.reshape(shape)


def draw(
    rng: np.random.Generator,
    shape: tuple[int, int],
    mpp: float,
    *,
    domain: Field,
    angle: Field,
    along: Field,
    stain: np.ndarray,
    textures: Sequence[Texture] = TEXTURES,
    cells: np.ndarray | None = None,
) -> np.ndarray:
    """Draw the section.

    Parameters
    ----------
    rng
        Source of randomness.
    shape
        Height and width in px.
    mpp
        µm per px.
    domain
        Maps x and y in µm onto the index of the band, -1 outside the tissue.
    angle
        Maps x and y in µm onto the direction of the fibres in radians.
    along
        Maps x and y in µm onto the distance in µm that is constant along a fibre.
    stain
        (2,) float: how strong eosin and haematoxylin are on this slide.
    textures
        How each band looks.
    cells
        (n, 2) x and y in µm of the nuclei; None draws them by the density of the bands.

    Returns
    -------
    (height, width, 3) uint8.
    """
    y, x = np.mgrid[0 : -(-shape[0] // _COARSE), 0 : -(-shape[1] // _COARSE)].astype(np.float32) * (_COARSE * mpp)
    band = domain(x, y)
    level, fibre = (
        ndimage.gaussian_filter(np.array([0.0, *values], dtype=np.float32)[band + 1], 1.2)
        for values in ([t.eosin for t in textures], [t.fibres for t in textures])
    )
    stripes = np.sin(along(x, y).astype(np.float32) / 8.0 + 1.6 * _noise(rng, band.shape, 7.0))
    eosin = level * (1 + 0.14 * _noise(rng, band.shape, 12.0) + 0.55 * fibre * stripes) * np.float32(stain[0])
    eosin = _enlarge(eosin.astype(np.float32), shape) * (1 + np.float32(0.22) * _noise(rng, shape, 0.9))
    nuclei = ndimage.gaussian_filter(_nuclei(rng, shape, mpp, domain, angle, textures, cells), 0.5)
    nuclei = nuclei * np.float32(stain[1])
    eosin = np.maximum(eosin, 0)
    grain = rng.standard_normal(shape, dtype=np.float32) * 1.5
    image = np.empty((*shape, 3), dtype=np.uint8)
    for channel in range(3):
        light = np.float32(244) * np.exp(-(eosin * _EOSIN[channel] + nuclei * _HAEMATOXYLIN[channel])) + grain
        image[..., channel] = np.clip(light, 0, 255)
    return image
