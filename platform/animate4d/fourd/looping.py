"""Longer and endless motions: clips one after the other, forth and back, or bent so that the end meets the start.

Works on what a motion stores (node poses or vertex displacements), so the result is of the same kind and as exact to
export as before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar, cast

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
    """Return the motion with frame 0 appended, bent so that the way there is no longer than its own largest step.

    A motion that loops already is left as it is; from another, what is too far is taken off every frame, in a share
    that grows evenly from none in frame 0.
    """
    flat = np.concatenate([getattr(motion, name).reshape(len(motion.times), -1) for name in _stored(motion)], axis=1)
    step = np.linalg.norm(np.diff(flat, axis=0), axis=1).max()
    home = np.linalg.norm(flat[-1] - flat[0])
    excess = np.float32(max(0.0, 1.0 - step / max(home, 1e-12)))
    share = np.linspace(0.0, excess, len(motion.times), dtype=np.float32)
    bent = {}
    for name in _stored(motion):
        values = getattr(motion, name)
        bent[name] = values - share.reshape(-1, *[1] * (values.ndim - 1)) * (values[-1:] - values[:1])
    changed: Any = replace(cast(Any, motion), **bent)
    return changed.closed()


def _joined(like: Any, motions: list[Any], rows: list[slice], times: np.ndarray) -> Any:
    changes = {
        name: np.concatenate([getattr(motion, name)[row] for motion, row in zip(motions, rows, strict=True)])
        for name in _stored(like)
    }
    return replace(like, **changes, times=times)


def _stored(motion: Motion) -> tuple[str, ...]:
    return ("rotations", "translations") if isinstance(motion, GraphMotion) else ("offsets",)
