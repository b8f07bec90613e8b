"""Jobs that join rooms: what they write, and how they end."""

import csv
import shutil

from animate4d.assets.config import GenerateObjectsConfig
from animate4d.assets.load import load_asset
from animate4d.jobs import generate


def captions(folder):
    with open(folder / "captions.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_still_models_are_rigged_beside_generated_ones(tmp_path, real_assets, capsys):
    still = tmp_path / "still"
    still.mkdir()
    shutil.copy(real_assets / "static" / "real_time_strategy__Barrel.glb", still)
    assert generate(GenerateObjectsConfig(out=tmp_path / "out", count=2, clips=2, rig=still)) == 0
    rows = captions(tmp_path / "out")
    assert {row["file"] for row in rows} == {path.name for path in (tmp_path / "out").glob("*.glb")}
    barrel = load_asset(tmp_path / "out" / "real_time_strategy__Barrel.glb")
    assert [clip.name for clip in barrel.clips] == [row["clip"] for row in rows if "Barrel" in row["file"]]
    assert "1 rigged" in capsys.readouterr().out


def test_an_unreadable_still_model_is_told_and_the_rest_goes_on(tmp_path, capsys):
    still = tmp_path / "still"
    still.mkdir()
    (still / "broken.glb").write_text("no model")
    assert generate(GenerateObjectsConfig(out=tmp_path / "out", count=1, clips=1, rig=still)) == 1
    assert len(captions(tmp_path / "out")) == 1
    assert "broken.glb" in capsys.readouterr().err
