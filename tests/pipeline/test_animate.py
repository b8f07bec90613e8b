import json
from dataclasses import replace
from types import SimpleNamespace

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from animate4d.assets.load import load_asset
from animate4d.core.cameras import Rig
from animate4d.core.errors import AssetError, ConfigError
from animate4d.core.motion import SplatMotion, VertexMotion
from animate4d.export.motion_file import read_motion
from animate4d.export.viewer.page import read_viewer
from animate4d.fourd import config as fourd_config
from animate4d.fourd.field_config import FieldFitConfig
from animate4d.fourd.surface_splats import sample_splats
from animate4d.io.gltf import read_gltf
from animate4d.io.ply import read_splat_ply
from animate4d.metrics.motion import vertex_error
from animate4d.models import config as model_config
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline import exports
from animate4d.pipeline.animate import animate, kept_beside
from animate4d.pipeline.config import AnimateOptions, Request
from animate4d.pipeline.exports import mesh_splats, played
from animate4d.pipeline.receipt import STAGES
from animate4d.pipeline.stage_report import Cancelled
from animate4d.pipeline.steps import find_clip
from animate4d.videos.generate import LocalModel
from animate4d.views.clip import render_clip


def test_the_bundle_holds_everything_and_the_receipt_says_so(truth_bundle):
    result, _ = truth_bundle
    names = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*") if path.is_file()}
    assert names == {
        "animated.glb",
        "splats/static.ply",
        "motion.npz",
        "viewer.html",
        "turntable.mp4",
        "IMPORT.md",
        "views.mp4",
        "ground-truth.mp4",
        "thumb.webp",
        "still.webp",
        "receipt.json",
    }
    receipt = json.loads((result.folder / "receipt.json").read_text())
    assert receipt == json.loads(json.dumps(result.receipt, default=float))
    assert set(receipt["files"]) == names - {"receipt.json"}
    assert set(receipt["seconds"]) == set(STAGES) - {"video"}
    assert min(receipt["peak_memory_mb"].values()) > 50
    assert receipt["model_version"] is None
    assert {"animate4d", "python", "torch"} <= set(receipt["versions"])


def test_the_glb_moves_like_the_truth_and_the_receipt_has_the_right_error(truth_bundle, barrel):
    """The error is measured again from the file, in the user's frame, by the common reader."""
    result, _ = truth_bundle
    source, moved = load_asset(barrel), load_asset(result.folder / "animated.glb")
    clip = source.clip_number("bounce gently")
    duration = source.clips[clip].duration
    assert len(moved.clips) == 1
    times = np.arange(3) * duration / 3

    def poses(asset, number, clock):
        return np.stack([asset.to_canonical.invert(asset.vertices_at(number, float(time))) for time in clock])

    true, shown = poses(source, clip, times), poses(moved, 0, times)
    assert true.shape == shown.shape
    error = vertex_error(shown, true)
    truth = result.receipt["truth"]
    assert error.ratio == pytest.approx(truth["ratio"], abs=0.01)
    assert error.static == pytest.approx(truth["e_static"], rel=0.02)
    assert truth["ratio"] < 0.45
    # the splats look right where no view of the video was, too
    assert truth["psnr"] > 25
    assert 22 < truth["psnr_unseen"] <= truth["psnr"] + 1


def test_pictures_show_four_views_moving_and_loop_in_step(truth_bundle):
    result, _ = truth_bundle
    shown, fitted = (np.stack(imageio.mimread(result.folder / name)) for name in ("views.mp4", "ground-truth.mp4"))
    assert shown.shape[1:] == fitted.shape[1:] == (514, 514, 3)
    assert len(shown) % len(fitted) == 0
    rows, columns = (slice(0, 256), slice(258, 514)), (slice(0, 256), slice(258, 514))
    for row in rows:
        for column in columns:
            view = shown[:, row, column].astype(int)
            assert np.abs(view - view[0]).max() > 60
    with Image.open(result.folder / "thumb.webp") as thumb:
        assert thumb.is_animated
        assert thumb.info["loop"] == 0
    with Image.open(result.folder / "still.webp") as still:
        assert np.abs(np.asarray(still.convert("RGB")).astype(int) - shown[0]).mean() < 3


