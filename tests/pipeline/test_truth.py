"""Scores of a fit whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from animate4d.assets.load import load_asset
from animate4d.core.cameras import Rig
from animate4d.core.motion import GraphMotion
from animate4d.fourd.config import draft
from animate4d.fourd.fit import FitResult
from animate4d.fourd.graph import build_graph
from animate4d.fourd.levels import Level, place_splats, shrink
from animate4d.pipeline.target import AROUND, VIEW_PX, joined, look_around, true_target
from animate4d.pipeline.truth import EVALUATION, UNSEEN, score_fit
from animate4d.views.clip import pose_vertices
from animate4d.views.raycast import render_views


@pytest.fixture(scope="module")
def scene(barrel):
    asset = load_asset(barrel, clip=1, time=0.0)
    times = np.array([0.0, 0.25])
    return asset.mesh, pose_vertices(asset, 1, times), times


def still_fit(surface, mesh) -> FitResult:
    """A result that stands still for two frames."""
    graph = build_graph(mesh.vertices, mesh.faces, 4)
    zero = np.zeros((2, 4, 3), np.float32)
    motion = GraphMotion(
        nodes=graph.nodes, rotations=zero, translations=zero, vertex_nodes=graph.vertex_nodes,
        vertex_weights=graph.vertex_weights, times=np.array([0.0, 0.25]),
    )  # fmt: skip
    return FitResult(
        motion=motion, graph=graph, levels=(Level(surface=surface, bias=torch.zeros(1, 4, 6)),), trajectories=None,
        frame_losses=np.zeros(2), mask_iou=np.ones(2), lost_frames=(), seconds=0.0,
    )  # fmt: skip


def test_a_still_object_scores_as_standing_still(scene):
    mesh, vertices, times = scene
    target = true_target(mesh, vertices, times, Rig(), "none")
    surface = place_splats(mesh, shrink(target.video, 128, draft()), target.around, 3000, draft())
    still = still_fit(surface, mesh)
    rest = vertices[:1].repeat(2, 0)
    moving = score_fit(mesh, still, vertices, target.video, {"unseen": UNSEEN})
    assert moving.ratio == 1.0
    assert moving.e_fit == moving.e_static > 0.01
    standing = true_target(mesh, rest, times, Rig(), "none").video
    right = score_fit(mesh, still, rest, standing, {"unseen": UNSEEN, "more": EVALUATION})
    assert right.ratio is None
    # views around the object were used to colour it, so unseen sides look like seen ones
    assert right.psnr > moving.psnr + 3
    assert min(right.psnr_unseen.values()) > right.psnr - 2


def test_targets_carry_what_their_tracker_finds(scene):
    mesh, vertices, times = scene
    exact = true_target(mesh, vertices, times, Rig(), "exact")
    assert exact.tracks is None
    assert exact.flow.shape == (4, 2, VIEW_PX // 2, VIEW_PX // 2, 2)
    assert 0.02 < exact.flow_weight.mean() < 0.9
    found = true_target(mesh, vertices, times, Rig(), "opencv-dis")
    assert found.flow is None
    assert found.tracks.visible[:, 0].sum() > 500
    np.testing.assert_array_equal(found.video.rgb, exact.video.rgb)
    assert true_target(mesh, vertices, times, Rig(), "none").tracks is None


def test_under_lamps_that_stand_still_a_turned_object_changes_its_colours(scene):
    mesh, _, times = scene
    turned = mesh.vertices @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.float32)
    vertices = np.stack([mesh.vertices, turned])
    baked, lit = (true_target(mesh, vertices, times, Rig(), "none", lamps=lamps).video for lamps in (False, True))
    np.testing.assert_array_equal(lit.alpha, baked.alpha)
    np.testing.assert_array_equal(lit.rgb[:, 0], baked.rgb[:, 0])
    posed = true_target(replace(mesh, vertices=turned), turned[None].repeat(2, 0), times, Rig(), "none").video
    np.testing.assert_array_equal(lit.rgb[:, 1], posed.rgb[:, 0])
    assert np.abs(lit.rgb[:, 1].astype(int) - baked.rgb[:, 1]).max() > 20


def test_looking_around_shows_the_object_at_rest(scene):
    mesh, _, _ = scene
    around = look_around(lambda rig, size: render_views(mesh, mesh.vertices, rig, size).rgba)
    assert around.rgb.shape == (sum(rig.views for rig in AROUND), 1, VIEW_PX, VIEW_PX, 3)
    assert (around.alpha > 0).mean((1, 2, 3)).min() > 0.05


def test_clips_join_without_the_shared_frame(scene):
    mesh, vertices, times = scene
    video = true_target(mesh, vertices, times, Rig(), "none").video
    both = joined([video, video])
    np.testing.assert_array_equal(both.rgb, video.rgb[:, [0, 1, 1]])
    np.testing.assert_allclose(both.times, [0.0, 0.25, 0.5])
