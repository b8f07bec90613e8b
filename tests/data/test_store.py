import builtins
import errno
import os
import tarfile
import time

import pytest

from animate4d.core.errors import ShardError, StorageError
from animate4d.data.store import ShardStore
from animate4d.io import storage
from animate4d.io.shards import iterate_shard, read_index, write_index

BIG = 2**30


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(storage, "PAUSE_S", 0.0)


@pytest.mark.parametrize("cache", [0, BIG])
def test_any_member_of_any_sample_is_what_the_shard_holds(tmp_path, write_shards, cache):
    folder = write_shards(tmp_path / "s", 5, per_shard=2, frames=2, views=2)
    truth = {key: members for path in sorted(folder.glob("*.tar")) for key, members in iterate_shard(path)}
    store = ShardStore(folder, cache_bytes=cache)
    assert set(store.keys) == set(truth)
    for number in (4, 0, 2, 4):
        wanted = ["view_01.webp", "meta.json", "latents.npz"]
        read = store.read(number, wanted)
        assert set(read) == {"view_01.webp", "meta.json"}
        assert all(read[name] == truth[store.keys[number]][name] for name in read)


def one_line(error: pytest.ExceptionInfo, *parts: str) -> None:
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_missing_index_is_named(tmp_path):
    with pytest.raises(ShardError) as error:
        ShardStore(tmp_path / "nothing")
    one_line(error, "index.json", "build_shards")


def test_empty_folder_is_named(tmp_path, write_shards):
    with pytest.raises(ShardError) as error:
        ShardStore(write_shards(tmp_path / "s", 0))
    one_line(error, "no samples")


def test_a_sample_that_two_shards_hold_is_named(tmp_path, write_shards):
    folder = write_shards(tmp_path / "s", 2, per_shard=1, frames=2, views=2)
    path = folder / "shard-000001.tar"
    path.write_bytes((folder / "shard-000000.tar").read_bytes())
    (folder / "index.json").unlink()
    write_index(folder)
    with pytest.raises(ShardError) as error:
        ShardStore(folder)
    one_line(error, "disc-00000000-00-00000", "twice")


@pytest.mark.parametrize("cut", [3000, 10240])
def test_cut_shard_is_found_at_opening(tmp_path, write_shards, cut):
    folder = write_shards(tmp_path / "s", 4, per_shard=2, frames=2, views=2)
    path = folder / "shard-000001.tar"
    os.truncate(path, path.stat().st_size - cut)
    with pytest.raises(ShardError) as error:
        ShardStore(folder)
    one_line(error, "shard-000001.tar", "bytes")


@pytest.mark.parametrize("cache", [0, BIG])
def test_foreign_members_are_refused_unopened(tmp_path, write_shards, add_foreign_member, cache):
    folder = write_shards(tmp_path / "s", 2, frames=2, views=2)
    add_foreign_member(folder / "shard-000000.tar", "disc-00000000-00-00000.labels.pkl", b"cos\nsystem\n.")
    with pytest.raises(ShardError) as error:
        ShardStore(folder, cache_bytes=cache).read(0, ["meta.json"])
    one_line(error, "shard-000000.tar", "labels.pkl")


@pytest.mark.parametrize("cache", [0, BIG])
def test_members_that_are_not_side_by_side_are_refused(tmp_path, write_shards, add_foreign_member, cache):
    folder = write_shards(tmp_path / "s", 2, frames=2, views=2)
    add_foreign_member(folder / "shard-000000.tar", "disc-00000000-00-00000.latents.npz", b"late")
    with pytest.raises(ShardError) as error:
        ShardStore(folder, cache_bytes=cache).read(0, ["meta.json"])
    one_line(error, "shard-000000.tar", "side by side", "build it again")


def test_changed_bytes_are_found_when_the_set_is_held_in_memory(tmp_path, write_shards):
    folder = write_shards(tmp_path / "s", 2, frames=2, views=2)
    path = folder / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError) as error:
        ShardStore(folder, cache_bytes=BIG)
    one_line(error, "sha256")


def test_shard_deleted_while_in_use_is_named_after_some_patience(tmp_path, write_shards):
    folder = write_shards(tmp_path / "s", 2, frames=2, views=2)
    store = ShardStore(folder)
    store.read(0, ["meta.json"])
    (folder / "shard-000000.tar").unlink()
    with pytest.raises(ShardError) as error:
        store.read(1, ["meta.json"])
    one_line(error, "shard-000000.tar", "cannot be read")


def test_shard_replaced_by_another_one_of_equal_size_is_noticed(tmp_path, write_shards):
    folder = write_shards(tmp_path / "s", 2, frames=2, views=2)
    path = folder / "shard-000000.tar"
    path.write_bytes(path.read_bytes().replace(b"disc-00000001-00", b"disc-00000007-00"))
    with pytest.raises(ShardError) as error:
        ShardStore(folder).read(0, ["meta.json"])
    one_line(error, "shard-000000.tar", "differ")