def test_static_splats_lie_on_the_users_object(truth_bundle, barrel):
    result, _ = truth_bundle
    splats = read_splat_ply(result.folder / "splats" / "static.ply")
    source = load_asset(barrel)
    corners = source.to_canonical.invert(source.vertices_at(source.clip_number("bounce gently"), 0.0))
    low, high = corners.min(0), corners.max(0)
    slack = 0.05 * np.linalg.norm(high - low)
    upright = splats.means * [1, -1, -1]  # 3DGS files are y-down, glTF is y-up
    assert (upright > low - slack).all()
    assert (upright < high + slack).all()


def test_frame_0_of_every_export_is_the_input(truth_bundle, barrel):
    result, _ = truth_bundle
    source = load_asset(barrel)
    posed = source.posed(source.clip_number("bounce gently"), 0.0)
    moved = load_asset(result.folder / "animated.glb", clip=0)
    shown = moved.to_canonical.invert(moved.vertices_at(0, 0.0).astype(np.float64))
    wanted = posed.to_canonical.invert(posed.mesh.vertices.astype(np.float64))
    np.testing.assert_allclose(shown[moved.mesh.faces], wanted[posed.mesh.faces], atol=2e-5 / posed.to_canonical.scale)
    motion = read_motion(result.folder / "motion.npz")
    np.testing.assert_array_equal(motion["vertices"][0], posed.mesh.vertices)
    splats = read_splat_ply(result.folder / "splats" / "static.ply")
    user = (motion["splat_means"][0] - motion["translation"]) @ motion["rotation"] / motion["scale"]
    np.testing.assert_allclose(splats.means * [1, -1, -1], user, atol=1e-5 / motion["scale"])
    facts, arrays = read_viewer(result.folder / "viewer.html")
    places = np.array(facts["origin"]) + facts["unit"] * arrays["splatPlaces"][0]
    np.testing.assert_allclose(places, motion["splat_means"][0], atol=facts["unit"])


@pytest.mark.parametrize(
    ("video", "loop", "frames"),
    [
        ("generated", "auto", [0, 1, 2, 0]),
        ("ground-truth", "auto", [0, 1, 2]),
        ("generated", "none", [0, 1, 2]),
        ("ground-truth", "close", [0, 1, 2, 0]),
        ("generated", "seamless", [0, 1, 2, 0]),
        ("generated", "ping-pong", [0, 1, 2, 1, 0]),
    ],
)
def test_a_motion_ends_as_asked(barrel, video, loop, frames):
    offsets = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
    offsets[0] = 0
    motion = VertexMotion(offsets=offsets, times=np.arange(3) / 8)
    request = Request(asset=barrel, prompt="a barrel", video=video, options=AnimateOptions(loop=loop))
    shown, video_frames = played(motion, request)
    np.testing.assert_array_equal(video_frames, frames)
    assert len(shown.times) == len(frames)
    np.testing.assert_allclose(np.diff(shown.times), 0.125)
    if loop != "seamless":
        np.testing.assert_array_equal(shown.offsets, offsets[frames])
    else:
        np.testing.assert_allclose(shown.offsets[-1], 0, atol=1e-6)


def test_splats_are_dense_unless_speed_is_wanted_and_a_field_keeps_its_own(barrel, monkeypatch):
    asset = load_asset(barrel)
    mesh = asset.mesh
    video = render_clip(asset, 0, np.arange(2) / 8, Rig(), 32)[0]
    surface = sample_splats(mesh, 150)
    still = VertexMotion(offsets=np.zeros((2, *mesh.vertices.shape), np.float32), times=np.arange(2) / 8)
    fit = SimpleNamespace(motion=still, surface=surface, splats=surface.cloud, trajectories=None)
    monkeypatch.setattr(exports, "SPLATS", 400)
    monkeypatch.setattr(exports, "POLISH_PX", 32)
    frames = np.array([0, 1])
    for effort, count in (("draft", 150), ("standard", 400)):
        request = Request(asset=barrel, prompt="a barrel", options=AnimateOptions(fit=effort))
        cloud, splats = mesh_splats(mesh, fit, still, frames, video, request)
        assert len(cloud.means) == splats.means.shape[1] == count
        np.testing.assert_array_equal(splats.means[0], cloud.means)
    colors = np.random.default_rng(0).normal(size=(2, 150, 3)).astype(np.float32)
    means, quats = np.stack([surface.cloud.means] * 2), np.stack([surface.cloud.quats] * 2)
    fit.trajectories = SplatMotion(means=means, quats=quats, sh=colors)
    cloud, splats = mesh_splats(mesh, fit, still, np.array([0, 1, 0]), video, request)
    assert cloud is surface.cloud
    np.testing.assert_array_equal(splats.sh, colors[[0, 1, 0]])
    assert splats.scales is None
    louder = replace(request, options=replace(request.options, strength=2.0))
    assert mesh_splats(mesh, fit, still, frames, video, louder)[1].sh is None


