"""Assets to shards: planning, packing, resume and the whole road over a real Ray."""

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from animate4d.assets.procedural import generate_objects
from animate4d.batch.ledger import folder_lock, read_ledger
from animate4d.batch.shard_build import ShardBuild, check_settings, collect, write_report
from animate4d.batch.shard_contact import spread
from animate4d.batch.shard_task import render_asset
from animate4d.batch.shards import build_shards, clip_settings, find_assets
from animate4d.batch.shards_config import BuildShardsConfig
from animate4d.core.errors import ConfigError, ToolError
from animate4d.data.schema import decode_clip
from animate4d.io.shards import iterate_shard, read_index
from animate4d.pipeline.clip_options import ClipOptions

CLIPS = 2


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    generate_objects(folder, count=3, seed=1, clips_per_object=CLIPS)
    return folder


def config(assets: Path, out: Path, **changes) -> BuildShardsConfig:
    return BuildShardsConfig(assets=assets, out=out, views=4, frames=5, size=16, samples=1, **changes)


def stored(out: Path) -> dict[str, str]:
    """Key -> caption of every sample, read through the index."""
    return {
        key: decode_clip(members, views=[0, 2], frames=[0, 3]).meta.caption
        for info in read_index(out)
        for key, members in iterate_shard(out / info.name, info)
    }


