"""Curation of real shards: the table, the list that the trainer reads, resume, and what is damaged."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import animate4d.batch.curate as module
from animate4d.assets.procedural import generate_objects
from animate4d.batch.curate import curate_shards, facts_path, measure_shard, read_facts
from animate4d.batch.curate_config import CurateShardsConfig
from animate4d.batch.curate_report import Verdict, borderline, clip_row, dropped_by_rule, write_borderline
from animate4d.core.errors import ConfigError, ShardError
from animate4d.data.config import DataConfig
from animate4d.data.loader import open_stream
from animate4d.data.order import Cursor
from animate4d.io.shards import ShardWriter, iterate_shard, read_index
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples
from animate4d.pipeline.curation import ClipFacts, Finding, MeasureOptions

OPTIONS = ClipOptions(views=4, frames=8, size=32, samples=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Five clips: two objects of two, and one of them again under another name."""
    folder = tmp_path_factory.mktemp("curate")
    first, second = generate_objects(folder / "glb", count=2, seed=3, clips_per_object=2)
    again = folder / "glb" / "other-name.glb"
    shutil.copy(first, again)
    with ShardWriter(folder / "shards", max_samples=2) as writer:
        for path in (first, second, again):
            for outcome in list(clip_samples(path, OPTIONS))[: 1 if path == again else 2]:
                writer.write(outcome.key, outcome.members)
    return folder / "shards"


@pytest.fixture
def shards(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "shards"))


def config(shards: Path, **changes) -> CurateShardsConfig:
    """Thresholds that these tiny pictures pass."""
    base = CurateShardsConfig(shards=shards, max_ssim=1.0, min_ssim=0.0, max_border=1.0, min_motion=0.0)
    return replace(base, **changes)


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "clips.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def kept(folder: Path) -> list[str]:
    return [line for line in (folder / "keep.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.mark.ray
def test_the_whole_road_and_the_trainer_reads_the_list(shards, ray_cluster, capsys):
    before = {path.name: path.read_bytes() for path in shards.glob("*.tar")}
    assert curate_shards(config(shards)) == 0
    out = shards / "curation"
    rows = table(out)
    keys = [key for info in read_index(shards) for key in info.keys]
    assert [row["key"] for row in rows] == keys
    copied = rows[-1]
    assert copied["decision"] == "drop"
    assert copied["duplicate_of"] == keys[0]
    assert copied["reasons"] == f"duplicate: the same as {keys[0]}"
    assert kept(out) == keys[:-1]
    assert all(float(row["magnitude"]) > 0 and row["caption"] for row in rows)
    summary = json.loads((out / "curation.json").read_text())
    assert (summary["clips"], summary["kept"], summary["dropped"]) == (5, 4, {"duplicate": 1})
    assert summary["settings"]["window"] == "uniform7"
    quantiles = list(summary["quantiles"]["magnitude"].values())
    assert quantiles == sorted(quantiles)
    assert Image.open(out / "borderline.png").width > 8 * 96
    assert "4 of 5 clips stay (dropped: duplicate 1)" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in shards.glob("*.tar")} == before

    data = DataConfig(
        shards=shards, keep=out / "keep.txt", size=32, frames=8, stride=1, frames_per_step=2, batch_size=4, prefetch=0
    )
    batch, _cursor = next(iter(open_stream(data).batches(Cursor())))
    assert {name.split("/")[0] for name in batch.sample_ids} == set(keys[:-1])


@pytest.mark.ray
def test_other_thresholds_measure_nothing_and_new_shards_only_themselves(shards, ray_cluster, monkeypatch, capsys):
    assert curate_shards(config(shards)) == 0
    out = shards / "curation"

    def never(*_arguments):
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "measure", never)
        assert curate_shards(config(shards, min_magnitude=1.0)) == 1
        assert kept(out) == []
        assert {row["reasons"].split(":")[0] for row in table(out)} == {"magnitude"}
        assert curate_shards(config(shards)) == 0
    facts = {path.name: path.stat().st_mtime_ns for path in (out / "facts").iterdir()}
    members = dict(next(iterate_shard(shards / "shard-000001.tar"))[1])
    meta = json.loads(members["meta.json"]) | {"id": "new-00", "object": "new"}
    with ShardWriter(shards) as writer:
        writer.write("new-00", members | {"meta.json": json.dumps(meta).encode()})
    assert curate_shards(config(shards)) == 0
    assert table(out)[-1]["duplicate_of"] == table(out)[2]["key"]
    later = {path.name: path.stat().st_mtime_ns for path in (out / "facts").iterdir()}
    assert facts.items() < later.items()
    assert len(later) == len(facts) + 1


