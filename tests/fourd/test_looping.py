"""Clips one after the other, forth and back, and closed."""

import numpy as np
import pytest

from animate4d.core.motion import GraphMotion, VertexMotion
from animate4d.fourd.looping import chain, ping_pong, seamless


def swing(values, dt=0.1, kind="graph"):
    """A motion of one node or vertex along x through the given places."""
    shift = np.zeros((len(values), 1, 3), np.float32)
    shift[:, 0, 0] = values
    times = np.arange(len(values)) * dt
    if kind == "vertices":
        return VertexMotion(offsets=shift, times=times)
    return GraphMotion(
        nodes=np.zeros((1, 3), np.float32),
        rotations=2 * shift,
        translations=shift,
        vertex_nodes=np.zeros((1, 4), np.int32),
        vertex_weights=np.array([[1, 0, 0, 0]], np.float32),
        times=times,
    )


def places(motion):
    return (motion.offsets if isinstance(motion, VertexMotion) else motion.translations)[:, 0, 0]


@pytest.mark.parametrize("kind", ["graph", "vertices"])
def test_a_chained_clip_keeps_the_shared_frame_once(kind):
    first = swing([0, 1, 2], kind=kind)
    both = chain(first, swing([2, 3, 5], dt=0.2, kind=kind))
    np.testing.assert_array_equal(places(both), [0, 1, 2, 3, 5])
    np.testing.assert_allclose(both.times, [0, 0.1, 0.2, 0.4, 0.6])
    assert type(both) is type(first)


def test_forth_and_back_ends_in_frame_0_at_the_same_pace():
    motion = ping_pong(swing([0, 1, 3]))
    np.testing.assert_array_equal(places(motion), [0, 1, 3, 1, 0])
    np.testing.assert_allclose(motion.times, [0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_array_equal(motion.rotations, 2 * motion.translations)


def test_a_loop_is_closed_as_it_is():
    wave = 1 - np.cos(np.arange(16) / 16 * 2 * np.pi)
    closed = seamless(swing(wave))
    np.testing.assert_array_equal(places(closed)[:-1], np.float32(wave))
    assert places(closed)[-1] == 0.0
    np.testing.assert_allclose(closed.times, np.arange(17) * 0.1)


@pytest.mark.parametrize("kind", ["graph", "vertices"])
def test_a_drift_is_taken_off_evenly_until_the_way_home_is_one_step(kind):
    values = np.arange(9.0)
    closed = places(seamless(swing(values, kind=kind)))
    np.testing.assert_allclose(closed[:-1], values / 8, atol=1e-6)
    assert closed[-1] == 0.0


def test_standing_still_stays_still():
    assert not places(seamless(swing([0, 0, 0]))).any()
