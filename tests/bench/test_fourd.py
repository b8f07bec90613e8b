import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from animate4d.assets.procedural import generate_objects
from animate4d.bench import fourd as bench
from animate4d.bench import fourd_variants
from animate4d.bench.fourd import bench_fourd
from animate4d.bench.fourd_clips import motion_clips, turned_share
from animate4d.bench.fourd_config import BenchFourDConfig
from animate4d.bench.fourd_table import summaries, text_table
from animate4d.bench.fourd_variants import AS_IS, WITHOUT, choose_variants
from animate4d.core.errors import AssetError, ConfigError, ModelError
from animate4d.fourd.config import FitConfig
from animate4d.fourd.field_config import FieldFitConfig
from animate4d.pipeline import target

QUICK = FitConfig(
    size=32,
    splats=200,
    nodes=8,
    polish_steps=2,
    levels=1,
    forward_steps=3,
    backward_steps=1,
    joint_steps=1,
    fine_steps=0,
    bias_steps=2,
    field=FieldFitConfig(frame_steps=4, refine_steps=4, rigidity_nodes=32),
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    generate_objects(folder, count=2, seed=1, clips_per_object=2)
    return folder


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setitem(fourd_variants.PRESETS, "draft", lambda: QUICK)
    monkeypatch.setattr(target, "VIEW_PX", 64)


@pytest.fixture
def config(objects, tmp_path):
    return BenchFourDConfig(assets=objects, out=tmp_path / "out", limit=2, frames=3, preset="draft", pictures=1)


def turning(degrees):
    """A square that turns about its normal, beside one nine times larger that does not, in two frames."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    still = 3 * corners + (5, 0, 0)
    poses = np.stack([np.concatenate([corners, still]), np.concatenate([corners @ turn.T, still])])
    return poses, np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7], [0, 0, 1]])


@pytest.mark.parametrize(("degrees", "share"), [(149, 0.0), (151, 0.1), (-151, 0.1), (180, 0.1)])
def test_what_turns_too_far_is_measured_by_its_surface(degrees, share):
    assert turned_share(*turning(degrees), 150.0) == pytest.approx(share)


def test_clips_that_stand_still_or_turn_are_left_out_by_name(config, capsys):
    assert len(list(motion_clips(config))) == 2
    assert list(motion_clips(replace(config, least_motion=0.9))) == []
    assert "of its size" in capsys.readouterr().err
    assert list(motion_clips(replace(config, largest_turn=1e-6))) == []
    assert "turns further than" in capsys.readouterr().err


def test_the_bench_prints_a_table_writes_three_files_and_goes_on(config, quick, capsys, monkeypatch):
    assert bench_fourd(config) == 0
    printed = capsys.readouterr().out
    found = json.loads((config.out / "fourd.json").read_text())
    (row,) = found["rows"]
    assert (row["variant"], row["clips"]) == (AS_IS, 2)
    assert row["ratio_worst"] >= row["ratio_median"] > 0
    assert row["psnr_worst"] <= row["psnr_median"]
    assert 0 < row["peak_mb_worst"] < 4000
    assert found["settings"]["frames"] == 3
    with open(config.out / "fourd.csv") as stream:
        lines = list(csv.DictReader(stream))
    assert len({line["clip"] for line in lines}) == 2
    assert all(line["clip"] in printed for line in lines)
    assert all(10 < float(line["psnr_evaluation"]) < 60 for line in lines)
    with Image.open(config.out / "fourd.png") as picture:
        assert picture.height > 2 * 192

    monkeypatch.setattr(bench, "fit_motion", lambda *_, **__: pytest.fail("fitted again"))
    assert bench_fourd(config) == 0
    assert capsys.readouterr().out == printed
    # another setting is another fit
    with pytest.raises(pytest.fail.Exception, match="fitted again"):
        bench_fourd(replace(config, frames=4))


def test_an_interrupted_run_keeps_what_it_measured(config, quick, monkeypatch):
    fit, calls = bench.fit_motion, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(bench, "fit_motion", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench_fourd(config)
    assert not (config.out / "fourd.csv").exists()
    assert bench_fourd(config) == 0
    assert len(calls) == 3


def test_ablation_adds_a_row_per_ingredient_and_tracker(config, quick, capsys):
    field = ("field, light", "field, light, features", "field, light, distilled")
    only = ("bias removal", *field, "lamps: graph", "tracks: exact")
    assert bench_fourd(replace(config, limit=1, ablate=True, only=only)) == 0
    rows = json.loads((config.out / "fourd.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == [AS_IS, *only]
    assert len({(row["e_fit_median"], row["psnr_median"]) for row in rows}) == len(rows)
    assert "bias removal" in capsys.readouterr().out


def test_every_ablation_changes_the_fit_and_no_two_are_the_same(config):
    variants = choose_variants(replace(config, preset="standard", ablate=True))
    assert len(variants) > len(WITHOUT) + 4
    names = ("fit", "tracker", "around", "features", "distilled", "lamps")
    seen = {tuple(getattr(variant, name) for name in names) for variant in variants}
    # the tracker of the preset as it is needs no row of its own
    assert len(seen) == len(variants)
    assert "cotracker3" not in {variant.tracker for variant in variants}


def test_what_cannot_be_measured_is_one_line(config, tmp_path, monkeypatch):
    monkeypatch.setattr(bench.torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no CUDA GPU"):
        bench_fourd(replace(config, device="cuda"))
    with pytest.raises(ConfigError, match="no variant"):
        choose_variants(replace(config, ablate=True, only=("no luck",)))
    with pytest.raises(ConfigError, match="no model's flow"):
        choose_variants(replace(config, tracker="flow"))
    with pytest.raises(ConfigError, match="path of its weights"):
        choose_variants(replace(config, tracker="cotracker3"))
    with pytest.raises(ModelError, match=r"gone\.pth"):
        bench_fourd(replace(config, tracker="cotracker3", tracker_checkpoint=tmp_path / "gone.pth"))
    with pytest.raises(AssetError, match="can be fitted"):
        bench_fourd(replace(config, least_motion=0.9))


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"frames": 1}, {"largest_turn": 0.0}, {"least_motion": 1.0}, {"only": ("no masks",)}]
)
def test_settings_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BenchFourDConfig(assets=tmp_path, **wrong)


def test_what_has_no_ratio_is_shown_as_such():
    row = {
        "clip": "x", "variant": AS_IS, "ratio": None, "e_fit": 0.0, "psnr": 30.0, "psnr_unseen": 29.0,
        "psnr_evaluation": 28.0, "mask_iou": 1.0, "lost_frames": "3 4", "cpu_s": 1.0, "peak_mb": 2.0,
    }  # fmt: skip
    assert summaries([row])[0]["ratio_median"] is None
    assert summaries([row])[0]["frames_lost"] == 2
    assert " - " in text_table([row])
