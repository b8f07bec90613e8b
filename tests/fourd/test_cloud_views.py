"""Pictures of captured clouds: colours by direction, also after splats have turned."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from animate4d.core.cameras import Rig, world_to_camera_cv
from animate4d.core.harmonics import SH0, harmonics
from animate4d.core.motion import SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.fourd.cloud_views import UNSEEN, draw_cloud, view_colors
from animate4d.fourd.render import render


def cloud(coefficients=16, count=60):
    rng = np.random.default_rng(coefficients)
    return SplatCloud(
        means=rng.normal(0, 0.25, (count, 3)).astype(np.float32),
        quats=Rotation.random(count, random_state=1).as_quat()[:, [3, 0, 1, 2]].astype(np.float32),
        scales=rng.uniform(0.02, 0.1, (count, 3)).astype(np.float32),
        opacities=rng.uniform(0.2, 0.99, count).astype(np.float32),
        sh=rng.normal(0, 0.3, (count, coefficients, 3)).astype(np.float32),
    )


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_colours_are_the_harmonics_along_the_line_of_sight(coefficients):
    splats, eye = cloud(coefficients), np.array([0.3, -2.0, 1.0])
    splats.sh[:, 0] *= 8
    directions = splats.means - eye
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = 0.5 + np.einsum("nk,nkc->nc", harmonics(directions, coefficients), splats.sh)
    got = view_colors(splats, splats.means, None, eye)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.maximum(expected, 0), atol=1e-5)
    assert (expected < 0).any(), "the test reaches colours below zero"


def test_turned_splats_look_as_if_their_harmonics_had_turned():
    splats, eye = cloud(16), np.array([1.0, 2.0, 0.5])
    after = Rotation.random(60, random_state=9).as_quat()[:, [3, 0, 1, 2]].astype(np.float32)
    means = splats.means + np.float32(0.1)
    moved = SplatMotion(means=np.stack([splats.means, means]), quats=np.stack([splats.quats, after])).at(1, splats)
    np.testing.assert_allclose(view_colors(splats, means, after, eye), view_colors(moved, means, None, eye), atol=1e-4)


def test_a_rigid_turn_of_everything_changes_no_picture():
    """Object, harmonics and camera turned together: the same picture, so nothing was left behind."""
    splats = cloud(16)
    turn = Rotation.from_rotvec([0, 0, np.pi / 2])
    quats = (turn * Rotation.from_quat(splats.quats[:, [1, 2, 3, 0]])).as_quat()[:, [3, 0, 1, 2]].astype(np.float32)
    means = turn.apply(splats.means).astype(np.float32)
    still = draw_cloud(splats, Rig.even(4), 48)
    turned = draw_cloud(splats, Rig.even(4), 48, means=means, quats=quats)
    # a quarter turn takes what view k saw to view k + 1
    difference = np.abs(np.roll(turned, -1, axis=0).astype(int) - still.astype(int))
    assert np.quantile(difference, 0.999) <= 2
    assert np.abs(turned.astype(int) - still.astype(int)).max() > 40


def test_pictures_are_those_of_the_renderer_with_straight_alpha():
    splats, rig = cloud(1), Rig.even(2)
    rgba = draw_cloud(splats, rig, 40)
    assert rgba.shape == (2, 40, 40, 4)
    assert rgba.dtype == np.uint8
    rgb, alpha = render(
        *(torch.from_numpy(a) for a in (splats.means[None], splats.quats, splats.scales, splats.opacities)),
        torch.from_numpy(np.maximum(0.5 + np.float32(SH0) * splats.sh[:, 0], 0)),
        torch.from_numpy(world_to_camera_cv(rig.camera_to_world()).astype(np.float32)),
        torch.from_numpy(rig.intrinsics(40).astype(np.float32)),
        40,
    )
    again = rgba[..., :3] / 255.0 * (rgba[..., 3:] / 255.0)
    np.testing.assert_allclose(again, rgb[0].clamp(max=1), atol=6e-3)
    np.testing.assert_allclose(rgba[..., 3] / 255.0, alpha[0], atol=2e-3)
    assert (rgba[rgba[..., 3] == 0][:, :3] == UNSEEN).all()


def test_many_splats_are_coloured_in_parts(monkeypatch):
    splats, eye = cloud(9), np.array([3.0, 0.0, 0.0])
    whole = view_colors(splats, splats.means, splats.quats, eye)
    monkeypatch.setattr("animate4d.fourd.cloud_views._ROWS", 7)
    np.testing.assert_allclose(view_colors(splats, splats.means, splats.quats, eye), whole, atol=1e-6)