def test_progress_rises_through_the_stages(truth_bundle):
    _, told = truth_bundle
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert list(dict.fromkeys(stage for stage, _ in told)) == ["load", "views", "fit", "export", "pictures"]


@pytest.mark.slow
def test_a_generated_video_is_fitted_and_no_strength_stands_still(barrel, tmp_path):
    model = MVVDM(model_config.smoke()).eval()
    options = AnimateOptions(fit="draft", steps=1, strength=0.0)
    request = Request(asset=barrel, prompt="a barrel bouncing", options=options)
    result = animate(request, LocalModel(model, "m1"), tmp_path / "one")
    assert (tmp_path / "one" / "generated.mp4").stat().st_size > 1000
    assert result.receipt["truth"] is None
    assert result.receipt["model_version"] == "m1"
    assert set(result.receipt["seconds"]) == set(STAGES)
    assert result.receipt["fit"]["frames"] == model.config.frames
    asset = load_asset(result.folder / "animated.glb")
    assert np.allclose(asset.vertices_at(0, 0.5), asset.vertices_at(0, 0.0), atol=1e-5)


class Replaced:
    """A shared model that another one replaces after each video."""

    def __init__(self, model):
        self.versions = (LocalModel(model, f"m{number}") for number in range(1, 9))

    def video(self, *args, **settings):
        return next(self.versions).video(*args, **settings)


@pytest.mark.slow
def test_the_receipt_names_the_models_of_all_clips(barrel, tmp_path):
    tiny = replace(
        model_config.smoke(), image_size=16, frames=3, codec_factor=4, latent_channels=48, block_channels=(16, 16),
        heads=2, norm_groups=4, text_dim=16, flow_size=8,
    )  # fmt: skip
    options = AnimateOptions(fit="draft", steps=1, clips=2, formats=("npz",))
    request = Request(asset=barrel, prompt="a barrel bouncing", options=options)
    result = animate(request, Replaced(MVVDM(tiny).eval()), tmp_path / "two")
    assert result.receipt["model_version"] == "m1+m2"


def test_clips_follow_one_another_and_swing_back(truth_request, barrel, tmp_path):
    options = replace(truth_request.options, frames=2, clips=2, loop="ping-pong", tracker="exact")
    told = []
    result = animate(
        replace(truth_request, options=options),
        None,
        tmp_path / "long",
        progress=lambda stage, share: told.append(share),
    )
    assert told == sorted(told)
    receipt = result.receipt
    assert receipt["fit"]["frames"] == 3
    assert receipt["truth"]["ratio"] < 0.3
    assert receipt["request"]["options"]["tracker"] == "exact"
    moved = load_asset(result.folder / "animated.glb")
    source = load_asset(barrel)
    duration = source.clips[source.clip_number("bounce gently")].duration
    # three frames there, two back
    assert moved.clips[0].duration == pytest.approx(4 * duration / 3, rel=1e-3)
    early, late = (moved.vertices_at(0, frame * duration / 3) for frame in (1, 3))
    np.testing.assert_allclose(early, late, atol=1e-3)
    assert np.abs(early - moved.vertices_at(0, 0.0)).max() > 0.02


def test_cancelling_leaves_nothing_behind_and_an_older_result_alone(truth_request, tmp_path):
    out = tmp_path / "barrel"
    out.mkdir()
    (out / "older.txt").write_text("kept")
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 6

    with pytest.raises(Cancelled):
        animate(truth_request, None, out, cancelled=cancelled)
    assert [path.name for path in tmp_path.iterdir()] == ["barrel"]
    assert (out / "older.txt").read_text() == "kept"


def test_a_generated_video_without_a_model_is_refused_at_once(barrel, tmp_path):
    with pytest.raises(ConfigError, match="needs a model"):
        animate(Request(asset=barrel, prompt="a barrel"), None, tmp_path / "out")


