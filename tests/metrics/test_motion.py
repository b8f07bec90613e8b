"""Vertex error: what standing still, half the motion and the whole of it score."""

import numpy as np
import pytest

from animate4d.metrics.motion import vertex_error


def moving(frames: int = 4) -> np.ndarray:
    rest = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
    return rest + np.linspace(0, 0.3, frames, dtype=np.float32)[:, None, None] * np.float32([1, 0, 0])


def test_perfect_half_and_no_motion():
    true = moving()
    still = np.repeat(true[:1], len(true), axis=0)
    assert vertex_error(true, true).ratio == 0.0
    assert vertex_error(still, true).ratio == pytest.approx(1.0)
    assert vertex_error((true + still) / 2, true).ratio == pytest.approx(0.5, abs=1e-5)


def test_errors_are_shares_of_the_diameter():
    # two points one unit apart, one of which moves by a quarter: the mean of 0 and 0.25
    true = np.zeros((2, 2, 3))
    true[:, 1, 0] = 1.0
    true[1, 1, 1] = 0.25
    error = vertex_error(np.repeat(true[:1], 2, axis=0), true)
    assert error.static == pytest.approx(0.125)


def test_size_does_not_matter():
    true = moving()
    guess = true + np.float32(0.01)
    guess[0] = true[0]
    assert vertex_error(guess * 7, true * 7).fit == pytest.approx(vertex_error(guess, true).fit, rel=1e-5)


def test_motionless_truth_has_no_ratio():
    true = np.repeat(moving()[:1], 3, axis=0)
    assert np.isnan(vertex_error(true, true).ratio)


@pytest.mark.parametrize("shape", [(3, 50, 3), (4, 49, 3), (4, 50, 2)])
def test_shapes_must_agree(shape):
    with pytest.raises(ValueError, match="one shape"):
        vertex_error(np.zeros(shape), moving())
