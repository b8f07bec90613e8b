"""Captured clouds through the whole pipeline: seen, given a video, fitted, moved, and written in the user's frame."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from animate4d.assets.load import load_asset
from animate4d.core.cameras import Rig
from animate4d.core.harmonics import harmonics
from animate4d.core.motion import GraphMotion, SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.export.motion_file import read_motion
from animate4d.export.splats import write_splat_sequence
from animate4d.fourd.cloud_splats import cloud_graph
from animate4d.fourd.surface_splats import sample_splats
from animate4d.io.ply import read_splat_ply, write_splat_ply
from animate4d.models import config as model_config
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline import exports
from animate4d.pipeline.animate import animate
from animate4d.pipeline.config import AnimateOptions, Request
from animate4d.pipeline.exports import wanted_files
from animate4d.pipeline.subject import CloudSubject, MeshSubject, subject_of
from animate4d.videos.generate import LocalModel


@pytest.fixture(scope="module")
def scan(barrel, tmp_path_factory):
    """The barrel as a capture: y down, in metres, with harmonics."""
    cloud = sample_splats(load_asset(barrel).mesh, 2500, seed=1).cloud
    rng = np.random.default_rng(0)
    turn = Rotation.from_rotvec([np.pi / 2, 0, 0])
    quats = (turn * Rotation.from_quat(cloud.quats[:, [1, 2, 3, 0]])).as_quat()[:, [3, 0, 1, 2]]
    rest = rng.normal(0, 0.05, (2500, 3, 3)).astype(np.float32)
    path = tmp_path_factory.mktemp("scan") / "scan.ply"
    write_splat_ply(
        path,
        SplatCloud(
            means=(3 * turn.apply(cloud.means) + [5, 0, -2]).astype(np.float32),
            quats=quats.astype(np.float32),
            scales=3 * cloud.scales,
            opacities=cloud.opacities,
            sh=np.concatenate([cloud.sh, rest], axis=1),
        ),
    )
    return path


def test_a_subject_is_told_by_what_the_asset_holds(barrel, scan):
    assert isinstance(subject_of(load_asset(barrel)), MeshSubject)
    cloud = subject_of(load_asset(scan))
    assert isinstance(cloud, CloudSubject)
    rgba = cloud.look(Rig(), 64)
    assert rgba.shape == (4, 64, 64, 4)
    covered = rgba[..., 3] > 128
    assert (covered.mean((1, 2)) > 0.05).all()
    assert (covered.mean((1, 2)) < 0.7).all()
    assert not rgba[:, 0, :, 3].any(), "the object lies within the picture"


@pytest.fixture(scope="module")
def bundle(scan, tmp_path_factory):
    model = MVVDM(model_config.smoke()).eval()
    request = Request(asset=scan, prompt="a barrel bouncing", options=AnimateOptions(fit="draft", steps=1))
    return animate(request, LocalModel(model, "m1"), tmp_path_factory.mktemp("bundle") / "scan")


@pytest.mark.slow
def test_the_bundle_of_a_capture(bundle, scan):
    names = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()}
    frames = bundle.receipt["fit"]["frames"] + 1
    sequence = {f"splats/frames/frame_{frame:04d}.ply" for frame in range(frames)}
    assert names == sequence | {
        "splats/static.ply", "motion.npz", "viewer.html", "turntable.mp4", "IMPORT.md", "views.mp4", "generated.mp4",
        "thumb.webp", "still.webp", "receipt.json",
    }  # fmt: skip
    receipt = json.loads((bundle.folder / "receipt.json").read_text())
    assert any("no animated.glb" in warning for warning in receipt["warnings"])
    assert receipt["truth"] is None


@pytest.mark.slow
def test_every_file_is_in_the_users_frame_and_starts_as_the_capture(bundle, scan):
    source = read_splat_ply(scan)
    for name in ("static.ply", "frames/frame_0000.ply"):
        again = read_splat_ply(bundle.folder / "splats" / name)
        np.testing.assert_allclose(again.means, source.means, atol=1e-4)
        np.testing.assert_allclose(again.scales, source.scales, rtol=1e-3)
        np.testing.assert_allclose(again.sh, source.sh, atol=1e-4)
        np.testing.assert_allclose(np.abs((again.quats * source.quats).sum(1)), 1, atol=1e-4)
    motion = read_motion(bundle.folder / "motion.npz")
    assert motion["splat_means"].shape == (len(motion["times"]), 2500, 3)
    assert np.isfinite(motion["splat_means"]).all()
    user = (motion["splat_means"] - motion["translation"]) @ motion["rotation"] / motion["scale"]
    np.testing.assert_allclose(user[0], source.means, atol=1e-4)
    for frame in (0, 3):
        ply = read_splat_ply(bundle.folder / f"splats/frames/frame_{frame:04d}.ply")
        np.testing.assert_allclose(ply.means, user[frame], atol=1e-4)


def test_moved_harmonics_are_written_turned(scan, tmp_path):
    asset = load_asset(scan)
    cloud = asset.splats
    turn = Rotation.from_rotvec([0.4, -0.9, 0.3])
    quats = (turn * Rotation.from_quat(cloud.quats[:, [1, 2, 3, 0]])).as_quat()[:, [3, 0, 1, 2]].astype(np.float32)
    moved = SplatMotion(means=np.stack([cloud.means, cloud.means]), quats=np.stack([cloud.quats, quats]))
    write_splat_sequence(asset, cloud, moved, tmp_path / "splats" / "frames")
    before, after = (read_splat_ply(tmp_path / f"splats/frames/frame_{frame:04d}.ply") for frame in (0, 1))
    # the turn in the axes of the file
    there = asset.to_canonical.rotation.T @ turn.as_matrix() @ asset.to_canonical.rotation
    look = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]])
    seen = np.einsum("dk,nkc->ndc", harmonics(look @ there.T, 4), after.sh)
    np.testing.assert_allclose(seen, np.einsum("dk,nkc->ndc", harmonics(look, 4), before.sh), atol=1e-4)


def test_large_captures_go_without_frames_and_page_unless_asked(scan, monkeypatch):
    asset = load_asset(scan)
    moved = SplatMotion(means=np.stack([asset.splats.means] * 2), quats=np.stack([asset.splats.quats] * 2))
    thing = SimpleNamespace(splats=moved, cloud=asset.splats, vertices=None)
    formats, notes = wanted_files(thing, AnimateOptions())
    assert {"ply-frames", "viewer"} <= set(formats)
    assert len(notes) == 1
    assert "no animated.glb" in notes[0]
    monkeypatch.setattr(exports, "MAX_SEQUENCE_BYTES", 1000)
    monkeypatch.setattr(exports, "MAX_VIEWER_BYTES", 1000)
    formats, notes = wanted_files(thing, AnimateOptions())
    assert not {"ply-frames", "viewer"} & set(formats)
    assert any("ask for ply-frames" in note for note in notes)
    assert any("ask for viewer" in note for note in notes)
    asked = AnimateOptions(formats=("default", "ply-frames", "viewer"))
    assert {"ply-frames", "viewer"} <= set(wanted_files(thing, asked)[0])
    assert wanted_files(thing, AnimateOptions(formats=("npz",)))[0] == ("npz",)


def test_pictures_between_frames_are_blends(scan):
    subject = subject_of(load_asset(scan))
    graph = cloud_graph(subject.body, 6)
    shift = np.zeros((2, 6, 3), np.float32)
    shift[1, :, 2] = 0.2
    motion = GraphMotion(
        nodes=graph.nodes, rotations=np.zeros_like(shift), translations=shift, vertex_nodes=graph.vertex_nodes,
        vertex_weights=graph.vertex_weights, times=np.array([0.0, 0.1]),
    )  # fmt: skip
    draw, steps = subject.film(motion, Rig(), 48), [(0, 0.0), (0, 0.5), (1, 0.0)]
    height = [np.argwhere(np.abs(draw(*step)[0].astype(int) - 128).sum(-1) > 60)[:, 0].mean() for step in steps]
    assert height[0] > height[1] > height[2]
    still = subject.film(replace(motion, translations=0 * shift), Rig(), 48)
    np.testing.assert_array_equal(still(0, 0.0), draw(0, 0.0))
