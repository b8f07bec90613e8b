"""Whole-body verbs: closed forms against slow twins, and poses that start at rest."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from animate4d.assets.figures import Figure, chain_weights
from animate4d.assets.verbs import (
    AMPLITUDES,
    WHOLE_BODY_VERBS,
    _arc,
    own_keys,
    quaternions,
    spine_of,
    whole_body_keys,
)
from animate4d.core.cameras import Rig, project_points


@pytest.fixture
def column():
    return np.random.default_rng(0).uniform([-0.3, 0, -0.2], [0.3, 2, 0.2], (400, 3))


def skeleton(points):
    figure = Figure(noun="column")
    spine = spine_of(points)
    share = np.linspace(0, 1, 6)[:, None]
    figure.chain("spine", "root", spine.origin + share * spine.length * spine.axis)
    figure.bone("branch", "spine3", (0.3, 1.2, 0), (0.6, 1.4, 0))
    return figure, spine


def world(joints, keys, frame):
    """Slow twin: compose local poses into world rotation-scales and positions."""
    matrices = []
    for index, joint in enumerate(joints):
        local = np.eye(4)
        turn = Rotation.from_quat(keys.rotations[frame, index]).as_matrix()
        local[:3, :3] = turn * keys.scales[frame, index]
        local[:3, 3] = keys.translations[frame, index]
        matrices.append(local if joint.parent < 0 else matrices[joint.parent] @ local)
    return np.stack(matrices)


def test_arc_is_the_integral_of_its_tangent(column):
    spine = spine_of(column)
    angle = 0.9
    ends = spine.origin + np.linspace(0, 1, 5)[:, None] * spine.length * spine.axis
    turned, moved = _arc(ends, spine, spine.bend, np.array([angle]))
    fine = (np.arange(20000) + 0.5) / 20000
    steps = np.cos(angle * fine)[:, None] * spine.axis + np.sin(angle * fine)[:, None] * spine.bend
    for number, share in enumerate(np.linspace(0, 1, 5)):
        walked = spine.origin + spine.length * steps[fine < share].sum(0) / 20000
        np.testing.assert_allclose(moved[0, number], walked, atol=1e-3)
        tangent = np.cos(angle * share) * spine.axis + np.sin(angle * share) * spine.bend
        np.testing.assert_allclose(turned[0, number] @ spine.axis, tangent, atol=1e-9)


@pytest.mark.parametrize("verb", WHOLE_BODY_VERBS)
def test_joints_follow_the_verb_and_start_at_rest(column, verb):
    figure, spine = skeleton(column)
    phases = np.linspace(0, 1, 9)
    keys = whole_body_keys(verb, figure.joints, spine, phases, 1.0)
    positions = np.stack([joint.position for joint in figure.joints])
    rest = world(figure.joints, keys, 0)
    np.testing.assert_allclose(rest[:, :3, 3], positions, atol=1e-9)
    np.testing.assert_allclose(rest[:, :3, :3], np.tile(np.eye(3), (len(positions), 1, 1)), atol=1e-9)
    moved = max(np.abs(world(figure.joints, keys, frame)[:, :3, 3] - positions).max() for frame in range(9))
    assert moved > 0.05
    if verb != "spin":
        np.testing.assert_allclose(world(figure.joints, keys, 8)[:, :3, 3], positions, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(keys.rotations, axis=-1), 1, atol=1e-9)
    assert ((keys.rotations[1:] * keys.rotations[:-1]).sum(-1) > 0).all()


def test_bending_keeps_the_spine_joined_and_the_foot_still(column):
    figure, spine = skeleton(column)
    keys = whole_body_keys("bend", figure.joints, spine, np.array([0.0, 0.5]), 1.5)
    heads = world(figure.joints, keys, 1)[:, :3, 3]
    np.testing.assert_allclose(heads[0], 0, atol=1e-9)
    gaps = np.linalg.norm(np.diff(heads[1:6], axis=0), axis=1)
    np.testing.assert_allclose(gaps, spine.length / 5, rtol=0.02)
    assert heads[5] @ spine.bend > 0.2


def test_stretching_keeps_the_volume(column):
    figure, spine = skeleton(column)
    keys = whole_body_keys("stretch", figure.joints, spine, np.linspace(0, 1, 9), 1.5)
    np.testing.assert_allclose(keys.scales[:, 0].prod(1), 1)
    assert keys.scales[2, 0, 1] > 1 > keys.scales[6, 0, 1]


def test_lying_objects_bend_upwards_from_their_middle():
    points = np.random.default_rng(1).uniform([-1, 0, -0.1], [1, 0.2, 0.1], (300, 3))
    spine = spine_of(points)
    ends = np.array([[-1, 0.1, 0], [0, 0.1, 0], [1, 0.1, 0.0]])
    _, moved = _arc(ends, spine, spine.bend, np.array([0.5]))
    assert moved[0, 0, 1] > 0.2
    assert moved[0, 2, 1] > 0.2
    np.testing.assert_allclose(moved[0, 1], ends[1], atol=0.02)


@pytest.mark.parametrize("size", [(0.3, 2, 0.3), (1, 1, 1), (2, 0.3, 0.4), (0.8, 1.2, 1.5)])
def test_a_wild_bounce_stays_in_the_default_frame(size):
    points = np.random.default_rng(2).uniform(-0.5, 0.5, (2000, 3)) * size
    spine = spine_of(points)
    canonical = (points / spine.unit)[:, [2, 0, 1]] + [0, 0, spine.room * max(AMPLITUDES.values())]
    rig = Rig.even(16)
    xy, _ = project_points(canonical, rig.camera_to_world(), rig.intrinsics(64))
    assert spine.room > 0.05
    assert xy.min() > 0
    assert xy.max() < 64


def test_own_verbs_turn_children_with_their_parents(column):
    figure, spine = skeleton(column)
    turns = {"spine0": ((0.0, 0.0, 1.0), np.array([0.0, np.pi / 2])), "@": ((0.0, 1.0, 0.0), np.array([0.0, 0.1]))}
    keys = own_keys(figure.joints, turns, spine)
    heads = world(figure.joints, keys, 1)[:, :3, 3]
    start = figure.joints[1].position + np.array([0, 0.1 * spine.unit, 0])
    reach = figure.joints[5].position[1] - figure.joints[1].position[1]
    np.testing.assert_allclose(heads[5], start + np.array([-reach, 0, 0]), atol=1e-9)


def test_quaternions_never_flip():
    angles = np.linspace(0, 4 * np.pi, 40)
    matrices = Rotation.from_rotvec(angles[:, None] * [0, 0.6, 0.8]).as_matrix()[:, None]
    quats = quaternions(matrices)
    assert ((quats[1:] * quats[:-1]).sum(-1) > 0.9).all()
    np.testing.assert_allclose(Rotation.from_quat(quats[:, 0]).as_matrix(), matrices[:, 0], atol=1e-9)


@pytest.mark.parametrize("softness", [0.3, 1.0])
def test_chain_weights_are_a_partition_and_change_gradually(softness):
    share = np.linspace(-1, 6, 501)
    joints, weights = chain_weights(share, np.array([4, 2, 7, 9]), softness)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    dense = np.zeros((len(share), 10))
    np.add.at(dense, (np.arange(len(share))[:, None], joints), weights)
    np.testing.assert_allclose(dense[share <= 0, 4], 1)
    np.testing.assert_allclose(dense[share >= 3, 9], 1)
    assert np.abs(np.diff(dense, axis=0)).max() < 0.014 * 1.6 / softness