@pytest.mark.parametrize("cache", [0, BIG])
def test_a_keep_list_hides_the_other_samples(tmp_path, write_shards, cache):
    folder = write_shards(tmp_path / "s", 5, per_shard=2, frames=2, views=2)
    stored = ShardStore(folder).keys
    keep = tmp_path / "keep.txt"
    keep.write_text(f"# two of five\n{stored[4]}\n\n{stored[1]}  # the second\n")
    store = ShardStore(folder, cache_bytes=cache, keep=keep)
    assert store.keys == (stored[1], stored[4])
    for number, key in enumerate(store.keys):
        assert f'"{key}"'.encode() in store.read(number, ["meta.json"])["meta.json"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [("# nothing\n", ("keep.txt", "keeps no sample")), ("\nfox-00\n", ("keep.txt line 2", "no sample fox-00"))],
)
def test_a_keep_list_of_other_shards_is_refused(tmp_path, write_shards, text, parts):
    folder = write_shards(tmp_path / "s", 2, frames=2, views=2)
    (tmp_path / "keep.txt").write_text(text)
    with pytest.raises(ShardError) as error:
        ShardStore(folder, keep=tmp_path / "keep.txt")
    one_line(error, *parts)


def test_a_missing_keep_list_is_named(tmp_path, write_shards):
    folder = write_shards(tmp_path / "s", 2, frames=2, views=2)
    with pytest.raises(ShardError) as error:
        ShardStore(folder, keep=tmp_path / "none.txt")
    one_line(error, "none.txt", "cannot be read")


class Disk:
    """Reads of the shards go through this: the numbered ones fail, as on a server that comes and goes."""

    def __init__(self, monkeypatch, failing) -> None:
        self.failing, self.reads, self.real = failing, 0, builtins.open
        monkeypatch.setattr(builtins, "open", self)

    def __call__(self, path, *arguments, **options):
        file = self.real(path, *arguments, **options)
        if str(path).endswith(".tar"):
            return FailingFile(file, self)
        return file


class FailingFile:
    def __init__(self, file, disk) -> None:
        self._file, self._disk = file, disk

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def read(self, size=-1):
        self._disk.reads += 1
        if self._disk.reads in self._disk.failing:
            raise OSError(errno.EIO, "Input/output error")
        return self._file.read(size)


@pytest.mark.parametrize("cache", [0, BIG])
def test_reads_that_fail_in_the_middle_are_made_up_for(tmp_path, write_shards, monkeypatch, cache):
    folder = write_shards(tmp_path / "s", 4, per_shard=2, frames=2, views=2)
    truth = {key: members for path in sorted(folder.glob("*.tar")) for key, members in iterate_shard(path)}
    disk = Disk(monkeypatch, {1, 2, 4, 9})
    store = ShardStore(folder, cache_bytes=cache)
    for number, key in enumerate(store.keys):
        assert store.read(number, list(truth[key])) == truth[key]
    assert disk.reads > 3


@pytest.mark.parametrize("cache", [0, BIG])
def test_a_disk_that_stays_dead_is_one_named_error(tmp_path, write_shards, monkeypatch, cache):
    folder = write_shards(tmp_path / "s", 4, per_shard=2, frames=2, views=2)
    Disk(monkeypatch, range(10**9))
    with pytest.raises(StorageError) as error:
        ShardStore(folder, cache_bytes=cache).read(3, ["meta.json"])
    one_line(error, ".tar", "Input/output error", "check the storage")


@pytest.mark.parametrize("cache", [0, BIG])
def test_storage_that_stalls_is_one_named_error_and_no_hang(tmp_path, write_shards, monkeypatch, cache):
    """A pipe that nobody writes to blocks whoever opens it, as a dead NFS server does."""
    folder = write_shards(tmp_path / "s", 2, frames=2, views=2)
    path = folder / "shard-000000.tar"
    info = read_index(folder)[0]
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(storage, "LIMIT_S", 0.1)
    monkeypatch.setattr("animate4d.data.store.check_size", lambda *_: None)  # a pipe has no size
    monkeypatch.setattr("animate4d.io.shards.check_size", lambda *_: None)
    began = time.monotonic()
    with pytest.raises(StorageError) as error:
        ShardStore(folder, cache_bytes=cache).read(0, ["meta.json"])
    assert time.monotonic() - began < 10
    one_line(error, info.name, "no answer within 0.1 s")
    for _ in range(storage.ATTEMPTS):  # lets the threads go that were left behind
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.parametrize("cache", [0, BIG])
def test_a_member_that_comes_twice_is_refused(tmp_path, write_shards, add_foreign_member, cache):
    folder = write_shards(tmp_path / "s", 1, frames=2, views=2)
    add_foreign_member(folder / "shard-000000.tar", "disc-00000000-00-00000.view_00.webp", b"another picture")
    with pytest.raises(ShardError) as error:
        ShardStore(folder, cache_bytes=cache).read(0, ["meta.json"])
    one_line(error, "view_00.webp", "twice")


@pytest.mark.parametrize("cache", [0, BIG])
def test_sparse_members_are_refused(tmp_path, write_shards, cache):
    """The size of a sparse member is not that of its bytes in the tar: read at its offset, it holds its neighbours'."""
    folder = write_shards(tmp_path / "s", 1, frames=2, views=2)
    path = folder / "shard-000000.tar"
    with tarfile.open(path) as tar:
        entry = next(entry for entry in tar if entry.name.endswith("view_00.webp"))
    data = bytearray(path.read_bytes())
    header = data[entry.offset : entry.offset + 512]
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[entry.offset : entry.offset + 512] = header
    path.write_bytes(data)
    with pytest.raises(ShardError) as error:
        ShardStore(folder, cache_bytes=cache).read(0, ["meta.json"])
    assert not isinstance(error.value, StorageError)
    one_line(error, "view_00.webp", "not a member of our shards")
