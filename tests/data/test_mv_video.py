"""The release's layout: archives as streams, extracted folders, the table, and what is wrong with them."""

import json
import tarfile
from io import BytesIO

import pytest

from animate4d.core.errors import SourceError
from animate4d.data.mv_video import open_release, read_archive, read_folder, read_uids


def everything(_uid):
    return True


def archive(path, members, *, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, BytesIO(data))
    return path


def views(uid, animation, numbers=range(16), data=b"video"):
    return [(f"{uid}/{animation}/view_{number}.mp4", data + b"%d" % number) for number in numbers]


def table(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / "uid_info_dict.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


GOOD = {"url": "https://x", "anim": {"00": {"angle": {"elv": 12.5, "azi_start": -3}, "text_prompt": " a  fox\n runs "}}}


@pytest.mark.parametrize("prefix", ["", "videos/", "./", "multi_view_video_00/"])
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_an_archive_gives_its_animations_in_order(tmp_path, prefix, mode):
    members = [*views("u2", "00"), *views("u2", "05", [3, 1, 2]), *views("u1", "01")]
    path = archive(tmp_path / "a.tar.gz", [(prefix + name, data) for name, data in members], mode=mode)
    read = list(read_archive(path, everything))
    assert [animation.name for animation in read] == ["u2/00", "u2/05", "u1/01"]
    assert sorted(read[0].views) == list(range(16))
    assert read[1].views == {1: b"video1", 2: b"video2", 3: b"video3"}


def test_a_folder_gives_what_its_archive_gives(tmp_path):
    members = [*views("u1", "01"), *views("u2", "00"), ("u2/notes.txt", b"x"), ("readme.mp4", b"x")]
    path = archive(tmp_path / "a.tar.gz", members)
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    packed, open_ = list(read_archive(path, everything)), list(read_folder(tmp_path / "out", everything))
    assert packed == open_
    assert [animation.sha256() for animation in packed] == [animation.sha256() for animation in open_]


def test_the_hash_is_of_the_videos_and_not_of_their_order(tmp_path):
    (forth,) = read_archive(archive(tmp_path / "a.tar", views("u", "00"), mode="w"), everything)
    (back,) = read_archive(archive(tmp_path / "b.tar", views("u", "00")[::-1], mode="w"), everything)
    (other,) = read_archive(archive(tmp_path / "c.tar", views("u", "00", data=b"x"), mode="w"), everything)
    assert forth.sha256() == back.sha256() != other.sha256()


def test_only_wanted_objects_are_read_and_progress_reaches_the_end(tmp_path):
    path = archive(tmp_path / "a.tar.gz", [*views("u1", "00"), *views("u2", "00")])
    told = []
    assert [animation.uid for animation in read_archive(path, lambda uid: uid == "u2", told.append)] == ["u2"]
    assert told == sorted(told)
    assert told[-1] == path.stat().st_size


@pytest.mark.parametrize("share", [0.3, 0.8, 0.99])
def test_a_cut_archive_gives_what_is_whole_and_then_says_so(tmp_path, share):
    import os

    members = [entry for number in range(6) for entry in views(f"u{number}", "00", data=os.urandom(2000))]
    path = archive(tmp_path / "a.tar.gz", members)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    read = []
    with pytest.raises(SourceError, match=r"a.tar.gz is cut or damaged .* download it again"):
        read.extend(read_archive(path, everything))  # what comes before the error is kept
    whole = [animation for animation in read if len(animation.views) == 16]
    assert len(whole) >= int(6 * share) - 1
    assert len(read) - len(whole) <= 1


def test_noise_is_not_an_archive(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"no archive at all" * 100)
    with pytest.raises(SourceError, match="cut or damaged"):
        list(read_archive(tmp_path / "a.tar.gz", everything))


def test_a_member_that_claims_too_much_spoils_only_its_animation(tmp_path, monkeypatch):
    monkeypatch.setattr("animate4d.data.mv_video.MAX_VIDEO_BYTES", 100)
    members = [*views("u1", "00", [0]), ("u1/00/view_1.mp4", bytes(101)), *views("u2", "00", [0])]
    first, second = read_archive(archive(tmp_path / "a.tar.gz", members), everything)
    assert "view_1.mp4 claims 101 bytes" in first.problem
    assert not second.problem


def test_the_table_gives_cameras_and_captions(tmp_path):
    release = open_release(table(tmp_path / "r", {"u": GOOD}))
    shot = release.shot("u", "00")
    assert (shot.caption, shot.elevation_deg, shot.azimuth_deg, shot.url) == ("a fox runs", 12.5, -3.0, "https://x")
    assert release.archives == ()
    assert release.expected_animations() == 1


@pytest.mark.parametrize(
    ("uid", "animation", "entry", "words"),
    [
        ("w", "00", GOOD, "w is not in uid_info_dict.json"),
        ("u", "01", GOOD, "lacks something"),
        ("u", "00", {}, "lacks something"),
        ("u", "00", None, "is not in"),
        ("u", "00", {"anim": {"00": {"angle": {"elv": "high", "azi_start": 0}, "text_prompt": ""}}}, "lacks something"),
        ("u", "00", {"anim": {"00": {"angle": {"elv": 91, "azi_start": 0}, "text_prompt": ""}}}, "impossible"),
        (
            "u",
            "00",
            {"anim": {"00": {"angle": {"elv": float("nan"), "azi_start": 0}, "text_prompt": ""}}},
            "impossible",
        ),
    ],
)
def test_what_the_table_lacks_is_said_in_one_line(tmp_path, uid, animation, entry, words):
    with pytest.raises(SourceError, match=words) as error:
        open_release(table(tmp_path / "r", {"u": entry})).shot(uid, animation)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_release_is_named(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        open_release(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"uid_info_dict.json is missing"):
        open_release(tmp_path)
    with pytest.raises(SourceError, match="as JSON"):
        open_release(table(tmp_path / "r", "{"))
    with pytest.raises(SourceError, match="not a table"):
        open_release(table(tmp_path / "r", "[]"))


def test_lists_of_objects_restrict_the_release(tmp_path):
    (tmp_path / "only.txt").write_text("u\nv")
    release = open_release(table(tmp_path / "r", {"u": GOOD, "w": GOOD}), only=tmp_path / "only.txt")
    assert release.wants("u")
    assert not release.wants("w")
    assert release.expected_animations() == 1
    (tmp_path / "only.txt").write_text("\n")
    with pytest.raises(SourceError, match="lists no UID"):
        read_uids(tmp_path / "only.txt")
    with pytest.raises(SourceError, match="cannot be read"):
        read_uids(tmp_path / "none.txt")
