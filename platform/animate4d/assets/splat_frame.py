"""Splats between the user's frame and the canonical one: positions, sizes, quaternions and harmonics turn together."""

from __future__ import annotations

import numpy as np

from animate4d.core.mesh import Similarity
from animate4d.core.splats import SplatCloud


def splats_to_canonical(splats: SplatCloud, similarity: Similarity) -> SplatCloud:
    """Carry a cloud in the user's frame into the canonical frame."""
    means = similarity.apply(splats.means.astype(np.float64))
    return _moved(splats, means, similarity.rotation, similarity.scale)


def splats_to_user(splats: SplatCloud, similarity: Similarity) -> SplatCloud:
    """Carry a canonical cloud back into the user's frame."""
    means = similarity.invert(splats.means.astype(np.float64))
    return _moved(splats, means, similarity.rotation.T, 1.0 / similarity.scale)


def _moved(splats: SplatCloud, means: np.ndarray, rotation: np.ndarray, scale: float) -> SplatCloud:
    return SplatCloud(
        means=means.astype(np.float32),
        quats=_turn_quaternions(splats.quats, rotation).astype(np.float32),
        scales=(splats.scales.astype(np.float64) * scale).astype(np.float32),
        opacities=splats.opacities,
        sh=_turn_harmonics(splats.sh, rotation).astype(np.float32),
    )


def _turn_quaternions(quats: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return wxyz quaternions of `rotation` after each of `quats`."""
    from scipy.spatial.transform import Rotation

    turned = Rotation.from_matrix(rotation) * Rotation.from_quat(quats.astype(np.float64)[:, [1, 2, 3, 0]])
    return turned.as_quat()[:, [3, 0, 1, 2]]


def _turn_harmonics(sh: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Rotate `[N, K, 3]` coefficients: the colour seen along R d afterwards is the one seen along d before.

    Each band is closed under rotation, so its matrix follows from the basis at a few directions by least squares.
    """
    if sh.shape[1] == 1:
        return sh
    directions = np.random.default_rng(0).normal(size=(64, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    before, after = harmonics(directions, sh.shape[1]), harmonics(directions @ rotation.T, sh.shape[1])
    turned = sh.astype(np.float64).copy()
    for degree in range(1, round(np.sqrt(sh.shape[1]))):
        band = slice(degree**2, (degree + 1) ** 2)
        matrix = np.linalg.lstsq(after[:, band], before[:, band], rcond=None)[0]
        turned[:, band] = np.einsum("ij,njc->nic", matrix, turned[:, band])
    return turned


def harmonics(directions: np.ndarray, count: int) -> np.ndarray:
    """Evaluate the real spherical harmonics of 3DGS files at `[D, 3]` unit directions.

    Args:
        directions: where the splat is seen towards.
        count: coefficients K: 1, 4, 9 or 16.

    Returns:
        `[D, K]`, ordered by degree and order with the Condon-Shortley signs of those files.
    """
    x, y, z = directions.astype(np.float64).T
    xx, yy, zz = x * x, y * y, z * z
    one, pi = np.ones_like(x), np.pi
    first, second, third = np.sqrt(3 / (4 * pi)), np.sqrt(15 / (4 * pi)), np.sqrt(7 / (16 * pi))
    columns = [one * np.sqrt(1 / (4 * pi)), -first * y, first * z, -first * x]
    columns += [second * x * y, -second * y * z, np.sqrt(5 / (16 * pi)) * (2 * zz - xx - yy), -second * x * z]
    columns += [
        second / 2 * (xx - yy),
        -np.sqrt(35 / (32 * pi)) * y * (3 * xx - yy),
        np.sqrt(105 / (4 * pi)) * x * y * z,
    ]
    columns += [-np.sqrt(21 / (32 * pi)) * y * (4 * zz - xx - yy), third * z * (2 * zz - 3 * xx - 3 * yy)]
    columns += [-np.sqrt(21 / (32 * pi)) * x * (4 * zz - xx - yy), np.sqrt(105 / (16 * pi)) * z * (xx - yy)]
    columns += [-np.sqrt(35 / (32 * pi)) * x * (xx - 3 * yy)]
    return np.stack(columns[:count], axis=1)
