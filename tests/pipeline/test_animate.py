import json
from dataclasses import replace

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from animate4d.assets.load import load_asset
from animate4d.core.errors import AssetError, ConfigError
from animate4d.io.ply import read_splat_ply
from animate4d.metrics.motion import vertex_error
from animate4d.models import config as model_config
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline.animate import Cancelled, animate, find_clip
from animate4d.pipeline.config import AnimateOptions, Request
from animate4d.pipeline.receipt import STAGES


def test_the_bundle_holds_everything_and_the_receipt_says_so(truth_bundle):
    result, _ = truth_bundle
    names = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*") if path.is_file()}
    assert names == {
        "animated.glb",
        "splats/static.ply",
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
    assert (splats.means > low - slack).all()
    assert (splats.means < high + slack).all()


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
    result = animate(request, model, tmp_path / "one", model_version="m1")
    assert (tmp_path / "one" / "generated.mp4").stat().st_size > 1000
    assert result.receipt["truth"] is None
    assert result.receipt["model_version"] == "m1"
    assert set(result.receipt["seconds"]) == set(STAGES)
    assert result.receipt["fit"]["frames"] == model.config.frames
    asset = load_asset(result.folder / "animated.glb")
    assert np.allclose(asset.vertices_at(0, 0.5), asset.vertices_at(0, 0.0), atol=1e-5)


def test_cancelling_leaves_nothing_behind_and_an_older_result_alone(truth_request, tmp_path):
    out = tmp_path / "barrel"
    out.mkdir()
    (out / "older.txt").write_text("kept")
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 6

    with pytest.raises(Cancelled):
        animate(truth_request, None, out, model_version="", cancelled=cancelled)
    assert [path.name for path in tmp_path.iterdir()] == ["barrel"]
    assert (out / "older.txt").read_text() == "kept"


def test_a_generated_video_without_a_model_is_refused_at_once(barrel, tmp_path):
    with pytest.raises(ConfigError, match="needs a model"):
        animate(Request(asset=barrel, prompt="a barrel"), None, tmp_path / "out", model_version="")


def test_splats_have_no_clip_of_their_own(splat_file, tmp_path):
    request = Request(asset=splat_file, prompt="", video="ground-truth")
    with pytest.raises(AssetError, match=r"captured\.ply: has no animation, .* use video=generated"):
        animate(request, None, tmp_path / "out", model_version="")
    assert not (tmp_path / "out").exists()


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
