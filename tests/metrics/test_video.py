from __future__ import annotations

import numpy as np
import pytest

from animate4d.metrics.video import (
    changed_region,
    flow_error,
    masked_psnr,
    motion_ratio,
    motion_slope,
    psnr,
    retrieval,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.random((2, 4, 6, 6, 3))


def test_psnr_of_a_known_error():
    assert psnr(TRUTH + 0.1, TRUTH) == pytest.approx(20.0)
    assert psnr(TRUTH, TRUTH) == float("inf")


def test_masked_psnr_looks_only_inside():
    mask = np.zeros(TRUTH.shape[:-1])
    mask[..., :3] = 1
    video = TRUTH.copy()
    video[..., :3, :] += 0.1
    video[..., 3:, :] += 5
    assert masked_psnr(video, TRUTH, mask) == pytest.approx(20.0)


def test_ghosts_belong_to_the_changed_region():
    alpha = np.zeros((1, 2, 1, 3))
    alpha[0, 0, 0, 0] = alpha[0, 1, 0, 2] = 0.5
    assert changed_region(alpha)[0, :, 0].tolist() == [[1, 0, 0], [1, 0, 1]]


def test_motion_of_a_still_a_half_and_the_truth():
    still = np.repeat(TRUTH[:, :1], 4, axis=1)
    half = (still + TRUTH) / 2
    for score in (motion_ratio, motion_slope):
        assert score(still, TRUTH) == 0
        assert score(half, TRUTH) == pytest.approx(0.5)
        assert score(TRUTH, TRUTH) == pytest.approx(1.0)
    opposite = 2 * still - TRUTH
    assert motion_slope(opposite, TRUTH) == pytest.approx(-1.0)
    assert motion_ratio(opposite, TRUTH) == pytest.approx(1.0)


def test_retrieval_finds_the_nearest():
    others = [RNG.random(TRUTH.shape) for _ in range(3)]
    assert retrieval(TRUTH + 0.05, [others[0], TRUTH, *others[1:]]) == 1


def test_flow_error_is_the_mean_distance_inside_after_frame_0():
    truth, mask = np.zeros((1, 2, 2, 2, 2)), np.zeros((1, 2, 2, 2))
    flow = truth + np.array([0.3, 0.4])
    flow[:, 0] = 7
    mask[:, :, 0] = 1
    flow[:, 1, 1] = 9
    assert flow_error(flow, truth, mask) == pytest.approx(0.5)
