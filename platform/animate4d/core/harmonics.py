"""Real spherical harmonics as 3DGS files order and sign them: the colour of a splat by the direction it is seen in."""

from __future__ import annotations

import numpy as np

SH0 = 0.28209479177387814
"""Value of the constant harmonic: RGB = 0.5 + SH0 * sh[:, 0] where there are no others."""

_ROWS = 1 << 13
"""Splats turned at a time, which bounds the scratch memory to some 150 MB."""


def harmonics(directions: np.ndarray, count: int) -> np.ndarray:
    """Evaluate the basis at unit directions.

    Args:
        directions: `[..., 3]` from the camera to the splat.
        count: coefficients K: 1, 4, 9 or 16.

    Returns:
        `[..., K]`, ordered by degree and order, with the Condon-Shortley signs of the files.
    """
    if count == 1:
        return np.full((*directions.shape[:-1], 1), SH0)
    x, y, z = np.moveaxis(directions.astype(np.float64), -1, 0)
    one, pi = np.ones_like(x), np.pi
    first, second, third = np.sqrt(3 / (4 * pi)), np.sqrt(15 / (4 * pi)), np.sqrt(7 / (16 * pi))
    columns = [SH0 * one, -first * y, first * z, -first * x]
    if count > 4:
        xx, yy, zz = x * x, y * y, z * z
        columns += [second * x * y, -second * y * z, np.sqrt(5 / (16 * pi)) * (2 * zz - xx - yy), -second * x * z]
        columns += [second / 2 * (xx - yy)]
    if count > 9:
        columns += [-np.sqrt(35 / (32 * pi)) * y * (3 * xx - yy), np.sqrt(105 / (4 * pi)) * x * y * z]
        columns += [-np.sqrt(21 / (32 * pi)) * y * (4 * zz - xx - yy), third * z * (2 * zz - 3 * xx - 3 * yy)]
        columns += [-np.sqrt(21 / (32 * pi)) * x * (4 * zz - xx - yy), np.sqrt(105 / (16 * pi)) * z * (xx - yy)]
        columns += [-np.sqrt(35 / (32 * pi)) * x * (xx - 3 * yy)]
    return np.stack(columns, axis=-1)


def turn_harmonics(sh: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Rotate coefficients with the splats: the colour seen along R d afterwards is the one seen along d before.

    Each band is closed under rotation, so the new coefficients follow exactly from the turned colours at a few fixed
    directions.

    Args:
        sh: `[N, K, 3]`.
        rotations: `[3, 3]` for all of them, or `[N, 3, 3]` one each.

    Returns:
        `[N, K, 3]` of the type of `sh`; the constant coefficients are those given.
    """
    count = sh.shape[1]
    if count == 1:
        return sh
    # a spiral of 32 points on the sphere: twice as many as coefficients, well spread
    height = 1 - (2 * np.arange(32) + 1) / 32
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(32)
    radius = np.sqrt(1 - height**2)
    fixed = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], -1)
    inverse = np.linalg.pinv(harmonics(fixed, count))
    turned = np.empty_like(sh)
    for start in range(0, len(sh), _ROWS):
        rows = slice(start, start + _ROWS)
        # R^T d as a row is d R
        before = fixed @ (rotations if rotations.ndim == 2 else rotations[rows])
        turned[rows] = (inverse @ harmonics(before, count)) @ sh[rows]
    turned[:, 0] = sh[:, 0]
    return turned
