"""The probe end to end: generated objects, real shards, small networks of both kinds."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from animate4d.assets.procedural import generate_objects
from animate4d.core.errors import ConfigError, ShardError
from animate4d.core.tracks import Tracks
from animate4d.data.schema import decode_clip, encode_sample
from animate4d.data.store import ShardStore
from animate4d.io.shards import ShardWriter, iterate_shard, read_index
from animate4d.models.config import smoke
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline import probe
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples
from animate4d.pipeline.probe import REFERENCE_PX, read_clip, run_probe, tapped
from animate4d.pipeline.probe_config import ProbeConfig
from animate4d.pipeline.probe_picture import spread_points, telling_point
from animate4d.pipeline.probe_report import best_per_tap, probe_table, telling_clips, write_report

TINY = replace(
    smoke(),
    preset="tiny",
    image_size=32,
    frames=4,
    views=2,
    codec_factor=4,
    latent_channels=48,
    block_channels=(16, 16),
    norm_groups=4,
    text_dim=16,
    flow_size=8,
)
"""Maps of 8 x 8 and 4 x 4 cells."""

PUBLISHED = replace(
    TINY,
    head="epsilon",
    zero_terminal_snr=False,
    block_channels=(16, 16, 32),
    attention_levels=(True, True, False),
    spatial_levels=(True, True, True),
    layers_per_block=2,
    motion_attentions=2,
    io_kernel=3,
    resnet_scale_shift=False,
    frame_conditions=False,
    position_map=False,
    concat_first_frame=False,
    tap="up_blocks.1.motion_modules.2",
)
"""The papers' layout, narrow."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    paths = generate_objects(folder / "objects", count=2, seed=5, families=("barrel", "tree"), clips_per_object=2)
    with ShardWriter(folder / "shards") as writer:
        for path in paths:
            for outcome in clip_samples(path, ClipOptions(views=4, frames=8, size=64)):
                if outcome.members is not None:
                    writer.write(outcome.key, outcome.members)
    return folder / "shards"


def build(config):
    torch.manual_seed(0)
    model = MVVDM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    return model


@pytest.fixture(scope="module")
def model():
    return build(TINY)


@pytest.fixture(scope="module")
def result(shards, model):
    return run_probe(ProbeConfig(data=shards, timesteps=(50,)), model)


def test_every_decoder_layer_is_scored_in_every_way(result, model):
    taps = [tap for tap in model.tap_names() if tap.startswith("up_blocks.")]
    assert len(taps) > 10
    rows = {(row["tap"], row["centred"], row["match"]) for row in result["rows"]}
    assert rows == {
        (tap, centred, match) for tap in taps for centred in (True, False) for match in ("nearest", "refined", "window")
    }
    assert all(0 < row["error"] < 1 for row in result["rows"])
    assert [row["tap"] for row in best_per_tap(result)] == taps
    assert result["best"]["error"] == min(row["error"] for row in result["rows"] if row["match"] == "window")
    assert result["tap"]["tap"] == model.config.tap


def test_sizes_are_those_of_the_maps(result):
    sizes = {row["tap"]: (row["channels"], row["height"], row["width"]) for row in result["rows"]}
    assert sizes["up_blocks.0.resnets.0"] == (16, 4, 4)
    assert sizes["up_blocks.0"] == sizes["up_blocks.1"] == (16, 8, 8)


def test_nearest_never_beats_the_floor_of_its_map(result):
    assert all(row["error"] >= row["floor"] for row in result["rows"] if row["match"] == "nearest")
    assert result["baselines"]["floor 8 x 8"]["error"] < result["baselines"]["floor 4 x 4"]["error"]