@pytest.mark.ray
def test_damage_is_told_and_the_rest_goes_on(shards, ray_cluster, capsys):
    path = shards / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert curate_shards(config(shards)) == 0
    rows = table(shards / "curation")
    assert [row["decision"] for row in rows] == ["keep", "keep", "drop", "drop", "drop"]
    assert all(row["reasons"].startswith("damaged: ") for row in rows[2:4])
    assert "failed: shard-000001.tar" in capsys.readouterr().out


def test_measurements_survive_writing_and_depend_on_shard_and_options(made, tmp_path):
    info = read_index(made)[0]
    path = facts_path(tmp_path, info, MeasureOptions())
    assert measure_shard(made, info, path, MeasureOptions()) == ""
    facts = [fact for fact, _ in read_facts(path)]
    assert tuple(fact.key for fact in facts) == info.keys
    assert all(0 < fact.ssim_half <= 1 and len(fact.digest) == 64 for fact in facts)
    assert facts_path(tmp_path, replace(info, sha256="0"), MeasureOptions()) != path
    assert facts_path(tmp_path, info, MeasureOptions(background="grey")) != path
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ShardError, match="delete it and curate again"):
        list(read_facts(path))


def verdict(key: str, value: float, *, rule="still", threshold=0.95) -> Verdict:
    finding = Finding(rule=rule, value=value, threshold=threshold, dropped=value > threshold, text=f"{value}")
    return Verdict(facts=ClipFacts(key=key), findings=(finding,), duplicate_of="")


def test_the_borderline_is_what_lies_nearest_to_a_threshold_that_drops_something():
    values = [0.5, 0.9, 0.94, 0.96, 0.97, 0.99]
    verdicts = [verdict(f"k{value}", value) for value in values]
    assert [key for key, _ in borderline(verdicts, 2)] == ["k0.9", "k0.94", "k0.96", "k0.97"]
    assert [text.split(":")[0] for _, text in borderline(verdicts, 1)] == ["still, stays", "still, DROPPED"]
    assert borderline(verdicts[:3], 2) == []
    assert dropped_by_rule(verdicts) == {"still": 3}


def test_nothing_borderline_leaves_no_sheet(made, tmp_path):
    (tmp_path / "borderline.png").write_bytes(b"of an earlier run")
    write_borderline(tmp_path / "borderline.png", made, read_index(made), [])
    assert not (tmp_path / "borderline.png").exists()
    _, members = next(iterate_shard(made / "shard-000000.tar"))
    caption, pictures = clip_row(members)
    assert caption
    assert np.array(pictures).shape == (8, 96, 96, 3)


def test_no_shards_are_named(tmp_path):
    with pytest.raises(ShardError, match=r"index.json is missing"):
        curate_shards(config(tmp_path))
    with ShardWriter(tmp_path / "none"):
        pass
    with pytest.raises(ShardError, match="no samples"):
        curate_shards(config(tmp_path / "none"))


@pytest.mark.parametrize(
    "change", [{"max_ssim": 2.0}, {"borderline": -1}, {"workers": 0}, {"min_magnitude": -1.0}, {"border_alpha": 255}]
)
def test_numbers_out_of_range_name_their_field(tmp_path, change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        CurateShardsConfig(shards=tmp_path, **change)
