"""Tracks and flow as targets for splats."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from animate4d.core.tracks import Tracks
from animate4d.fourd.correspond import Correspondences, Evidence, find_correspondences, visible_splats
from animate4d.fourd.deform import SplatRig
from animate4d.fourd.graph import build_graph
from animate4d.fourd.photometric import prepare_pictures
from animate4d.fourd.surface_splats import sample_splats

REST = torch.zeros(1, 20, 6)
"""Pose of the 20 nodes."""


@pytest.fixture(scope="module")
def scene(bending_tube):
    mesh, vertices, video = bending_tube
    splats = sample_splats(mesh, 700)
    pictures = prepare_pictures(video, 64, 1, "native")
    rig = SplatRig(mesh, build_graph(mesh.vertices, mesh.faces, 20), splats)
    true = pictures.project(torch.from_numpy(np.float32([splats.surface(v) for v in vertices])))
    return rig, pictures, splats, true.numpy()


def visible(scene):
    rig, pictures, _, _ = scene
    means, factors, _ = rig.place(torch.zeros(1, len(rig.nodes), 6))
    return visible_splats(rig, means, factors, pictures)


def test_visible_splats_face_the_camera(scene, bending_tube):
    _, _, splats, _ = scene
    seen = visible(scene)
    camera = bending_tube[2].camera_to_world[:, :3, 3]
    outward = splats.cloud.means * (1, 0, 1)
    facing = np.einsum("vnc,nc->vn", camera[:, None] - splats.cloud.means, outward)
    side = np.abs(facing) > 0.15
    assert np.mean(seen[side] == (facing[side] > 0)) > 0.97
    assert seen.any(1).all()


def errors(found: Correspondences, true):
    weight = found.weight.numpy()
    distance = np.linalg.norm(found.xy.numpy() - true, axis=-1)
    return distance[1:][weight[1:] > 0.5], weight


def test_tracks_carry_their_displacement_to_the_nearest_splat(scene):
    rig, pictures, _, true = scene
    seen = visible(scene)
    rows = np.arange(0, len(seen[0]), 5)
    xy = true[:, :, rows].transpose(1, 0, 2, 3)
    # tracks are given in pixels of a video twice the size, half a pixel beside the splat
    shown = np.repeat(seen[:, None, rows], len(true), 1).astype(np.float32)
    tracks = Tracks(xy=2 * xy + np.float32(0.5), visible=shown, tracker="test")
    tracks.visible[:, 2, 0] = 0.0
    tracks.xy[0, 3, 1] = np.nan
    tracks.xy[0, :, 2] = 2.0
    found = find_correspondences(rig, REST, pictures, Evidence(width=128, tracks=tracks))
    distance, weight = errors(found, true)
    assert distance.max() < 3.0
    assert np.median(distance) < 0.3
    assert np.isfinite(found.xy.numpy()).all()
    assert 0 < (weight[1, 0] > 0).sum() < len(rows)


@pytest.mark.parametrize("cells", [64, 32])
def test_backward_flow_is_inverted(scene, cells):
    rig, pictures, _, true = scene
    times, views = true.shape[:2]
    flow = np.zeros((views, times, cells, cells, 2), np.float32)
    y, x = np.mgrid[:cells, :cells]
    place = (np.stack([x, y], -1) + 0.5) * 64 / cells
    seen = visible(scene)
    for view in range(views):
        for frame in range(times):
            tree = cKDTree(true[frame, view, seen[view]])
            near = tree.query(place.reshape(-1, 2))[1]
            shift = true[0, view, seen[view]][near] - true[frame, view, seen[view]][near]
            flow[view, frame] = (shift / 32).reshape(cells, cells, 2)
    found = find_correspondences(rig, REST, pictures, Evidence(width=64, flow=flow))
    distance, weight = errors(found, true)
    assert np.median(distance) < 0.5
    assert np.percentile(distance, 95) < 2.0
    assert (weight[1:] > 0.5).mean() > 0.2
    # nothing is known of splats that frame 0 does not show
    assert weight[:, ~seen].max() == 0.0
    none = find_correspondences(
        rig, REST, pictures, Evidence(width=64, flow=flow, flow_weight=np.zeros(flow.shape[:4], np.float32))
    )
    assert float(none.weight.max()) == 0.0


def test_pull_is_robust_and_counts_only_what_is_seen():
    xy = torch.zeros(2, 1, 40, 2)
    found = Correspondences(xy=xy, weight=torch.ones(2, 1, 40))
    frames = torch.tensor([1])
    near, far = (torch.full((1, 1, 40, 2), offset) for offset in (0.5, 64.0))
    # small distances count squared, large ones almost linearly
    assert float(found.pull(near, frames, 128)) == pytest.approx(2 * (0.5 / 128) ** 2, rel=0.02)
    assert float(found.pull(2 * far, frames, 128)) < 2.1 * float(found.pull(far, frames, 128))
    blind = Correspondences(xy=xy, weight=torch.zeros(2, 1, 40))
    assert float(blind.pull(far, frames, 128)) == 0.0


def test_without_tracks_or_flow_there_are_no_targets(scene):
    assert find_correspondences(scene[0], REST, scene[1], Evidence(width=64)) is None