def report(out: Path) -> list[dict[str, str]]:
    with open(out / "report.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def finished(out: Path) -> list[str]:
    """Assets whose end was recorded, in order, over all runs."""
    return [event["asset"] for event in read_ledger(out / "ledger.jsonl") if event["event"].startswith("asset_")]


@pytest.mark.ray
def test_the_whole_road_with_bad_files_among_the_good(objects, tmp_path, ray_cluster, capsys):
    assets, out = tmp_path / "assets", tmp_path / "out"
    shutil.copytree(objects, assets / "deep")
    (assets / "captions.csv").write_bytes((objects / "captions.csv").read_bytes())
    (assets / "text.glb").write_text("not a model")
    (assets / "=cut.glb").write_bytes(next(objects.glob("*.glb")).read_bytes()[:3000])
    (assets / ".hidden.glb").write_text("never looked at")
    settings = config(assets, out, samples_per_shard=4)

    assert build_shards(settings) == 0
    printed = capsys.readouterr().out
    assert printed.count("failed: ") == 2
    first = stored(out)
    assert len(first) == 3 * CLIPS
    with open(objects / "captions.csv", newline="") as stream:
        assert sorted(first.values()) == sorted(row["caption"] for row in csv.DictReader(stream))
    assert [info.samples for info in read_index(out)] == [4, 2]
    # In the order of the assets, whichever task was done first.
    assert list(first) == sorted(first)
    rows = report(out)
    assert [(row["file"], row["state"], row["kind"]) for row in rows] == [
        ("'=cut.glb", "failed", "bad input"),
        ("text.glb", "failed", "bad input"),
    ]
    assert all("\n" not in row["message"] and row["message"] for row in rows)
    assert Image.open(out / "contact.png").width > 16 * 16
    assert list((out / ".parts").iterdir()) == []

    # Again: nothing is rendered, the failures are still said.
    before = finished(out)
    assert build_shards(settings) == 0
    assert finished(out) == before
    assert stored(out) == first
    assert capsys.readouterr().out.count("failed: ") == 2

    # A lost shard and a new asset: only these are rendered.
    (out / "shard-000001.tar").unlink()
    generate_objects(assets / "more", count=1, seed=9, clips_per_object=1)
    assert build_shards(settings) == 0
    assert len(finished(out)) == len(before) + 2
    assert set(first) < set(stored(out))
    assert len(stored(out)) == len(first) + 1

    # Other shapes do not go into the same folder.
    with pytest.raises(ConfigError, match="size 16, not 32"):
        build_shards(replace(settings, size=32))


@pytest.mark.ray
def test_parts_of_a_killed_run_are_used(objects, tmp_path, ray_cluster, monkeypatch):
    """The driver dies after the first asset is recorded and before its samples reach a shard."""

    class PowerCutError(BaseException):
        pass

    def die(_self, _writer):
        raise PowerCutError

    out = tmp_path / "out"
    settings = config(objects, out, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(ShardBuild, "pack", lambda self, writer: die(self, writer) if self.done else None)
        with pytest.raises(PowerCutError):
            build_shards(settings)
    assert len(finished(out)) == 1
    assert read_index(out) == []
    assert build_shards(settings) == 0
    assert len(finished(out)) == 3
    assert len(stored(out)) == 3 * CLIPS
    assert list((out / ".parts").iterdir()) == []


@pytest.mark.ray
def test_one_file_and_no_clip_at_all(objects, tmp_path, ray_cluster):
    path = next(iter(sorted(objects.glob("*.glb"))))
    assert build_shards(config(path, tmp_path / "one")) == 0
    assert len(stored(tmp_path / "one")) == CLIPS
    text = tmp_path / "text.glb"
    text.write_text("x")
    assert build_shards(config(text, tmp_path / "none")) == 1
    assert read_index(tmp_path / "none") == []
    assert len(report(tmp_path / "none")) == 1
    assert not (tmp_path / "none" / "contact.png").exists()


@pytest.mark.ray
def test_bugs_and_dead_workers_are_told_apart(ray_cluster):
    import ray

    @ray.remote(max_retries=0)
    def bug():
        raise ZeroDivisionError("two\nlines")

    @ray.remote(max_retries=0)
    def death():
        os._exit(1)

    assert collect(bug.remote()) == (None, "bug", "ZeroDivisionError: two lines")
    outcome, kind, message = collect(death.remote())
    assert (outcome, kind) == (None, "infrastructure")
    assert "worker process died" in message


def test_assets_are_found_below_a_folder_in_order(tmp_path):
    for name in ("b.GLB", "a/c.gltf", "a/.d.glb", ".git/e.glb", "f.obj"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in find_assets(tmp_path, None)]
    assert names == ["a/c.gltf", "b.GLB"]
    assert len(find_assets(tmp_path, 1)) == 1
    assert find_assets(tmp_path / "f.obj", None) == [tmp_path / "f.obj"]


def test_no_assets_is_said_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        build_shards(config(tmp_path / "nowhere", tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no \.glb or \.gltf"):
        build_shards(config(tmp_path / "empty", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_blender_that_cannot_run_is_told_once_before_any_work(objects, tmp_path):
    settings = config(objects, tmp_path / "out", light="cycles", blender=tmp_path / "nowhere")
    with pytest.raises(ToolError, match="nowhere: cannot be started"):
        build_shards(settings)
    assert not (tmp_path / "out").exists()


def test_a_blender_that_fails_is_no_fault_of_the_asset(objects, tmp_path):
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    options = config(objects, tmp_path, light="baked", blender=program).clip_options()
    outcome = render_asset(next(objects.glob("*.glb")), tmp_path / "part.tar", options, {})
    assert outcome.kind == "infrastructure"  # so the next run tries again
    assert "ended with 3" in outcome.problem


def test_two_builds_in_one_folder_are_refused(objects, tmp_path):
    with folder_lock(tmp_path), pytest.raises(ConfigError, match="another batch"):
        build_shards(config(objects, tmp_path))


def test_settings_are_kept_with_the_folder(tmp_path):
    check_settings(tmp_path, clip_settings(ClipOptions(frames=8)))
    check_settings(tmp_path, clip_settings(ClipOptions(frames=8, licence="CC0-1.0")))
    with pytest.raises(ConfigError, match="frames 8, not 16"):
        check_settings(tmp_path, clip_settings(ClipOptions()))
    baked = ClipOptions(frames=8, light="baked", blender=Path("blender"))
    with pytest.raises(ConfigError, match="light None, not baked"):
        check_settings(tmp_path, clip_settings(baked))
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        check_settings(tmp_path, clip_settings(ClipOptions()))


def test_shards_of_unknown_make_are_not_mixed_with_ours(tmp_path):
    (tmp_path / "shard-000000.tar").touch()
    with pytest.raises(ConfigError, match=r"no settings.json"):
        check_settings(tmp_path, clip_settings(ClipOptions()))


def test_the_report_lists_clips_left_out(tmp_path):
    record = {"event": "asset_done", "keys": [], "skipped": [["@idle", "moves too little"]]}
    write_report(tmp_path / "report.csv", {"a.glb": record})
    assert report(tmp_path) == [
        {"file": "a.glb", "clip": "'@idle", "state": "left out", "kind": "", "message": "moves too little"}
    ]


@pytest.mark.parametrize("field", ["limit", "workers", "samples_per_shard", "asset_minutes", "views"])
def test_numbers_out_of_range_name_their_field(tmp_path, field):
    with pytest.raises(ConfigError, match=field):
        BuildShardsConfig(assets=tmp_path, **{field: 0})


@pytest.mark.parametrize(("count", "wanted", "indices"), [(16, 4, [0, 4, 8, 12]), (3, 4, [0, 1, 2]), (1, 4, [0])])
def test_samples_are_spread_evenly(count, wanted, indices):
    assert spread(count, wanted) == indices
