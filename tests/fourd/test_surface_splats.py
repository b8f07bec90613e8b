"""Splats on a surface: spread, colours, polish, and how they follow a motion."""

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from animate4d.core.motion import GraphMotion, VertexMotion
from animate4d.fourd.graph import build_graph
from animate4d.fourd.photometric import photometric_loss, prepare_pictures
from animate4d.fourd.raster_torch import factors_from_quats
from animate4d.fourd.surface_splats import SH0, move_splats, polish, quats_from_matrices, sample_splats, triangle_axes


def matrices(quats):
    return factors_from_quats(torch.from_numpy(quats), torch.ones(*quats.shape[:-1], 3)).numpy()


def test_splats_lie_flat_on_their_triangles(tube):
    mesh = tube
    splats = sample_splats(mesh, 500, seed=1)
    corners = mesh.vertices[splats.corners]
    np.testing.assert_array_equal(splats.corners, mesh.faces[splats.face])
    np.testing.assert_allclose(splats.surface(mesh.vertices), splats.cloud.means, atol=1e-6)
    axes = matrices(splats.cloud.quats)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    np.testing.assert_allclose(axes[..., 2], normal, atol=1e-4)
    assert (splats.cloud.scales[:, 2] < splats.cloud.scales[:, 0]).all()


def test_number_of_splats_follows_area(make_mesh):
    points = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [8, 0, 0], [5, 1, 0]]
    splats = sample_splats(make_mesh(points, [[0, 1, 2], [3, 4, 5]]), 400)
    assert abs(np.mean(splats.face == 1) - 0.75) < 0.01


def test_degenerate_faces_get_no_splat(make_mesh):
    points = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    splats = sample_splats(make_mesh(points, [[0, 0, 1], [0, 1, 2], [2, 2, 2]]), 100)
    assert (splats.face == 1).all()
    assert np.isfinite(splats.cloud.quats).all()


def test_see_through_texels_carry_no_splat(make_mesh):
    texture = np.full((4, 4, 4), 255, np.uint8)
    texture[:, :2, 3] = 0
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    mesh = make_mesh(points, [[0, 1, 2], [0, 2, 3]], texture=texture, alpha_mode="MASK", base_color=(1, 0, 0, 1))
    mesh = replace(mesh, uv=points[:, :2].astype(np.float32))
    splats = sample_splats(mesh, 300)
    assert len(splats.face) == 300
    assert splats.cloud.means[:, 0].min() > 0.49
    assert (0.5 + SH0 * splats.cloud.sh[:, 0])[:, 1:].max() < 1e-6


def test_polish_improves_frame_0_and_stays_near_the_surface(bending_tube):
    mesh, _, video = bending_tube
    pictures = prepare_pictures(video, 64, 1, "native")
    before = sample_splats(mesh, 800)
    after = polish(before, [pictures], 40)

    def loss(splats):
        cloud = splats.cloud
        factors = factors_from_quats(torch.from_numpy(cloud.quats), torch.from_numpy(cloud.scales))
        tensors = [torch.from_numpy(a) for a in (cloud.means, cloud.opacities, 0.5 + np.float32(SH0) * cloud.sh[:, 0])]
        return float(
            photometric_loss(tensors[0][None], factors[None], *tensors[1:], pictures, torch.zeros(1, dtype=torch.long))
        )

    assert loss(after) < 0.3 * loss(before)
    assert np.linalg.norm(after.cloud.means - before.cloud.means, axis=1).max() < 2 * before.cloud.scales[0, 0]
    assert after.cloud.opacities.max() < 0.991
    assert polish(before, [pictures], 0) is before


def rigid(mesh, frames: int = 3):
    """A motion that turns the whole mesh by 2.5 radians a frame, through more than one full turn."""
    graph = build_graph(mesh.vertices, mesh.faces, 12)
    axis = np.array([0.0, 0.6, 0.8])
    angles = 2.5 * np.arange(frames)
    rotations = np.tile(angles[:, None, None] * axis, (1, 12, 1)).astype(np.float32)
    motion = GraphMotion(
        nodes=graph.nodes, rotations=rotations, translations=np.zeros_like(rotations),
        vertex_nodes=graph.vertex_nodes, vertex_weights=graph.vertex_weights, times=np.arange(frames) / 8.0,
    )  # fmt: skip
    turn = motion.rotation_matrices()
    moved = np.einsum("tmij,mj->tmi", turn, graph.nodes)
    return replace(motion, translations=(moved - graph.nodes).astype(np.float32)), turn[:, 0]


def test_splats_follow_a_rigid_motion(tube):
    mesh = tube
    splats = sample_splats(mesh, 200)
    cloud = replace(splats.cloud, means=splats.cloud.means + np.float32(0.01))
    splats = replace(splats, cloud=cloud)
    motion, turn = rigid(mesh)
    means, quats = move_splats(splats, motion, mesh.vertices)
    np.testing.assert_array_equal(means[0], cloud.means)
    np.testing.assert_array_equal(quats[0], cloud.quats)
    np.testing.assert_allclose(means, np.einsum("tij,nj->tni", turn, cloud.means), atol=1e-4)
    np.testing.assert_allclose(matrices(quats), turn[:, None] @ matrices(cloud.quats), atol=1e-4)
    assert ((quats[1:] * quats[:-1]).sum(-1) >= 0).all()


def test_quaternions_of_matrices_round_trip():
    rng = np.random.default_rng(0)
    quats = rng.normal(size=(200, 4))
    # half turns are where the usual formula divides by zero
    quats[:3] = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    back = quats_from_matrices(matrices(quats))
    np.testing.assert_allclose(np.abs((quats * back).sum(1)), 1, atol=1e-9)


def test_splats_follow_vertices_without_a_graph(tube):
    splats = sample_splats(tube, 200, seed=1)
    turn = Rotation.from_euler("xyz", [20, -30, 50], degrees=True).as_matrix()
    turned = (tube.vertices @ turn.T + [0.1, 0, 0.2]).astype(np.float32)
    motion = VertexMotion(offsets=np.stack([0 * turned, turned - tube.vertices]), times=np.array([0.0, 1.0]))
    means, quats = move_splats(splats, motion, tube.vertices)
    np.testing.assert_array_equal(means[0], splats.cloud.means)
    np.testing.assert_array_equal(quats[0], splats.cloud.quats)
    np.testing.assert_allclose(means[1], splats.cloud.means @ turn.T + [0.1, 0, 0.2], atol=1e-5)
    before, after = (Rotation.from_quat(q[:, [1, 2, 3, 0]]).as_matrix() for q in (splats.cloud.quats, quats[1]))
    np.testing.assert_allclose(after, turn @ before, atol=1e-4)


def test_triangles_without_area_have_the_axes_of_the_world():
    corners = np.array(
        [[[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 2, 0], [0, 0, 3]]]
    )
    axes = triangle_axes(corners.astype(np.float64))
    np.testing.assert_array_equal(axes[:2], [np.eye(3)] * 2)
    np.testing.assert_allclose(axes[2], [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-12)
