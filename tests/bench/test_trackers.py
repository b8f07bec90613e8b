import csv
import json

import numpy as np
import pytest
from PIL import Image

from animate4d.assets.procedural import generate_objects
from animate4d.bench import trackers as bench
from animate4d.bench.trackers import bench_trackers, text_table
from animate4d.bench.trackers_clips import choose_clips, find_assets
from animate4d.bench.trackers_config import BenchTrackersConfig
from animate4d.bench.trackers_picture import TILE, draw_tile
from animate4d.bench.trackers_score import mean_score, score_tracks
from animate4d.core.errors import AssetError, ConfigError, ModelError
from animate4d.core.tracks import Tracks

SMALL = {"clips": 2, "views": 2, "frames": 6, "size": 64, "pictures": 1}


def tracks(xy, visible) -> Tracks:
    return Tracks(xy=np.asarray(xy, np.float32), visible=np.asarray(visible, np.float32), tracker="test")


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    generate_objects(folder, count=2, seed=1, clips_per_object=2)
    return folder


@pytest.fixture(scope="module")
def clip(objects):
    return next(bench.true_clips(BenchTrackersConfig(assets=objects, **SMALL)))


@pytest.fixture
def truth():
    """Three points of one view over three frames of a 128 px clip: seen throughout, hidden at last, padding."""
    xy = np.zeros((1, 3, 3, 2))
    xy[0, :, 0] = [[10, 10], [12, 10], [14, 10]]
    xy[0, :, 1] = [[50, 50], [50, 60], [50, 70]]
    return tracks(xy, [[[1, 1, 0], [1, 1, 0], [1, 0, 0]]])


def test_the_truth_scores_full_marks(truth):
    score = score_tracks(truth, truth, 128)
    assert (score.error_px, score.kept_error_px, score.false) == (0, 0, 0)
    assert (score.within, score.occlusion, score.jaccard, score.kept) == (1, 1, 1, 1)


def test_every_measure_by_hand(truth):
    xy = truth.xy.copy()
    xy[0, 1:, 0] += (3, 0)  # 6 px of a 256 px picture
    xy[0, 1:, 2] = 90  # padding
    # After frame 0 the truth sees 3 of 4; the tracker believes the first point once, the second twice.
    score = score_tracks(tracks(xy, [[[1, 1, 1], [1, 1, 1], [0, 0.7, 1]]]), truth, 128)
    assert score.error_px == pytest.approx((6 + 6 + 0) / 3)
    assert score.within == pytest.approx((1 / 3 * 3 + 1 + 1) / 5)
    assert score.occlusion == pytest.approx(2 / 4)
    assert score.kept == pytest.approx(2 / 3)
    assert score.kept_error_px == pytest.approx(3)
    assert score.false == pytest.approx(1 / 3)
    assert score.jaccard == pytest.approx((1 / 5 * 3 + 2 / 4 * 2) / 5)


def test_clips_without_a_visible_point_do_not_spoil_the_mean(truth):
    nothing = score_tracks(truth, tracks(truth.xy, np.zeros((1, 3, 3))), 128)
    assert np.isnan(nothing.error_px)
    assert mean_score([nothing, score_tracks(truth, truth, 128)])["error_px"] == 0
    assert np.isnan(mean_score([nothing])["error_px"])


def test_one_animation_of_each_object_comes_before_a_second(objects, tmp_path):
    paths = find_assets(objects)
    broken = tmp_path / "broken.glb"
    broken.write_bytes(b"glTF but not really")
    order = [(asset.name, number) for asset, number in choose_clips([*paths, broken], 3)]
    assert len(order) == len(set(order)) == 4
    assert len({name for name, _ in order[:2]}) == 2
    assert order == [(asset.name, number) for asset, number in choose_clips([*paths, broken], 3)]


