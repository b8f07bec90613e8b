"""Rigidity costs nothing for rigid motion, sums where the papers sum, and never ties what the mesh does not."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from animate4d.fourd.graph import weld
from animate4d.fourd.rigidity import (
    Neighbourhoods,
    best_rotations,
    mesh_neighbourhoods,
    nearest_neighbourhoods,
    rigidity,
)
from animate4d.fourd.surface_splats import sample_splats


def random_rotations(*shape, seed=0):
    count = int(np.prod(shape))
    return torch.from_numpy(Rotation.random(count, rng=seed).as_matrix().reshape(*shape, 3, 3))


@pytest.fixture
def cloud():
    rest = torch.rand(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near = nearest_neighbourhoods(rest.numpy(), 3)
    centres = np.arange(30)
    return rest, torch.from_numpy(centres), torch.from_numpy(near.draw(centres, 3, np.random.default_rng(0)))


def test_rigid_motion_is_free_and_bending_is_not(cloud):
    rest, centres, near = cloud
    turns = random_rotations(4)
    moved = torch.einsum("fij,pj->fpi", turns, rest) + torch.randn(4, 1, 3, dtype=torch.float64)
    assert float(rigidity(rest, moved, centres, near)) < 1e-20
    bent = moved + 0.1 * torch.sin(9 * rest)
    assert float(rigidity(rest, bent, centres, near)) > 1e-3


def test_the_energy_is_the_sum_written_out(cloud):
    rest, centres, near = cloud
    moved = rest + 0.1 * torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for weights in ("unit", "distance"):
        lengths = (rest[near] - rest[centres][:, None]).norm(dim=-1)
        weight = torch.exp(-lengths / lengths.mean()) if weights == "distance" else torch.ones_like(lengths)
        total = 0.0
        for frame in range(2):
            for row, centre in enumerate(centres):
                old = (rest[near[row]] - rest[centre]).numpy()
                new = (moved[frame, near[row]] - moved[frame, centre]).numpy()
                turn = Rotation.align_vectors(new, old, weights=weight[row].numpy())[0].as_matrix()
                total += float((weight[row].numpy() * np.square(new - old @ turn.T).sum(1)).sum())
        assert float(rigidity(rest, moved, centres, near, weights=weights)) == pytest.approx(total, rel=1e-6)


def test_each_frame_may_be_rigid_from_a_pose_of_its_own(cloud):
    rest, centres, near = cloud
    poses = rest + 0.1 * torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turned = torch.einsum("fij,fpj->fpi", random_rotations(2), poses)
    assert float(rigidity(poses, turned, centres, near)) < 1e-20
    bent = turned + 0.1 * torch.sin(9 * rest)
    whole = sum(float(rigidity(pose, now[None], centres, near)) for pose, now in zip(poses, bent, strict=True))
    assert float(rigidity(poses, bent, centres, near)) == pytest.approx(whole)


def test_twice_the_frames_cost_twice(cloud):
    rest, centres, near = cloud
    moved = rest + 0.1 * torch.randn(1, 30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = float(rigidity(rest, moved, centres, near))
    assert float(rigidity(rest, moved.repeat(2, 1, 1), centres, near)) == pytest.approx(2 * one)


def test_the_gradient_is_the_finite_difference(cloud):
    rest, centres, near = cloud
    moved = rest + 0.1 * torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # at the best rotation, its own change does not count to first order
    assert torch.autograd.gradcheck(lambda m: rigidity(rest, m, centres, near), moved.requires_grad_(), atol=1e-5)


def test_best_rotations_survive_flat_and_mirrored_neighbourhoods():
    turn = random_rotations(1)[0]
    flat = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, -1, 0]], dtype=torch.float64)
    for edges in (flat, flat + torch.tensor([[0, 0, 0.2], [0, 0, 0.1], [0, 0, 0.4]])):
        found = best_rotations(torch.einsum("ki,kj->ij", edges @ turn.T, edges)[None])[0]
        torch.testing.assert_close(found, turn)
    mirrored = best_rotations(torch.diag(torch.tensor([3.0, 2.0, -1.0])))
    torch.testing.assert_close(mirrored, torch.eye(3))
    nothing = best_rotations(torch.zeros(2, 3, 3))
    torch.testing.assert_close(torch.linalg.det(nothing), torch.ones(2))


def test_neighbours_follow_the_mesh_and_not_the_air(make_mesh):
    # two sheets a hair apart, tied at one end by the bridge between pieces
    x, y = np.meshgrid(np.arange(6.0), np.arange(2.0), indexing="ij")
    sheet = np.stack([x, y, 0 * x], -1).reshape(-1, 3)
    quads = np.array([[2 * i, 2 * i + 1, 2 * i + 3, 2 * i + 2] for i in range(5)])
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    mesh = make_mesh(np.concatenate([sheet, sheet + np.array([0, 0, 0.01])]) / 10, np.concatenate([faces, faces + 12]))
    splats = sample_splats(mesh, 80)
    points, welded = weld(mesh.vertices)
    near = mesh_neighbourhoods(splats, points, mesh.faces, welded)
    upper = np.concatenate([splats.face >= 10, np.isin(np.arange(24), welded[12:])])
    owner = np.repeat(np.arange(len(upper)), np.diff(near.starts))
    crossing = (upper[owner] != upper[near.ends]).sum()
    assert 0 < crossing <= 2 * 8
    np.testing.assert_array_equal(near.ends[near.starts[5] : near.starts[6]] - 80, welded[splats.corners[5]])
    assert np.diff(near.starts).min() >= 1


def test_a_vertex_without_triangles_holds_on_to_the_nearest(make_mesh):
    mesh = make_mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.1, 0, 0.5]], [[0, 1, 2]])
    points, welded = weld(mesh.vertices)
    near = mesh_neighbourhoods(sample_splats(mesh, 10), points, mesh.faces, welded)
    lonely = 10 + welded[3]
    assert near.ends[near.starts[lonely] : near.starts[lonely + 1]].tolist() == [10 + welded[0]]


def test_draws_are_different_neighbours_where_there_are_enough():
    near = Neighbourhoods(starts=np.array([0, 5, 7]), ends=np.arange(7))
    rng = np.random.default_rng(0)
    drawn = near.draw(np.zeros(200, np.int64), 3, rng)
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    assert set(drawn.reshape(-1).tolist()) == {0, 1, 2, 3, 4}
    assert set(near.draw(np.ones(50, np.int64), 3, rng).reshape(-1).tolist()) == {5, 6}


def test_two_points_are_each_others_neighbours():
    near = nearest_neighbourhoods(np.array([[0.0, 0, 0], [1, 0, 0]]), 3)
    assert near.ends.tolist() == [1, 0]
