"""The two forms of a motion behave alike, and splat trajectories start at their cloud."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from animate4d.core.harmonics import harmonics
from animate4d.core.motion import GraphMotion, SplatMotion, VertexMotion, turns_between
from animate4d.core.splats import SplatCloud

VERTICES = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
TIMES = np.array([0.0, 0.125, 0.25])


def graph_motion() -> GraphMotion:
    rng = np.random.default_rng(1)
    translations = rng.normal(size=(3, 2, 3)).astype(np.float32)
    translations[0] = 0
    weights = rng.random((7, 4)).astype(np.float32)
    return GraphMotion(
        nodes=VERTICES[:2],
        rotations=np.zeros((3, 2, 3), np.float32),
        translations=translations,
        vertex_nodes=rng.integers(0, 2, (7, 4)).astype(np.int32),
        vertex_weights=weights / weights.sum(1, keepdims=True),
        times=TIMES,
    )


def vertex_motion() -> VertexMotion:
    offsets = np.random.default_rng(2).normal(size=(3, 7, 3)).astype(np.float32)
    offsets[0] = 0
    return VertexMotion(offsets=offsets, times=TIMES)


@pytest.mark.parametrize("motion", [graph_motion(), vertex_motion()], ids=["graph", "vertices"])
def test_forms_scale_and_close_alike(motion):
    moved = motion.apply(VERTICES)
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved[0], VERTICES)
    np.testing.assert_allclose(motion.scaled(0.5).apply(VERTICES) - VERTICES, 0.5 * (moved - VERTICES), atol=1e-6)
    np.testing.assert_array_equal(motion.scaled(0.0).apply(VERTICES)[0], VERTICES)
    loop = motion.closed()
    np.testing.assert_allclose(loop.apply(VERTICES), np.concatenate([moved, VERTICES[None]]), atol=1e-6)
    np.testing.assert_array_equal(loop.times, [0.0, 0.125, 0.25, 0.375])


def test_vertices_of_another_mesh_are_refused():
    with pytest.raises(ValueError, match="moves 7 vertices, 6 were given"):
        vertex_motion().apply(VERTICES[:6])


def test_splats_keep_what_does_not_move():
    rng = np.random.default_rng(3)
    cloud = SplatCloud(
        means=rng.normal(size=(5, 3)).astype(np.float32),
        quats=np.tile(np.float32([1, 0, 0, 0]), (5, 1)),
        scales=np.full((5, 3), 0.1, np.float32),
        opacities=np.full(5, 0.9, np.float32),
        sh=rng.normal(size=(5, 4, 3)).astype(np.float32),
    )
    means = np.stack([cloud.means, cloud.means + 1])
    quats = np.stack([cloud.quats, cloud.quats])
    moved = SplatMotion(means=means, quats=quats).at(1, cloud)
    np.testing.assert_array_equal(moved.means, cloud.means + 1)
    assert moved.scales is cloud.scales
    assert moved.sh is cloud.sh
    sizes, colours = np.full((2, 5, 3), 0.2, np.float32), rng.normal(size=(2, 5, 3)).astype(np.float32)
    moved = SplatMotion(means=means, quats=quats, scales=sizes, sh=colours).at(1, cloud)
    np.testing.assert_array_equal(moved.scales, sizes[1])
    np.testing.assert_array_equal(moved.sh[:, 0], colours[1])
    np.testing.assert_array_equal(moved.sh[:, 1:], cloud.sh[:, 1:])


def test_harmonics_turn_with_their_splats():
    rng = np.random.default_rng(4)
    turns = Rotation.random(5, random_state=6)
    cloud = SplatCloud(
        means=rng.normal(size=(5, 3)).astype(np.float32),
        quats=Rotation.random(5, random_state=7).as_quat()[:, [3, 0, 1, 2]].astype(np.float32),
        scales=np.full((5, 3), 0.1, np.float32),
        opacities=np.full(5, 0.9, np.float32),
        sh=rng.normal(size=(5, 16, 3)).astype(np.float32),
    )
    after = (turns * Rotation.from_quat(cloud.quats[:, [1, 2, 3, 0]])).as_quat()[:, [3, 0, 1, 2]].astype(np.float32)
    # the sign of a quaternion means nothing
    motion = SplatMotion(means=np.stack([cloud.means] * 2), quats=np.stack([cloud.quats, -after]))
    moved = motion.at(1, cloud)
    np.testing.assert_allclose(turns_between(cloud.quats, after), turns.as_matrix(), atol=1e-6)
    look = np.array([0.6, 0.0, 0.8])
    seen = np.einsum("nk,nkc->nc", harmonics(turns.apply(look), 16), moved.sh)
    np.testing.assert_allclose(seen, np.einsum("k,nkc->nc", harmonics(look, 16), cloud.sh), atol=1e-5)
    assert motion.at(0, cloud).sh is cloud.sh