def test_clips_carry_exact_tracks_of_their_own_pixels(clip):
    assert clip.video.shape == (2, 6, 64, 64, 3)
    assert clip.valid.sum() > 16
    assert clip.motion_px > 1
    inside = clip.queries[0][clip.valid[0]].astype(int)
    assert (clip.masks[0, 0, inside[:, 1], inside[:, 0]] > 128).all()


def test_pictures_show_lost_points_as_rings_and_errors_as_lines(clip):
    right = np.asarray(draw_tile(clip, clip.tracks, 0, 5))
    assert right.shape == (TILE, TILE, 3)
    shifted = tracks(clip.tracks.xy + 20, np.ones_like(clip.tracks.visible))
    wrong = np.asarray(draw_tile(clip, shifted, 0, 5))
    assert ((wrong > 240).all(-1)).sum() > ((right > 240).all(-1)).sum() + 50
    lost = np.asarray(draw_tile(clip, tracks(clip.tracks.xy, np.zeros_like(clip.tracks.visible)), 0, 5))
    assert not np.array_equal(lost, right)


def test_the_bench_prints_a_table_and_writes_three_files(objects, tmp_path, capsys):
    config = BenchTrackersConfig(assets=objects, out=tmp_path / "out", **SMALL)
    assert bench_trackers(config) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "trackers.json").read_text())
    rows = {row["tracker"]: row for row in found["rows"]}
    assert list(rows) == ["still", "opencv-lk/1", "opencv-dis/1"]
    assert all(name in printed for name in rows)
    assert rows["opencv-dis/1"]["error_px"] < rows["still"]["error_px"]
    assert found["settings"]["frames"] == 6
    assert found["machine"]["cpu"]
    with open(tmp_path / "out" / "trackers.csv") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 6
    assert len({line["clip"] for line in lines}) == 2
    with Image.open(tmp_path / "out" / "trackers.png") as picture:
        assert picture.width > 4 * TILE


def test_checkpoints_add_rows(objects, tmp_path, monkeypatch):
    asked = []

    class Stand(bench.StillTracker):
        def __init__(self, name):
            self.id = name

    def make(name, *, checkpoint=None, settings=None):
        asked.append((name, checkpoint, settings and settings.precision))
        return Stand(f"{name}-{checkpoint}")

    monkeypatch.setattr(bench, "make_tracker", make)
    config = BenchTrackersConfig(
        assets=objects, checkpoints=(tmp_path / "a.pth", tmp_path / "b.pth"), official=True, precision="bf16"
    )
    assert len(bench.make_trackers(config)) == 7
    assert asked[:4] == [
        ("cotracker3", tmp_path / "a.pth", "bf16"),
        ("cotracker3", tmp_path / "b.pth", "bf16"),
        ("cotracker3-official", tmp_path / "a.pth", None),
        ("cotracker3-official", tmp_path / "b.pth", None),
    ]


def test_nothing_to_track_and_missing_weights_are_one_line(tmp_path, objects):
    with pytest.raises(AssetError, match=r"no \.glb"):
        bench_trackers(BenchTrackersConfig(assets=tmp_path))
    with pytest.raises(ModelError, match=r"gone\.pth"):
        bench_trackers(BenchTrackersConfig(assets=objects, checkpoints=(tmp_path / "gone.pth",)))
    (tmp_path / "broken.glb").write_bytes(b"no")
    with pytest.raises(AssetError, match="no animation that moves"):
        bench_trackers(BenchTrackersConfig(assets=tmp_path, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"clips": 0}, {"size": 63}, {"max_seconds": 0.0}, {"official": True}])
def test_settings_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BenchTrackersConfig(assets=tmp_path, **wrong)


def test_undefined_scores_are_shown_as_such(truth):
    row = {"tracker": "x", **mean_score([score_tracks(truth, tracks(truth.xy, np.zeros((1, 3, 3))), 128)])}
    assert "nan" in text_table([row | {"ms": 1.0, "cpu_ms": 1.0, "clips": 1}])
