"""Fewer splats that look like a captured cloud, and how the cloud follows its graph."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from animate4d.core.motion import GraphMotion
from animate4d.core.splats import SplatCloud
from animate4d.fourd.cloud_splats import bare_points, cloud_graph, gather, move_cloud
from animate4d.fourd.deform import SplatRig
from animate4d.fourd.photometric import prepare_pictures
from animate4d.fourd.raster_torch import factors_from_quats
from animate4d.fourd.surface_splats import polish, sample_splats


@pytest.fixture(scope="module")
def scan(tube):
    """A tube as a cloud of 4000 splats with some fog around it."""
    cloud = sample_splats(tube, 4000, seed=3).cloud
    rng = np.random.default_rng(0)
    fog = rng.choice(4000, 300, replace=False)
    cloud.opacities[fog] = 0.05
    cloud.means[fog] += rng.normal(0, 0.1, (300, 3)).astype(np.float32)
    return cloud


def covariances(cloud):
    factors = factors_from_quats(torch.from_numpy(cloud.quats), torch.from_numpy(cloud.scales)).numpy()
    return factors @ factors.swapaxes(1, 2)


def test_a_small_cloud_stands_for_itself(scan):
    small = SplatCloud(**{name: getattr(scan, name)[:200] for name in SplatCloud.__slots__})
    small.opacities[:] = 0.8
    splats = gather(small, 200)
    np.testing.assert_allclose(splats.cloud.means, small.means, atol=1e-6)
    np.testing.assert_allclose(covariances(splats.cloud), covariances(small), atol=1e-7)
    np.testing.assert_allclose(splats.cloud.opacities, 0.8, atol=1e-5)
    np.testing.assert_allclose(splats.cloud.sh, small.sh[:, :1], atol=1e-5)
    np.testing.assert_array_equal(splats.corners[:, 0], np.arange(200))


def test_fewer_splats_keep_mass_middle_and_spread(scan):
    splats = gather(scan, 400)
    fewer = splats.cloud
    assert 300 < len(fewer.means) <= 400
    solid = scan.opacities > 0.25
    covers = fewer.opacities * fewer.scales[:, 0] * fewer.scales[:, 1]
    np.testing.assert_allclose(np.average(fewer.means, axis=0, weights=covers), scan.means[solid].mean(0), atol=0.01)
    assert np.ptp(fewer.means, axis=0) == pytest.approx(np.ptp(scan.means[solid], axis=0), abs=0.1)
    assert (np.diff(fewer.scales, axis=1) <= 0).all(), "the thin axis is the last"
    assert np.isfinite(fewer.quats).all()
    np.testing.assert_allclose(np.linalg.norm(fewer.quats, axis=1), 1, atol=1e-5)
    # each sits on a solid splat nearby
    assert solid[splats.corners[:, 0]].all()
    assert np.linalg.norm(scan.means[splats.corners[:, 0]] - fewer.means, axis=1).max() < 0.1


def test_one_cell_is_the_moment_of_its_splats():
    cloud = SplatCloud(
        means=np.float32([[0, 0, 0], [0.2, 0, 0]]),
        quats=np.float32([[1, 0, 0, 0]] * 2),
        scales=np.float32([[0.1, 0.1, 0.01]] * 2),
        opacities=np.float32([0.3, 0.6]),
        sh=np.float32([[[0, 0, 0]], [[3, 0, 0]]]),
    )
    one = gather(cloud, 1).cloud
    np.testing.assert_allclose(one.means, [[0.4 / 3, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(one.sh, [[[2, 0, 0]]], atol=1e-6)
    spread = 0.01 + (1 / 3) * (2 / 3) * 0.04
    np.testing.assert_allclose(covariances(one)[0], np.diag([spread, 0.01, 0.0001]), atol=1e-6)
    np.testing.assert_allclose(one.opacities, 0.9 * 0.01 / np.sqrt(spread * 0.01), rtol=1e-5)


def test_a_cloud_of_fog_has_splats_too(scan):
    thin = replace(scan, opacities=np.full(4000, 0.02, np.float32))
    assert len(gather(thin, 100).cloud.means) > 50


def test_polished_stand_ins_look_like_the_cloud(bending_tube, scan):
    mesh, _, video = bending_tube
    pictures = prepare_pictures(video, 64, 2, "native")
    cloud = sample_splats(mesh, 4000, seed=3).cloud
    before = gather(cloud, 500)
    after = polish(before, [pictures], 40, (0.02, 0.99))
    assert after.corners is before.corners
    assert not np.array_equal(after.cloud.sh, before.cloud.sh)
    assert after.cloud.opacities.min() >= 0.02


def rigid(cloud, nodes=12, frames=3):
    graph = cloud_graph(cloud, nodes)
    axis = np.array([0.0, 0.6, 0.8])
    angles = 2.5 * np.arange(frames)
    rotations = np.tile(angles[:, None, None] * axis, (1, nodes, 1)).astype(np.float32)
    motion = GraphMotion(
        nodes=graph.nodes, rotations=rotations, translations=np.zeros_like(rotations),
        vertex_nodes=graph.vertex_nodes, vertex_weights=graph.vertex_weights, times=np.arange(frames) / 8.0,
    )  # fmt: skip
    turns = motion.rotation_matrices()
    moved = np.einsum("tmij,mj->tmi", turns, graph.nodes)
    return replace(motion, translations=(moved - graph.nodes).astype(np.float32)), turns[:, 0]


def test_a_cloud_follows_a_rigid_motion(scan):
    motion, turns = rigid(scan)
    moved = move_cloud(scan, motion)
    np.testing.assert_array_equal(moved.means[0], scan.means)
    np.testing.assert_array_equal(moved.quats[0], scan.quats)
    np.testing.assert_allclose(moved.means, np.einsum("tij,nj->tni", turns, scan.means), atol=1e-4)
    after = Rotation.from_quat(moved.quats[2][:, [1, 2, 3, 0]]).as_matrix()
    before = Rotation.from_quat(scan.quats[:, [1, 2, 3, 0]]).as_matrix()
    np.testing.assert_allclose(after, turns[2] @ before, atol=1e-4)
    assert ((moved.quats[1:] * moved.quats[:-1]).sum(-1) >= 0).all()


def test_turns_are_blended_as_the_fit_blends_them(scan):
    """The splats of the fit turn by the polar part of mixed matrices; the cloud by mixed quaternions."""
    motion, _ = rigid(scan)
    rng = np.random.default_rng(2)
    rotations = rng.normal(0, 0.15, motion.rotations.shape).astype(np.float32)
    rotations[0] = 0
    moved = move_cloud(scan, replace(motion, rotations=rotations))
    matrices = replace(motion, rotations=rotations).rotation_matrices()
    mixed = np.einsum("nk,nkij->nij", motion.vertex_weights, matrices[1][motion.vertex_nodes])
    left, _, right = np.linalg.svd(mixed)
    before = Rotation.from_quat(scan.quats[:, [1, 2, 3, 0]])
    turned = (Rotation.from_quat(moved.quats[1][:, [1, 2, 3, 0]]) * before.inv()).as_matrix()
    np.testing.assert_allclose(turned, left @ right, atol=2e-3)


def test_the_rig_of_a_cloud_moves_its_stand_ins_with_it(scan):
    """A stand-in goes where the splat it sits on goes, keeping its distance."""
    graph = cloud_graph(scan, 20)
    splats = gather(scan, 300)
    rig = SplatRig(bare_points(scan), graph, splats)
    poses = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 20, 6)).astype(np.float32))
    means, _, _ = rig.place(poses)
    motion = GraphMotion(
        nodes=graph.nodes, rotations=np.stack([0 * poses[0, :, 3:], poses[0, :, 3:]]),
        translations=np.stack([0 * poses[0, :, :3], poses[0, :, :3]]),
        vertex_nodes=graph.vertex_nodes[splats.corners[:, 0]],
        vertex_weights=graph.vertex_weights[splats.corners[:, 0]], times=np.arange(2.0),
    )  # fmt: skip
    np.testing.assert_allclose(means[0], motion.apply(splats.cloud.means)[1], atol=1e-5)
