"""Splats on a graph: the one-product form against the definition of the motion."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from animate4d.core.motion import GraphMotion
from animate4d.fourd.deform import SplatRig, axis_angles, compose, rotation_matrices, take_off
from animate4d.fourd.graph import build_graph
from animate4d.fourd.raster_torch import factors_from_quats
from animate4d.fourd.surface_splats import move_splats, sample_splats


@pytest.fixture(scope="module")
def parts(tube):
    mesh = tube
    graph = build_graph(mesh.vertices, mesh.faces, 20)
    splats = sample_splats(mesh, 300)
    return mesh, graph, splats, SplatRig(mesh, graph, splats)


def random_poses(frames: int, nodes: int, scale: float = 0.3) -> torch.Tensor:
    poses = scale * torch.randn(frames, nodes, 6, generator=torch.Generator().manual_seed(0))
    poses[0] = 0
    return poses


def as_motion(graph, poses) -> GraphMotion:
    return GraphMotion(
        nodes=graph.nodes, translations=poses[..., :3].numpy(), rotations=poses[..., 3:].numpy(),
        vertex_nodes=graph.vertex_nodes, vertex_weights=graph.vertex_weights, times=np.arange(len(poses)) / 8.0,
    )  # fmt: skip


def test_means_are_those_of_the_moved_vertices(parts):
    mesh, graph, splats, rig = parts
    poses = random_poses(3, len(graph.nodes))
    means, factors, rotations = rig.place(poses)
    motion = as_motion(graph, poses)
    np.testing.assert_allclose(means, splats.surface(motion.apply(mesh.vertices)), atol=2e-5)
    np.testing.assert_allclose(rotations, motion.rotation_matrices(), atol=1e-5)
    np.testing.assert_allclose(means[0], splats.cloud.means, atol=1e-6)
    # where nodes agree, a splat's axes turn as move_splats says
    same = poses[1:2, :1].expand(1, len(graph.nodes), 6).contiguous()
    _, factors, _ = rig.place(same)
    turned = move_splats(splats, as_motion(graph, torch.cat([0 * same, same])), mesh.vertices)[1][1]
    covariance = (factors @ factors.mT)[0]
    expected = factors_from_quats(torch.from_numpy(turned), torch.from_numpy(splats.cloud.scales))
    torch.testing.assert_close(covariance, expected @ expected.mT, atol=1e-7, rtol=1e-3)


def test_rigid_motions_cost_no_stretch(parts):
    _, graph, _, rig = parts
    turn = torch.tensor([0.3, -0.5, 0.2])
    matrix = rotation_matrices(turn)
    nodes = torch.from_numpy(graph.nodes)
    pose = torch.cat([nodes @ matrix.T - nodes + 0.1, turn.expand(len(nodes), 3)], 1)[None]
    _, _, rotations = rig.place(pose)
    assert float(rig.stretch(pose, rotations)) < 1e-10
    bent = random_poses(2, len(nodes), 0.1)[1:]
    assert float(rig.stretch(bent, rotation_matrices(bent[..., 3:]))) > 1e-3


def test_stretch_does_not_depend_on_size(parts):
    mesh, graph, splats, rig = parts
    larger = SplatRig(replace(mesh, vertices=7 * mesh.vertices), replace(graph, nodes=7 * graph.nodes), splats)
    poses = random_poses(2, len(graph.nodes))
    rotations = rotation_matrices(poses[..., 3:])
    grown = poses * torch.tensor([7.0, 7, 7, 1, 1, 1])
    torch.testing.assert_close(rig.stretch(poses, rotations), larger.stretch(grown, rotations), rtol=1e-4, atol=1e-8)


def test_rotations_are_differentiable_at_rest():
    vectors = torch.zeros(4, 3, requires_grad=True)
    (rotation_matrices(vectors) * torch.arange(9.0).view(3, 3)).sum().backward()
    # d/dw of the cross-product matrix against 0..8: antisymmetric parts (7-5, 2-6, 3-1)
    torch.testing.assert_close(vectors.grad, torch.tensor([2.0, -4.0, 2.0]).expand(4, 3), atol=1e-4, rtol=0)


def test_axis_angles_invert_rotation_matrices():
    vectors = torch.randn(100, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vectors *= (3.1 / vectors.norm(dim=1, keepdim=True)).clamp(max=1)
    vectors[0], vectors[1] = 0.0, torch.tensor([1e-7, 0, 0])
    vectors[2] = torch.tensor([0.0, 3.1415, 0.0])
    torch.testing.assert_close(axis_angles(rotation_matrices(vectors)), vectors, atol=1e-5, rtol=0)


def test_taking_off_a_bias(parts):
    _, graph, _, _ = parts
    poses, bias = random_poses(4, len(graph.nodes)), random_poses(2, len(graph.nodes), 0.02)[1:]
    # the bias itself becomes rest
    assert float(take_off(bias, bias).abs().max()) < 1e-6
    # node by node: first the bias, then what is left, gives the pose
    left = take_off(poses, bias)
    turn, shift = rotation_matrices(bias[..., 3:]), bias[..., :3]
    composed = rotation_matrices(left[..., 3:]) @ turn
    torch.testing.assert_close(composed, rotation_matrices(poses[..., 3:]), atol=1e-5, rtol=0)
    carried = (rotation_matrices(left[..., 3:]) @ shift[..., None])[..., 0] + left[..., :3]
    torch.testing.assert_close(carried, poses[..., :3], atol=1e-5, rtol=0)


def test_composing_does_one_motion_after_the_other():
    before, after = random_poses(3, 5)[1:], random_poses(4, 5)[2:]
    both = compose(after, before)
    point = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def move(poses, points):
        turned = rotation_matrices(poses[..., 3:].double()) @ points[..., None]
        return turned[..., 0] + poses[..., :3].double()

    np.testing.assert_allclose(move(both, point), move(after, move(before, point)), atol=1e-6)
    np.testing.assert_allclose(take_off(both, before), after, atol=1e-6)
