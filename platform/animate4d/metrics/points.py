"""How well points were followed. numpy; positions are `[..., 2]` in any one unit, which is that of the errors."""

from __future__ import annotations

import numpy as np


def position_error(predicted: np.ndarray, true: np.ndarray, weight: np.ndarray) -> float:
    """Return the mean distance of predicted from true points.

    Args:
        predicted: `[..., 2]`.
        true: the same shape.
        weight: `[...]`, 0 for points that do not count (hidden, out of the picture, padding).

    Returns:
        The weighted mean; NaN where nothing counts.
    """
    return _mean(_distance(predicted, true), weight)


def share_within(predicted: np.ndarray, true: np.ndarray, weight: np.ndarray, threshold: float) -> float:
    """Return the share of counting points found at most `threshold` away (PCK, percentage of correct keypoints).

    Args:
        predicted: `[..., 2]`.
        true: the same shape.
        weight: `[...]`, 0 for points that do not count.
        threshold: largest distance that is still right.

    Returns:
        A share in [0, 1]; NaN where nothing counts.
    """
    return _mean(_distance(predicted, true) <= threshold, weight)


def cell_centres(height: int, width: int) -> np.ndarray:
    """Return the centres `[height * width, 2]` (x, y) of a map's cells as shares of the picture, row by row."""
    rows, columns = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return np.stack([columns, rows], axis=-1).reshape(-1, 2)


def nearest_cell(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return for points `[..., 2]` (shares of the picture) the centre of the map cell each lies in.

    Their distance is the error that remains when a matcher always finds the right cell and says its centre.
    """
    cells = np.array([width, height])
    return (np.clip(np.floor(np.asarray(points, np.float64) * cells), 0, cells - 1) + 0.5) / cells


def chance_error(true: np.ndarray, weight: np.ndarray, height: int, width: int) -> float:
    """Return the expected distance of a cell centre drawn evenly from a map; `true` as shares of the picture."""
    centres = cell_centres(height, width)
    return _mean(_distance(np.asarray(true, np.float64)[..., None, :], centres).mean(-1), weight)


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.asarray(one, np.float64) - np.asarray(other, np.float64), axis=-1)


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    total = float(np.sum(weight, dtype=np.float64))
    return float((values * weight).sum() / total) if total > 0 else float("nan")
