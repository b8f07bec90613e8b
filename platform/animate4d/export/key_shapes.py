"""Vertex trajectories as a blend of few shapes: vertex(t) = rest + sum over k of weight_k(t) * shape_k.

The best shapes in the sense of least squares are those of a singular value decomposition. What a viewer sees, and what
is bounded here, is the largest error: frames and vertices that come out worst are weighted up and the decomposition is
repeated (Lawson's algorithm, with one weight per frame and one per vertex so that it stays a decomposition).
"""

from __future__ import annotations

import numpy as np

from animate4d.assets.normals import smooth_normals
from animate4d.core.mesh import Mesh

ROUNDS = 12
"""Reweighted decompositions tried for a number of shapes before it is given up."""


def find_key_shapes(offsets: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """Find few shapes that give all trajectories with an error below `bound` at every vertex and frame.

    Args:
        offsets: `[T, N, 3]` displacements from rest; frame 0 is zero.
        bound: of the distance, in the same units.

    Returns:
        shapes `[K, N, 3]` float32, and weights `[T, K]` in [0, 1], as Blender cuts off all others; the first row is
        zero. K is 0 for what stands still and at most T - 1.
    """
    moving = offsets[1:].astype(np.float64)
    frames, count = moving.shape[:2]
    fewest = 0
    found = _decomposed(moving, 0, np.ones(frames), np.ones(count))
    while _errors(moving, *found).max(initial=0.0) > bound:
        fewest += 1
        found = _decomposed(moving, fewest, np.ones(frames), np.ones(count))
    while fewest > 1 and (better := _reweighted(moving, fewest - 1, bound)) is not None:
        fewest, found = fewest - 1, better
    shapes, weights = _positive(*found)
    if len(shapes) >= frames:
        # No fewer than one for each frame, which is exact.
        shapes, weights = moving, np.eye(frames)
    scale = np.maximum(weights.max(0, initial=0.0), 1e-12)
    rows = np.concatenate([np.zeros((1, len(shapes))), weights / scale])
    return (shapes * scale[:, None, None]).astype(np.float32), rows.astype(np.float32)


def moving_normals(mesh: Mesh, offsets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how normals change with the shapes, `[K, N, 3]` float32: the best fit over all frames.

    Args:
        mesh: at rest.
        offsets: `[T, N, 3]` displacements.
        weights: `[T, K]` of the shapes.
    """
    if weights.shape[1] == 0:
        return np.zeros((0, len(mesh.vertices), 3), np.float32)
    rest = mesh.vertices
    own = smooth_normals(rest, mesh.faces)
    keys = np.concatenate([rest, np.round(own, 3)], axis=1)
    change = np.stack([smooth_normals(rest + offset, mesh.faces, keys) for offset in offsets])
    change = (change - change[0]).reshape(len(offsets), -1)
    return (np.linalg.pinv(weights.astype(np.float64)) @ change).reshape(-1, *rest.shape).astype(np.float32)


def _positive(shapes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the same blend with weights that are not negative, by one more shape where that is needed.

    With m(t) the most negative weight, sum of w_k S_k = sum of (w_k - m) S_k + (-m) (-sum of S_k).
    """
    signs = np.where(weights.sum(0) < 0, -1.0, 1.0)
    shapes, weights = shapes * signs[:, None, None], weights * signs
    lowest = np.minimum(weights.min(1, initial=0.0), 0.0)[:, None]
    if (lowest == 0).all():
        return shapes, weights
    return np.concatenate([shapes, -shapes.sum(0, keepdims=True)]), np.concatenate([weights - lowest, -lowest], axis=1)


def _reweighted(moving: np.ndarray, shapes: int, bound: float) -> tuple[np.ndarray, np.ndarray] | None:
    rows, columns = np.ones(moving.shape[0]), np.ones(moving.shape[1])
    for _ in range(ROUNDS):
        found = _decomposed(moving, shapes, rows, columns)
        errors = _errors(moving, *found)
        worst = errors.max()
        if worst <= bound:
            return found
        rows *= np.sqrt(errors.max(1) / worst + 0.05)
        columns *= np.sqrt(errors.max(0) / worst + 0.05)
    return None


def _decomposed(
    moving: np.ndarray, shapes: int, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return shapes `[K, N, 3]` and weights `[T - 1, K]` that are best by least squares under these weights."""
    frames, count = moving.shape[:2]
    weighted = (moving * (rows[:, None, None] * columns[:, None])).reshape(frames, -1)
    # Few frames and many vertices: the small Gram matrix has the same left singular vectors.
    _, vectors = np.linalg.eigh(weighted @ weighted.T)
    basis = vectors[:, ::-1][:, :shapes]
    blends = (basis.T @ weighted).reshape(shapes, count, 3) / columns[:, None]
    return blends, basis / rows[:, None]


def _errors(moving: np.ndarray, shapes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return distances `[T - 1, N]`."""
    blended = np.einsum("tk,knc->tnc", weights, shapes)
    return np.linalg.norm(moving - blended, axis=-1)
