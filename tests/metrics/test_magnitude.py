"""Diffusion4D's motion magnitude."""

import numpy as np
import pytest

from animate4d.core.cameras import Rig
from animate4d.core.clip import MultiViewVideo
from animate4d.metrics.magnitude import motion_magnitude


def video(rgb, alpha):
    rig = Rig.even(len(rgb))
    return MultiViewVideo(
        rgb=rgb,
        alpha=alpha,
        camera_to_world=rig.camera_to_world(),
        intrinsics=rig.intrinsics(rgb.shape[2]),
        times=np.arange(rgb.shape[1]),
    )


def noise(seed=0, views=2, frames=5, size=12):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (views, frames, size, size, 3), dtype=np.uint8)
    return video(rgb, rng.integers(0, 256, (views, frames, size, size), dtype=np.uint8))


def test_it_is_equation_1_of_the_paper_per_element():
    clip = noise()
    shown = clip.on_grey().astype(np.float64)
    eq1 = np.square(shown - shown[:, :1]).sum((2, 3, 4)).mean()
    assert motion_magnitude(clip).picture * 3 * 12 * 12 == pytest.approx(eq1, rel=1e-5)


def test_a_still_clip_has_none_and_colours_under_zero_alpha_do_not_count():
    clip = noise()
    still = video(np.repeat(clip.rgb[:, :1], 4, axis=1), np.repeat(clip.alpha[:, :1], 4, axis=1))
    assert motion_magnitude(still) == (0, 0)
    assert motion_magnitude(video(clip.rgb, np.zeros_like(clip.alpha))) == (0, 0)


def test_the_object_reading_does_not_depend_on_coverage():
    small = noise(size=8)
    rgb, alpha = np.zeros((2, 5, 16, 16, 3), np.uint8), np.zeros((2, 5, 16, 16), np.uint8)
    rgb[:, :, 4:12, 4:12], alpha[:, :, 4:12, 4:12] = small.rgb, np.maximum(small.alpha, 1)
    tight = video(small.rgb, np.maximum(small.alpha, 1))
    wide = video(rgb, alpha)
    assert motion_magnitude(wide).object == pytest.approx(motion_magnitude(tight).object)
    assert motion_magnitude(wide).picture == pytest.approx(motion_magnitude(tight).picture / 4)