def test_splats_have_no_clip_of_their_own(splat_file, tmp_path):
    request = Request(asset=splat_file, prompt="", video="ground-truth")
    with pytest.raises(AssetError, match=r"captured\.ply: has no animation, .* use video=generated"):
        animate(request, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def quick_paper(monkeypatch):
    quick = replace(
        fourd_config.paper(), size=48, splats=300, nodes=12, polish_steps=10, levels=1, bias_steps=0, fine_steps=0,
        field=FieldFitConfig(head_rate=1e-3, frame_steps=10, refine_steps=10, rigidity_nodes=64, checkpoint_steps=1),
    )  # fmt: skip
    monkeypatch.setitem(fourd_config.PRESETS, "paper", lambda: quick)


def test_the_papers_field_ends_as_a_morph_animation(truth_request, tmp_path, quick_paper):
    request = replace(truth_request, options=replace(truth_request.options, fit="paper", frames=3, formats=("npz",)))
    result = animate(request, None, tmp_path / "field")
    assert result.receipt["fit"]["nodes"] == 0
    assert result.receipt["truth"]["ratio"] < 0.9
    document = read_gltf(result.folder / "animated.glb").json
    paths = {channel["target"]["path"] for clip in document["animations"] for channel in clip["channels"]}
    assert "weights" in paths


def test_a_fit_that_was_stopped_goes_on_from_its_checkpoint(truth_request, tmp_path, quick_paper):
    options = replace(truth_request.options, fit="paper", frames=3, formats=("npz",))
    request, out = replace(truth_request, options=options), tmp_path / "field"
    ticks = {"whole": 0, "stopped": 0, "resumed": 0}

    def count(name):
        return lambda stage, share: ticks.update({name: ticks[name] + (stage == "fit")})

    whole = animate(request, None, tmp_path / "whole", progress=count("whole"))
    with pytest.raises(Cancelled):
        animate(request, None, out, progress=count("stopped"), cancelled=lambda: ticks["stopped"] > 25)
    assert [path.name for path in kept_beside(out).iterdir()] == ["fit-1.safetensors"]
    found = animate(request, None, out, progress=count("resumed"))
    assert not kept_beside(out).exists()
    assert ticks["resumed"] < ticks["whole"] - 10
    arrays, expected = (read_motion(result.folder / "motion.npz") for result in (found, whole))
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[name], expected[name]) for name in arrays)


def test_the_checkpoint_of_another_video_is_replaced(truth_request, tmp_path, quick_paper):
    options = replace(truth_request.options, fit="paper", frames=3, formats=("npz",))
    out, asked = tmp_path / "field", []
    with pytest.raises(Cancelled):
        animate(
            replace(truth_request, options=replace(options, frames=4)), None, out,
            progress=lambda stage, _share: asked.append(stage), cancelled=lambda: asked.count("fit") > 25,
        )  # fmt: skip
    assert kept_beside(out).is_dir()
    result = animate(replace(truth_request, options=options), None, out)
    assert result.receipt["fit"]["frames"] == 3


def test_a_field_follows_no_other_clip():
    with pytest.raises(ConfigError, match="give fit standard"):
        AnimateOptions(fit="paper", clips=2)


def test_a_clip_goes_by_name_number_or_the_last_part_of_its_name(barrel):
    asset = load_asset(barrel)
    names = [clip.name for clip in asset.clips]
    assert find_clip(asset, None) == 0
    assert find_clip(asset, names[1]) == 1
    assert find_clip(asset, "2") == 2
    exported = replace(asset, clips=tuple(replace(clip, name=f"Armature|{clip.name.title()}") for clip in asset.clips))
    assert find_clip(exported, names[2].upper()) == 2
    named = ("Rig|Fox_Gallop_Jump", "Rig|Fox_Gallop", "Rig|Fox_Run", "Rig|Run")
    exported = replace(asset, clips=tuple(replace(asset.clips[0], name=name) for name in named))
    assert [find_clip(exported, wanted) for wanted in ("jump", "gallop", "run", "Fox_Run")] == [0, 1, 3, 2]
    with pytest.raises(AssetError, match="Fox_Gallop_Jump"):
        find_clip(exported, "moonwalk")
    with pytest.raises(AssetError, match="has no animation"):
        find_clip(replace(asset, clips=()), None)


@pytest.mark.parametrize(
    "change", [{"seed": -1}, {"seed": 2**64}, {"prompt": " "}, {"video": "real"}, {"clip": "sway"}]
)
def test_a_wrong_request_names_its_field(barrel, change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        Request(**({"asset": barrel, "prompt": "a barrel"} | change))
