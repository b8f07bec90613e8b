"""Nothing half-written is ever visible."""

import json
import math

import pytest

from animate4d.io import atomic
from animate4d.io.atomic import atomic_folder, write_bytes, write_json, write_text


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "first")
    write_text(path, "zweite, größer")
    assert path.read_text() == "zweite, größer"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")

    def full_disk(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_json_refuses_numbers_json_does_not_have(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": math.nan})
    assert not (tmp_path / "a.json").exists()
    write_json(tmp_path / "a.json", {"x": [1.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1.5, None]}


def test_a_folder_appears_at_the_end(tmp_path):
    target = tmp_path / "result"
    with atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text("a")
        assert not target.exists()
        assert folder.parent == target.parent
    assert (target / "sub" / "a.txt").read_text() == "a"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path):
    target = tmp_path / "result"
    with atomic_folder(target) as folder:
        (folder / "a.txt").write_text("old")

    def fail_half_way():
        with atomic_folder(target) as folder:
            (folder / "a.txt").write_text("new")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail_half_way()
    assert (target / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_takes_the_place_of_an_old_one(tmp_path):
    target = tmp_path / "result"
    for text in ("old", "new"):
        with atomic_folder(target) as folder:
            (folder / f"{text}.txt").write_text(text)
    assert [entry.name for entry in target.iterdir()] == ["new.txt"]
    assert list(tmp_path.iterdir()) == [target]
