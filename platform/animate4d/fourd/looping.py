"""Longer and endless motions: clips one after the other, forth and back, or bent so that the end meets the start.

Works on what a motion stores (node poses or vertex displacements), so the result is of the same kind and as exact to
export as before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from animate4d.core.motion import GraphMotion, Motion

M = TypeVar("M", bound=Motion)


def chain(first: M, second: M) -> M:
    """Append a motion that starts where the first one ends: its frame 0 is the first one's last frame, kept once."""
    times = first.times[-1] + (second.times[1:] - second.times[0])
    return _joined(first, [first, second], [slice(None), slice(1, None)], np.concatenate([first.times, times]))


def ping_pong(motion: M) -> M:
    """Return the motion forth and back to frame 0."""
    span = motion.times[-1] - motion.times[0]
    back = motion.times[-1] + (span - (motion.times[-2::-1] - motion.times[0]))
    return _joined(motion, [motion, motion], [slice(None), slice(-2, None, -1)], np.concatenate([motion.times, back]))


def seamless(motion: M) -> M:
    """Bend a motion so that it flows back into frame 0, one frame's time after its last.

    Where the motion would stand one frame later, going on as in its last step, is its distance from a loop; a growing
    share of it is taken off every frame. A motion that loops already hardly changes.
    """
    count = len(motion.times)
    share = np.arange(count + 1, dtype=np.float32) / count

    def bent(values: np.ndarray) -> np.ndarray:
        ahead = 2 * values[-1:] - values[-2:-1]
        extended = np.concatenate([values, ahead])
        gap = (extended[-1] - extended[0]) * share.reshape(-1, *[1] * (values.ndim - 1))
        return extended - gap

    times = np.append(motion.times, 2 * motion.times[-1] - motion.times[-2])
    return _changed(motion, bent, times)


def _joined(like: Any, motions: list[Any], rows: list[slice], times: np.ndarray) -> Any:
    changes = {
        name: np.concatenate([getattr(motion, name)[row] for motion, row in zip(motions, rows, strict=True)])
        for name in _stored(like)
    }
    return replace(like, **changes, times=times)


def _changed(motion: Any, change: Callable[[np.ndarray], np.ndarray], times: np.ndarray) -> Any:
    return replace(motion, **{name: change(getattr(motion, name)) for name in _stored(motion)}, times=times)


def _stored(motion: Motion) -> tuple[str, ...]:
    return ("rotations", "translations") if isinstance(motion, GraphMotion) else ("offsets",)
