"""How close a generated video is to the true one, and whether it moves as it should. numpy, videos in [0, 1].

PSNR rewards fading a limb out over moving it slightly wrong, so read slope and retrieval beside it.
"""

from __future__ import annotations

import numpy as np


def psnr(video: np.ndarray, truth: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB of `[..., 3]` videos in [0, 1]; infinite where they agree."""
    return _decibels(np.square(_difference(video, truth)).mean())


def masked_psnr(video: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Return PSNR in dB over masked pixels.

    Args:
        video: `[V, T, H, W, 3]` in [0, 1].
        truth: the same shape.
        mask: `[V, T, H, W]` weights in [0, 1], see `changed_region`; infinite PSNR where it is empty.
    """
    squared = np.square(_difference(video, truth)).mean(-1)
    return _decibels((squared * mask).sum() / max(float(mask.sum()), 1e-12))


def changed_region(alpha: np.ndarray) -> np.ndarray:
    """Return the `[V, T, H, W]` region where the object is now or was in frame 0, from coverage in [0, 1].

    Ghosts left at the old place therefore count.
    """
    return np.maximum(alpha > 0, alpha[:, :1] > 0).astype(np.float64)


def motion_ratio(video: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean absolute change from frame 0 of `[V, T, ...]` as a share of the true one; 0 is a still."""
    return float(np.abs(_change(video)).mean() / max(float(np.abs(_change(truth)).mean()), 1e-12))


def motion_slope(video: np.ndarray, truth: np.ndarray) -> float:
    """Return the projection of the change from frame 0 on the true change.

    1 is the right motion at the right strength, 0 none of it.
    """
    true = _change(truth)
    return float((_change(video) * true).sum() / max(float(np.square(true).sum()), 1e-12))


def retrieval(video: np.ndarray, candidates: list[np.ndarray]) -> int:
    """Return which candidate `[V, T, ...]` is nearest by mean squared distance.

    A prompt was followed if, among the true videos of an object's other verbs, that is its own.
    """
    return int(np.argmin([np.square(_difference(video, candidate)).mean() for candidate in candidates]))


def flow_error(flow: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean end-point error of `[V, T, h, w, 2]` flows after frame 0, in the flows' unit (half images).

    Args:
        flow: predicted.
        truth: exact.
        mask: `[V, T, h, w]`, where to compare.
    """
    distance = np.sqrt(np.square(_difference(flow, truth)).sum(-1))[:, 1:]
    inside = mask[:, 1:].astype(np.float64)
    return float((distance * inside).sum() / max(float(inside.sum()), 1e-12))


def _difference(video: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.asarray(video, np.float64) - np.asarray(truth, np.float64)


def _change(video: np.ndarray) -> np.ndarray:
    return _difference(video[:, 1:], video[:, :1])


def _decibels(squared_error: float) -> float:
    return float("inf") if squared_error == 0 else float(-10 * np.log10(squared_error))
