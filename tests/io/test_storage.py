"""Storage that fails, stalls or dies, seen through real files: a reader gets the bytes or one named error, in time."""

import builtins
import errno
import os
import threading
import time

import pytest

from animate4d.io import storage
from animate4d.io.storage import PatientFile, patiently, unreadable


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(storage, "PAUSE_S", 0.001)


class Flaky:
    """Fails some times, then answers."""

    def __init__(self, times: int, error: OSError) -> None:
        self.times, self.error, self.calls = times, error, 0

    def __call__(self) -> bytes:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return b"data"


def test_a_read_that_fails_is_repeated_with_growing_pauses(monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    read = Flaky(storage.ATTEMPTS - 1, OSError(errno.EIO, "Input/output error"))
    assert patiently(read) == b"data"
    assert pauses == [storage.PAUSE_S * 2**n for n in range(storage.ATTEMPTS - 1)]


def test_storage_that_stays_dead_gives_its_own_error():
    read = Flaky(10**6, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(OSError, match="Input/output error") as error:
        patiently(read)
    assert read.calls == storage.ATTEMPTS
    named = str(unreadable("/nfs/shard.tar", error.value, "check the storage"))
    assert named == f"/nfs/shard.tar cannot be read (Input/output error; tried {read.calls} times): check the storage"


def test_a_missing_file_is_waited_for_only_where_it_must_be_there():
    gone = FileNotFoundError(errno.ENOENT, "No such file")
    assert patiently(Flaky(1, gone)) == b"data"
    read = Flaky(1, gone)
    with pytest.raises(FileNotFoundError):
        patiently(read, expected=False)
    assert read.calls == 1


def test_other_exceptions_pass_at_once():
    calls = []

    def read():
        calls.append(1)
        raise ValueError("not a matter of storage")

    with pytest.raises(ValueError, match="matter"):
        patiently(read)
    assert len(calls) == 1


def test_a_stalled_read_is_left_behind_and_tried_again(monkeypatch):
    monkeypatch.setattr(storage, "LIMIT_S", 0.2)
    stalled, calls = threading.Event(), []

    def read():
        calls.append(1)
        if len(calls) == 1:
            stalled.wait(60)
        return len(calls)

    assert patiently(read) == 2
    stalled.set()


def test_an_open_that_never_returns_ends_in_a_timeout(tmp_path, monkeypatch):
    """Opening a pipe that nobody writes to blocks in the kernel as a dead NFS server does."""
    monkeypatch.setattr(storage, "LIMIT_S", 0.1)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within"), PatientFile(path) as file:
        file.read(10)
    assert time.monotonic() - began < 10
    for _ in range(storage.ATTEMPTS):  # lets the threads go that were left behind
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


class BadDisk:
    """Stands in for `open`: chosen reads of the path fail, after which that handle never works again."""

    def __init__(self, path, failing: set[int]) -> None:
        self.path, self.failing, self.reads, self.opened = path, failing, 0, 0
        self.real = builtins.open

    def __call__(self, path, *arguments, **options):
        file = self.real(path, *arguments, **options)
        if path != self.path:
            return file
        self.opened += 1
        return BadHandle(file, self)


class BadHandle:
    def __init__(self, file, disk: BadDisk) -> None:
        self.file, self.disk, self.stale = file, disk, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def read(self, size=-1):
        self.disk.reads += 1
        self.stale = self.stale or self.disk.reads in self.disk.failing
        if self.stale:
            self.file.seek(0, 2)
            raise OSError(errno.ESTALE, "Stale file handle")
        return self.file.read(size)


def test_a_file_goes_on_where_it_was_when_its_handle_turns_stale(tmp_path, monkeypatch):
    path, data = tmp_path / "file", os.urandom(1000)
    path.write_bytes(data)
    disk = BadDisk(path, {3, 7})
    monkeypatch.setattr(builtins, "open", disk)
    with PatientFile(path) as file:
        parts = []
        while part := file.read(90):
            parts.append(part)
        assert b"".join(parts) == data
        file.seek(500)
        assert file.read(10) == data[500:510]
        assert file.tell() == 510
    assert disk.opened == 3
