"""Colours and patterns of procedural objects, as vertex colours or as small tiling textures."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

PALETTE = {
    "red": (0.86, 0.16, 0.14),
    "orange": (0.96, 0.55, 0.12),
    "yellow": (0.97, 0.85, 0.22),
    "green": (0.22, 0.66, 0.26),
    "cyan": (0.14, 0.76, 0.80),
    "blue": (0.16, 0.34, 0.86),
    "purple": (0.54, 0.24, 0.76),
    "pink": (0.97, 0.52, 0.70),
    "brown": (0.48, 0.30, 0.16),
    "white": (0.94, 0.94, 0.92),
    "black": (0.10, 0.10, 0.12),
}
"""sRGB colours that captions name."""

PATTERNS = {"plain": "", "stripes": "striped", "checker": "checkered", "spots": "spotted", "gradient": "shaded"}
"""Pattern -> the word captions use."""

TILE = 64
"""Texture size in pixels; one tile holds two stripes or two checker cells."""


def linear(srgb: np.ndarray) -> np.ndarray:
    """Turn sRGB values in [0, 1] into linear light, as COLOR_0 and colour factors store them."""
    srgb = np.asarray(srgb, np.float64)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def pattern_share(pattern: str, u: np.ndarray, v: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return how much of the second colour shows, in [0, 1].

    Args:
        pattern: a key of PATTERNS.
        u: texture coordinate around, in tiles.
        v: texture coordinate along, in tiles.
        height: 0 at the bottom of the object, 1 at its top (for "gradient").

    Returns:
        An array of the common shape.
    """
    if pattern == "stripes":
        return (np.sin(2 * np.pi * v) > 0).astype(np.float64)
    if pattern == "checker":
        return (np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v) > 0).astype(np.float64)
    if pattern == "spots":
        return ((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.3**2).astype(np.float64)
    if pattern == "gradient":
        return np.clip(height + 0.0 * u, 0, 1)
    return np.zeros(np.broadcast(u, v).shape)


def texture_png(pattern: str, first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> bytes:
    """Draw one tile of a pattern between two sRGB colours, with a little grain, as PNG bytes."""
    # Four samples a pixel in each direction soften the edges of the pattern.
    grid = (np.arange(4 * TILE) + 0.5) / (4 * TILE)
    v, u = np.meshgrid(grid, grid, indexing="ij")
    share = pattern_share(pattern, u, v, v).reshape(TILE, 4, TILE, 4).mean((1, 3))[..., None]
    grain = 1 + 0.06 * rng.standard_normal((TILE, TILE, 1))
    image = (np.asarray(first) * (1 - share) + np.asarray(second) * share) * grain
    stream = io.BytesIO()
    Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()
