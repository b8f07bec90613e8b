"""Splats between the user's frame and the canonical one: positions, sizes, quaternions and harmonics turn together."""

from __future__ import annotations

import numpy as np

from animate4d.core.harmonics import turn_harmonics
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
        sh=turn_harmonics(splats.sh, rotation),
    )


def _turn_quaternions(quats: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return wxyz quaternions of `rotation` after each of `quats`."""
    from scipy.spatial.transform import Rotation

    turned = Rotation.from_matrix(rotation) * Rotation.from_quat(quats.astype(np.float64)[:, [1, 2, 3, 0]])
    return turned.as_quat()[:, [3, 0, 1, 2]]
