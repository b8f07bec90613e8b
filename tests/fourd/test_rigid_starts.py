"""An object that has turned over between frames is found again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from animate4d.fourd.config import FitConfig
from animate4d.fourd.deform import SplatRig
from animate4d.fourd.fit import fit_motion
from animate4d.fourd.graph import build_graph
from animate4d.fourd.graph_fit import GraphFit
from animate4d.fourd.photometric import prepare_pictures
from animate4d.fourd.rigid_starts import TURNS, RigidStarts, mask_centres
from animate4d.fourd.silhouette import Silhouette
from animate4d.fourd.surface_splats import sample_splats
from animate4d.metrics.motion import vertex_error

CONFIG = FitConfig(
    size=64, splats=500, nodes=16, polish_steps=40, levels=2, forward_steps=12, backward_steps=0, joint_steps=4
)


def starts_of(mesh, video):
    pictures = prepare_pictures(video, 64, 2, "native")
    rig = SplatRig(mesh, build_graph(mesh.vertices, mesh.faces, 16), sample_splats(mesh, 500))
    return rig, RigidStarts(rig, pictures, Silhouette(pictures), CONFIG, torch.zeros(1, 16, 6))


def test_no_rotation_is_far_from_a_turn():
    random = torch.from_numpy(Rotation.random(2000, random_state=0).as_matrix()).float()
    traces = torch.einsum("nij,mij->nm", random, TURNS).max(1).values
    assert float(torch.rad2deg(((traces - 1) / 2).clamp(-1, 1).acos()).max()) < 45


def test_masks_say_where_the_object_is(tumbling_tube):
    _, vertices, video = tumbling_tube
    pictures = prepare_pictures(video, 64, 1, "native")
    np.testing.assert_allclose(mask_centres(pictures), vertices.mean(1), atol=0.04)
    # one view that the picture cuts off is not asked where two others are left
    cut = pictures.frames.clone()
    cut[1, 0, 3, :, :30] = 1.0
    np.testing.assert_allclose(mask_centres(replace(pictures, frames=cut))[1], vertices[1].mean(0), atol=0.04)
    empty = pictures.frames.clone()
    empty[2, 1:] = 0.0
    centres = mask_centres(replace(pictures, frames=empty))
    assert torch.isfinite(centres[:2]).all()
    assert torch.isnan(centres[2]).all()


def test_opposite_views_from_one_height_still_give_a_place(tumbling_tube):
    pictures = prepare_pictures(tumbling_tube[2], 64, 1, "native")
    viewmats = torch.stack([torch.diag(torch.tensor(axes)) for axes in ([1.0, 1, 1, 1], [-1.0, 1, -1, 1])])
    viewmats[:, 2, 3] = 3.0
    lens = torch.tensor([[64.0, 0, 32], [0, 64, 32], [0, 0, 1]]).expand(2, 3, 3)
    frames = torch.zeros_like(pictures.frames[:, :2])
    frames[:, :, 3, 24:40, 24:40] = 1.0
    centres = mask_centres(replace(pictures, frames=frames, viewmats=viewmats, intrinsics=lens))
    # nothing says how far along the one ray, but it is not beyond the cameras
    assert centres[:, :2].abs().max() < 1e-6
    assert centres[:, 2].abs().max() <= 3.0


@pytest.mark.parametrize("frame", [1, 2])
def test_the_turned_object_is_found(tumbling_tube, frame):
    mesh, vertices, video = tumbling_tube
    rig, starts = starts_of(mesh, video)
    poses, loss = starts.best(frame)
    means, _, _ = rig.place(poses[:1])
    true = sample_splats(mesh, 500).surface(vertices[frame])
    # near enough for colours to lead the rest of the way: the tube is 1.2 long, 0.28 thick
    assert np.linalg.norm(means[0].numpy() - true, axis=-1).mean() < 0.1
    assert 0 < loss < float("inf")


def test_an_empty_frame_has_no_starts(tumbling_tube):
    mesh, _, video = tumbling_tube
    alpha = video.alpha.copy()
    alpha[:, 1] = 0
    poses, loss = starts_of(mesh, replace(video, alpha=alpha))[1].best(1)
    assert (len(poses), loss) == (0, float("inf"))


def test_a_fit_follows_an_object_that_turns_over(tumbling_tube):
    mesh, vertices, video = tumbling_tube
    lost, found = (
        vertex_error(
            fit_motion(mesh, video, replace(CONFIG, rigid_starts=on)).motion.apply(mesh.vertices), vertices
        ).ratio
        for on in (False, True)
    )
    assert found < 0.1
    assert lost > 3 * found


@pytest.mark.parametrize("frame", [1, 2])
def test_a_jump_is_measured_to_the_nearer_neighbour(tumbling_tube, frame):
    mesh, _, video = tumbling_tube
    pictures = prepare_pictures(video, 64, 2, "native")
    rig = SplatRig(mesh, build_graph(mesh.vertices, mesh.faces, 16), sample_splats(mesh, 500))
    fit = GraphFit(rig, pictures, None, CONFIG)
    poses = torch.zeros(3, 16, 6)
    poses[:, :, 0] = torch.tensor([0.0, 0.1, 0.4])[:, None]
    assert fit._jump(poses, frame) == pytest.approx({1: 0.1, 2: 0.3}[frame])
    assert fit._jump(poses, frame, poses[0]) == pytest.approx({1: 0.0, 2: 0.1}[frame])
