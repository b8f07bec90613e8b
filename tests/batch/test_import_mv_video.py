"""A video release to shards over a real Ray: what is broken gets a line, the rest goes on, nothing is made twice."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animate4d.batch.import_config import ImportMVVideoConfig
from animate4d.batch.import_mv_video import convert_animation, import_mv_video
from animate4d.batch.ledger import read_ledger
from animate4d.core.errors import ConfigError, SourceError
from animate4d.data.config import DataConfig
from animate4d.data.loader import open_stream
from animate4d.data.order import Cursor
from animate4d.data.schema import decode_clip, decode_meta
from animate4d.io.shards import iterate_shard, read_index


def config(release: Path, out: Path, **changes) -> ImportMVVideoConfig:
    base = ImportMVVideoConfig(release=release, out=out, views=4, frames=5, starts=(0, 1), size=32)
    return replace(base, **changes)


def metas(out: Path) -> dict:
    return {
        key: decode_meta(members) for info in read_index(out) for key, members in iterate_shard(out / info.name, info)
    }


def report(out: Path) -> list[tuple[str, str, str]]:
    with open(out / "report.csv", newline="") as stream:
        return [(row["file"], row["state"], row["message"]) for row in csv.DictReader(stream)]


def converted(out: Path) -> list[str]:
    """Animations that a task worked on, in order, over all runs."""
    return [event["asset"] for event in read_ledger(out / "ledger.jsonl") if "seconds" in event]


@pytest.mark.ray
def test_the_whole_road_with_broken_animations_among_the_good(release, tmp_path, ray_cluster, capsys):
    change = {"aaaa1/01/view_4.mp4": b"broken", "cccc3/00/view_8.mp4": None}
    release.table["zzzz9"] = {"url": "", "anim": {}}
    lost = release.table.pop("bbbb2")
    folder = release.write(tmp_path / "release", archives=2, change=change, prefix="videos/")
    settings, out = config(folder, tmp_path / "out"), tmp_path / "out"

    assert import_mv_video(settings) == 0
    printed = capsys.readouterr().out
    assert printed.count("failed: ") == 3
    first = metas(out)
    assert sorted((meta.object, meta.animation, meta.times[0]) for meta in first.values()) == [
        ("aaaa1", "00", 0.0),
        ("aaaa1", "00", pytest.approx(1 / 24)),
    ]
    assert {meta.caption for meta in first.values()} == {"aaaa1 moves in way 0"}
    failures = {name: message for name, state, message in report(out) if state == "failed"}
    assert "view_4.mp4: not a video" in failures["aaaa1/01"]
    assert "bbbb2 is not in uid_info_dict.json" in failures["bbbb2/00"]
    assert "1 of 4 views are missing: view_8.mp4" in failures["cccc3/00"]
    assert Image.open(out / "contact.png").width > 4 * 32
    assert list((out / ".parts").iterdir()) == []

    # Again: neither archive is opened for what is settled, and the failures are still said.
    before = converted(out)
    assert import_mv_video(settings) == 0
    assert converted(out) == before
    assert capsys.readouterr().out.count("failed: ") == 3

    # The table and an archive get better: only what was missing is converted.
    release.table["bbbb2"] = lost
    del release.table["zzzz9"]
    release.write(folder, archives=2, change={"aaaa1/01/view_4.mp4": b"broken"}, prefix="videos/")
    assert import_mv_video(settings) == 0
    assert sorted(converted(out)[len(before) :]) == ["bbbb2/00", "cccc3/00"]
    assert set(first) < set(metas(out))
    assert [name for name, state, _ in report(out) if state == "failed"] == ["aaaa1/01"]

    # A lost shard: its animations are made again.
    (out / read_index(out)[0].name).unlink()
    assert import_mv_video(settings) == 0
    assert set(first) < set(metas(out))

    # Other cameras or frames do not go into the same folder; what only labels clips may differ.
    with pytest.raises(ConfigError, match="stride 3, not 2"):
        import_mv_video(replace(settings, stride=2))
    assert import_mv_video(replace(settings, doubtful_below=0.1, workers=1)) == 0


@pytest.mark.ray
def test_a_cut_archive_is_reported_and_read_again_when_whole(release, tmp_path, ray_cluster, capsys):
    folder, out = release.write(tmp_path / "release", archives=1), tmp_path / "out"
    path = folder / "multi_view_video_00.tar.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.6 * len(whole))])
    settings = config(folder, out, starts=(0,))
    assert import_mv_video(settings) == 0
    names = [name for name, state, _ in report(out) if state == "failed"]
    assert "multi_view_video_00.tar.gz" in names
    assert "download it again" in capsys.readouterr().out
    some = metas(out)
    assert 0 < len(some) < 4
    path.write_bytes(whole)
    assert import_mv_video(settings) == 0
    assert len(metas(out)) == 4
    assert [name for name, state, _ in report(out) if state == "failed"] == []


@pytest.mark.ray
def test_an_extracted_release_gives_the_same_samples_and_they_train(release, tmp_path, ray_cluster):
    import tarfile

    packed = release.write(tmp_path / "packed")
    opened = tmp_path / "opened"
    with tarfile.open(packed / "multi_view_video_00.tar.gz") as tar:
        tar.extractall(opened, filter="data")
    (opened / "uid_info_dict.json").write_bytes((packed / "uid_info_dict.json").read_bytes())
    for folder in (packed, opened):
        assert import_mv_video(config(folder, folder / "out", limit=3)) == 0
    first, second = metas(packed / "out"), metas(opened / "out")
    assert list(first) == list(second)
    assert len(first) == 3 * 2
    data = DataConfig(
        shards=packed / "out", size=32, views=4, frames=5, stride=1, frames_per_step=3, tracker="opencv-lk", prefetch=0
    )
    batch, _cursor = next(iter(open_stream(data).batches(Cursor())))
    assert batch.video.shape == (4, 4, 3, 3, 32, 32)
    assert float(batch.visible.sum()) > 20
    assert batch.flow is None


@pytest.mark.ray
def test_lists_choose_objects(release, tmp_path, ray_cluster):
    folder = release.write(tmp_path / "release")
    assert import_mv_video(config(folder, tmp_path / "best", high_quality=True, starts=(0,))) == 0
    assert {meta.object for meta in metas(tmp_path / "best").values()} == {"aaaa1"}
    (tmp_path / "only.txt").write_text("cccc3\n")
    assert import_mv_video(config(folder, tmp_path / "one", only=tmp_path / "only.txt", starts=(0,))) == 0
    assert {meta.object for meta in metas(tmp_path / "one").values()} == {"cccc3"}


def test_a_task_says_what_is_doubtful_and_what_is_left_out(release, tmp_path):
    from animate4d.data.mv_video import Shot, SourceAnimation

    settings = config(tmp_path, tmp_path, starts=(0, 2), doubtful_below=1.0).release_options()
    animation = SourceAnimation(uid="aaaa1", animation="00", views=dict(enumerate(release.videos["aaaa1/00"])))
    shot = Shot(caption="", elevation_deg=12, azimuth_deg=-7.5, url="")
    outcome = convert_animation(animation, shot, tmp_path / "part.tar", settings)
    assert len(outcome.keys) == 1
    ((clip, doubt),) = outcome.doubtful
    assert clip == "00 from 0"
    assert doubt.startswith("no caption, mask confidence ")
    assert outcome.skipped == (("00 from 2", "has 14 frames; from frame 2 it takes 15"),)
    assert outcome.seconds > 0
    ((_, members),) = iterate_shard(tmp_path / "part.tar")
    clip = decode_clip(members, views=[0], frames=[0])
    assert np.ptp(clip.video.alpha) == 255


def test_what_is_no_release_is_said_before_any_work(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        import_mv_video(config(tmp_path / "nowhere", tmp_path / "out"))
    with pytest.raises(SourceError, match=r"uid_info_dict.json is missing"):
        import_mv_video(config(tmp_path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [{"limit": 0}, {"workers": 0}, {"animation_minutes": 0.0}, {"views": 5}, {"high_quality": True, "only": Path("x")}],
)
def test_numbers_out_of_range_name_their_field(tmp_path, change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        ImportMVVideoConfig(release=tmp_path, **change)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - names only