def test_standing_still_is_scored_by_hand(shards, model, result):
    store, errors, moving = ShardStore(shards), [], []
    for number in range(len(store.keys)):
        members = store.read(number, ["meta.json", "tracks.npz", "view_00.webp", "view_02.webp"])
        tracks = decode_clip(members, views=[0, 2], frames=[0, 2, 4, 6]).tracks
        distances = [
            np.hypot(*(tracks.xy[v, t, p] - tracks.xy[v, 0, p])) / 64
            for v in range(2)
            for t in range(1, 4)
            for p in range(tracks.xy.shape[2])
            if tracks.visible[v, t, p] and tracks.visible[v, 0, p]
        ]
        errors.append(np.mean(distances))
        far = [distance for distance in distances if distance * REFERENCE_PX > 16]
        moving += [np.mean(far)] if far else []
    still = result["baselines"]["points do not move"]
    assert still["error"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert still["moving_error"] == pytest.approx(np.mean(moving), rel=1e-5)
    assert still["error_se"] == pytest.approx(np.std(errors, ddof=1) / len(errors) ** 0.5, rel=1e-5)


def test_features_that_know_where_they_are_find_every_point(shards, model, monkeypatch):
    """A stand-in network whose features paint each cell with its true position in frame 0."""

    def oracle(config, model, clip, number, timestep, taps):
        views, frames, points = clip.points.shape[:3]
        maps = torch.zeros(views, frames, points, 32, 32)
        for view, frame, point in np.argwhere((clip.weight > 0) | (np.arange(frames) == 0)[:, None]):
            x, y = (clip.points[view, frame, point] * 32).clip(0, 31).astype(int)
            maps[view, frame, point, y, x] = 1
        return dict.fromkeys(taps, maps)

    monkeypatch.setattr(probe, "tapped", oracle)
    found = run_probe(ProbeConfig(data=shards, timesteps=(50,), taps=("up_blocks.1",), match="nearest"), model)
    assert found["best"]["within_16"] > 0.97
    assert found["best"]["error"] < found["best"]["floor"] * 1.5


def test_the_published_layout_is_probed_too(shards, tmp_path):
    model = build(PUBLISHED)
    config = ProbeConfig(data=shards, out=tmp_path, timesteps=(50,), limit=1, pictures=1)
    found = run_probe(config, model)
    assert {row["tap"].split(".")[1] for row in found["rows"]} == {"0", "1", "2"}
    assert found["tap"]["tap"] == PUBLISHED.tap
    write_report(config, model, found)
    assert len(list(tmp_path.glob("points-*.png"))) == 1


def test_all_layers_or_named_ones(shards, model):
    everything = run_probe(ProbeConfig(data=shards, timesteps=(50,), limit=1, taps=("all",)), model)
    assert {row["tap"] for row in everything["rows"]} == set(model.tap_names())
    few = ("mid_block", "down_blocks.0.resnets.0")
    named = run_probe(ProbeConfig(data=shards, timesteps=(50, 999), limit=1, taps=few), model)
    assert {(row["tap"], row["timestep"]) for row in named["rows"]} == {(t, s) for t in few for s in (50, 999)}
    assert named["tap"] is None


def test_the_same_seed_gives_the_same_numbers_whatever_else_is_asked(shards, model, result):
    again = run_probe(ProbeConfig(data=shards, timesteps=(261, 50)), model)
    pick = {(row["tap"], row["centred"], row["match"]): row for row in again["rows"] if row["timestep"] == 50}
    assert all(pick[row["tap"], row["centred"], row["match"]]["error"] == row["error"] for row in result["rows"])


def test_draws_are_averaged_and_frame_0_stays_clean(shards, model, monkeypatch):
    clip = read_clip(ShardStore(shards), 0, model)
    seen = []
    forward = type(model).forward

    def spy(self, latents, *args, **options):
        seen.append(latents.clone())
        return forward(self, latents, *args, **options)

    monkeypatch.setattr(type(model), "forward", spy)
    features = tapped(ProbeConfig(data=shards, draws=3), model, clip, 0, 900, ["up_blocks.1"])["up_blocks.1"]
    assert len(seen) == 3
    assert all(torch.equal(seen[0][:, :, 0], latents[:, :, 0]) for latents in seen)
    assert not torch.equal(seen[0][:, :, 1], seen[1][:, :, 1])
    one = tapped(ProbeConfig(data=shards), model, clip, 0, 900, ["up_blocks.1"])["up_blocks.1"]
    assert not torch.equal(one, features)
    assert torch.equal(seen[3], seen[0])


def test_files_and_table(shards, model, result, tmp_path):
    (tmp_path / "points-of-an-earlier-probe.png").write_bytes(b"")
    config = ProbeConfig(data=shards, out=tmp_path, timesteps=(50,), pictures=2)
    write_report(config, model, result)
    assert json.loads((tmp_path / "probe.json").read_text()) == result
    with open(tmp_path / "probe.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(result["rows"]) + len(result["baselines"])
    assert float(rows[0]["px"]) == pytest.approx(float(rows[0]["error"]) * 256, rel=1e-4)
    pictures = sorted(tmp_path.glob("points-*.png"))
    assert len(pictures) == 2
    assert "barrel" in pictures[0].name
    assert "tree" in pictures[1].name
    for path in (*pictures, tmp_path / "chart.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 300
            assert len(picture.getcolors(2**20)) > 50
    table = probe_table(result)
    assert table.count("<- best") == 1
    assert f"{model.config.tap}* " in table
    assert "points do not move" in table
    assert max(map(len, table.splitlines())) < 150


def test_shown_points_are_spread_and_the_telling_one_moves(shards, model):
    clip = read_clip(ShardStore(shards), 0, model)
    shown = spread_points(clip, 0)
    assert len(shown) == len(set(shown)) > 3
    telling = telling_point(clip, 0, [0, 3])
    seen = clip.weight[0, 3] > 0
    assert clip.motion[0, 3, telling] == clip.motion[0, 3, seen].max()
    hidden = replace(clip, weight=np.zeros_like(clip.weight))
    assert spread_points(hidden, 0) == []
    assert telling_point(hidden, 0, [0, 3]) is None


def test_shown_clips_are_of_different_objects_first():
    clips = [{"object": name, "motion": motion} for name, motion in (("a", 3), ("a", 2), ("b", 1), ("c", 0))]
    assert telling_clips(clips, 2) == [0, 2]
    assert telling_clips(clips, 9) == [0, 2, 3, 1]


def rewritten(shards, out, change):
    """Copy shards with every sample's tracks changed."""
    with ShardWriter(out) as writer:
        for info in read_index(shards):
            for key, members in iterate_shard(shards / info.name, info):
                clip = decode_clip(members, views=range(4), frames=range(8))
                writer.write(key, encode_sample(clip.video, clip.meta, change(clip.tracks)))
    return out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tracks: None, "has no tracks"),
        (lambda tracks: Tracks(xy=tracks.xy, visible=tracks.visible, tracker="opencv-lk/1"), "tracks by opencv-lk/1"),
        (lambda tracks: Tracks(xy=tracks.xy, visible=0 * tracks.visible, tracker="exact/1"), "nothing to follow"),
    ],
)
def test_shards_without_exact_tracks_get_one_line(shards, model, tmp_path, change, words):
    folder = rewritten(shards, tmp_path / "other", change)
    with pytest.raises(ShardError, match=words) as told:
        run_probe(ProbeConfig(data=folder, timesteps=(50,)), model)
    assert "\n" not in str(told.value)


def test_wrong_taps_timesteps_and_sizes_are_named(shards, model, tmp_path):
    with pytest.raises(ConfigError, match=r"up_blocks\.9"):
        run_probe(ProbeConfig(data=shards, taps=("up_blocks.9",)), model)
    with pytest.raises(ConfigError, match="ends at 999"):
        run_probe(ProbeConfig(data=shards, timesteps=(1000,)), model)
    with pytest.raises(ShardError, match="needs 2 and 16"):
        run_probe(ProbeConfig(data=shards), build(replace(TINY, frames=16)))
    with pytest.raises(ShardError, match="nowhere"):
        run_probe(ProbeConfig(data=tmp_path / "nowhere"), model)
    for wrong in ({"draws": 0}, {"timesteps": ()}, {"match": "magic"}, {"thresholds": (0.0,)}, {"limit": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ProbeConfig(data=shards, **wrong)
