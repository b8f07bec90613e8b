"""How much of a true motion a predicted one recovers. Pictures never judge motion: vertex error does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class VertexError(NamedTuple):
    """Mean vertex errors over all frames but the first, in shares of the diameter of the first frame's sphere.

    Attributes:
        fit: of the prediction.
        static: of not moving at all.
        ratio: fit / static; 0 is perfect, 1 as bad as standing still. NaN where the truth does not move.
    """

    fit: float
    static: float
    ratio: float


def vertex_error(predicted: np.ndarray, true: np.ndarray) -> VertexError:
    """Compare two motions of the same vertices.

    Args:
        predicted: `[T, N, 3]`.
        true: `[T, N, 3]`; its first frame is the rest pose that "not moving" keeps.

    Raises:
        ValueError: the shapes differ, or there are fewer than two frames.
    """
    if predicted.shape != true.shape or true.ndim != 3 or len(true) < 2:
        raise ValueError(f"expected two motions of one shape [T >= 2, N, 3], got {predicted.shape} and {true.shape}")
    true = true.astype(np.float64)
    diameter = 2 * np.linalg.norm(true[0] - (true[0].min(0) + true[0].max(0)) / 2, axis=1).max()
    fit = float(np.linalg.norm(predicted[1:] - true[1:], axis=-1).mean() / diameter)
    static = float(np.linalg.norm(true[:1] - true[1:], axis=-1).mean() / diameter)
    return VertexError(fit=fit, static=static, ratio=fit / static if static > 1e-9 else float("nan"))
