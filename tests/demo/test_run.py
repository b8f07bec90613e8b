"""What the demo prepares: generated objects, or the user's own folder sorted into moving and still models."""

import csv
import shutil

import pytest

from animate4d.assets.load import load_asset
from animate4d.assets.procedural import generate_objects
from animate4d.batch.manifest import read_manifest
from animate4d.core.errors import AssetError, ConfigError
from animate4d.demo.config import DemoConfig
from animate4d.demo.run import PROMPTS, gather
from animate4d.pipeline.config import AnimateOptions


def test_generated_objects_move_and_the_manifest_can_be_animated(tmp_path):
    moving, manifest = gather(DemoConfig(objects=3), tmp_path)
    assert len(list(moving.glob("*.glb"))) == 3
    assert all(load_asset(path).clips for path in moving.glob("*.glb"))
    rows = read_manifest(manifest, AnimateOptions()).rows
    assert len(rows) == len(PROMPTS)
    assert not [row.problem for row in rows if row.problem]
    names = {path.name for path in moving.glob("*.glb")}
    assert not names & {row.request.asset.name for row in rows}


def test_own_folder_is_sorted_and_bad_files_are_told(tmp_path, real_assets, capsys):
    folder, out = tmp_path / "mine", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    shutil.copy(real_assets / "animated" / "khronos__Fox.glb", folder)
    shutil.copy(real_assets / "static" / "real_time_strategy__Barrel.glb", folder)
    (folder / "broken.glb").write_text("no model")
    moving, manifest = gather(DemoConfig(assets=folder, objects=4), out)
    assert [path.name for path in moving.iterdir()] == ["khronos__Fox.glb"]
    with open(manifest, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["prompt"] for row in rows] == ["a barrel bouncing"]
    assert "broken.glb" in capsys.readouterr().out


def test_folder_without_motion_is_refused(tmp_path, real_assets):
    shutil.copy(real_assets / "static" / "real_time_strategy__Barrel.glb", tmp_path)
    with pytest.raises(AssetError, match="nothing to train on"):
        gather(DemoConfig(assets=tmp_path), tmp_path / "out")


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        DemoConfig(assets=tmp_path / "nowhere")


def test_gathering_twice_gives_the_same(tmp_path):
    first = {path.name: path.read_bytes() for path in gather(DemoConfig(objects=2), tmp_path)[0].glob("*.glb")}
    again = {path.name: path.read_bytes() for path in gather(DemoConfig(objects=2), tmp_path)[0].glob("*.glb")}
    assert first == again
    assert generate_objects(tmp_path / "other", count=1, seed=1)[0].read_bytes() not in first.values()
