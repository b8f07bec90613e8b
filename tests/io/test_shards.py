"""Shards: what is written comes back, and every damage has a name."""

import io
import json
import tarfile

import pytest

from animate4d.core.errors import ShardError
from animate4d.io.shards import ShardWriter, iterate_shard, read_index, write_index, write_samples


def sample(number: int) -> dict[str, bytes]:
    return {"meta.json": b'{"n": %d}' % number, "view_00.webp": bytes([number]) * (700 + number), "tracks.npz": b"x"}


def fill(folder, count, start=0, **options):
    with ShardWriter(folder, **options) as writer:
        for number in range(start, start + count):
            writer.write(f"key-{number}", sample(number))


def everything(folder):
    return {
        key: dict(members) for info in read_index(folder) for key, members in iterate_shard(folder / info.name, info)
    }


def test_samples_come_back_in_shards_of_the_asked_size(tmp_path):
    fill(tmp_path, 5, max_samples=2)
    assert [(info.name, info.samples) for info in read_index(tmp_path)] == [
        ("shard-000000.tar", 2),
        ("shard-000001.tar", 2),
        ("shard-000002.tar", 1),
    ]
    assert everything(tmp_path) == {f"key-{n}": sample(n) for n in range(5)}
    assert json.loads((tmp_path / "index.json").read_text())["samples"] == 5


def test_appending_continues_the_numbers(tmp_path):
    fill(tmp_path, 3, max_samples=2)
    fill(tmp_path, 2, start=10, max_samples=2)
    assert [info.name for info in read_index(tmp_path)] == [f"shard-00000{n}.tar" for n in range(3)]
    assert len(everything(tmp_path)) == 5


def test_long_keys_fit(tmp_path):
    key = "k" * 150
    with ShardWriter(tmp_path) as writer:
        writer.write(key, sample(1))
    assert everything(tmp_path) == {key: sample(1)}


def test_an_unfinished_shard_is_never_seen(tmp_path):
    writer = ShardWriter(tmp_path, max_samples=2)
    for number in range(3):
        writer.write(f"key-{number}", sample(number))
    assert writer.unfinished == ("key-2",)
    assert [info.keys for info in write_index(tmp_path)] == [("key-0", "key-1")]

    def fail_half_way():
        with ShardWriter(tmp_path / "b") as other:
            other.write("key-9", sample(9))
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail_half_way()
    assert list((tmp_path / "b").glob("*")) == []
    assert list((tmp_path / "b").glob(".*")) == []


def test_a_shard_whose_index_entry_was_lost_is_found_again(tmp_path):
    fill(tmp_path, 4, max_samples=2)
    before = read_index(tmp_path)
    (tmp_path / "index.json").unlink()
    assert write_index(tmp_path) == before


@pytest.mark.parametrize("known", [True, False])
def test_a_cut_shard_is_never_taken_for_a_whole_one_by_a_run_that_goes_on(tmp_path, known):
    fill(tmp_path, 4, max_samples=2)
    path = tmp_path / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[: offsets_of(path)[3][1]])
    if not known:
        (tmp_path / "index.json").unlink()
    with pytest.raises(ShardError, match=r"shard-000001\.tar .*delete it to have its clips built again"):
        ShardWriter(tmp_path)
    path.unlink()
    fill(tmp_path, 2, start=2, max_samples=2)
    assert everything(tmp_path) == {f"key-{n}": sample(n) for n in range(4)}


def test_foreign_names_are_not_written(tmp_path):
    with ShardWriter(tmp_path) as writer:
        for key in ("a.b", "../a", "", "A", "ä", "a" * 200):
            with pytest.raises(ValueError, match="sample key"):
                writer.write(key, sample(0))
        with pytest.raises(ValueError, match="not a type"):
            writer.write("a", {"x.pkl": b""})


def test_a_loose_file_of_samples_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "parts" / "a.tar"
    assert write_samples(path, iter([])) == []
    assert not path.exists()

    def failing():
        yield "key-0", sample(0)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_samples(path, failing())
    assert list(path.parent.iterdir()) == []
    assert write_samples(path, [("key-0", sample(0)), ("key-1", sample(1))]) == ["key-0", "key-1"]
    assert dict(iterate_shard(path)) == {"key-0": sample(0), "key-1": sample(1)}


def offsets_of(path):
    with tarfile.open(path) as tar:
        return [(entry.name, entry.offset, entry.offset_data) for entry in tar]


@pytest.mark.parametrize("where", ["between samples", "between members", "inside a header", "inside data", "empty"])
def test_a_cut_shard_is_noticed_before_its_first_sample(tmp_path, where):
    fill(tmp_path, 3)
    info = read_index(tmp_path)[0]
    path = tmp_path / info.name
    entries = offsets_of(path)
    cut = {
        "between samples": entries[3][1],
        "between members": entries[4][1],
        "inside a header": entries[4][1] + 100,
        "inside data": entries[4][2] + 100,
        "empty": 0,
    }[where]
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ShardError, match=rf"{info.name} has {cut} bytes, its index says {info.bytes}"):
        next(iterate_shard(path, info))


def test_a_cut_inside_data_is_noticed_without_an_index_too(tmp_path):
    fill(tmp_path, 2)
    path = tmp_path / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[: offsets_of(path)[4][2] + 100])
    with pytest.raises(ShardError, match=r"shard-000000.tar"):
        list(iterate_shard(path))


def test_changed_bytes_are_noticed_at_the_end(tmp_path):
    fill(tmp_path, 2)
    info = read_index(tmp_path)[0]
    path = tmp_path / info.name
    data = bytearray(path.read_bytes())
    data[offsets_of(path)[1][2] + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match="sha256"):
        list(iterate_shard(path, info))


def test_a_deleted_shard_has_a_name(tmp_path):
    fill(tmp_path, 2)
    info = read_index(tmp_path)[0]
    (tmp_path / info.name).unlink()
    with pytest.raises(ShardError, match=r"shard-000000.tar is in the index but cannot be read"):
        list(iterate_shard(tmp_path / info.name, info))


def write_tar(path, names, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            entry.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(b"1234"))


@pytest.mark.parametrize(
    "name",
    ["a.state.pkl", "a.x.pyd", "a.w.pth", "../a.meta.json", "/a.meta.json", "a.meta.json.pickle", "A.meta.json", "a"],
)
def test_foreign_members_are_refused_unopened(tmp_path, name):
    path = tmp_path / "foreign.tar"
    write_tar(path, [name])
    with pytest.raises(ShardError, match="not a member of our shards"):
        list(iterate_shard(path))


def test_links_are_refused(tmp_path):
    path = tmp_path / "link.tar"
    write_tar(path, ["a.meta.json"], kind=tarfile.SYMTYPE)
    with pytest.raises(ShardError, match="not a member"):
        list(iterate_shard(path))


def test_members_that_are_not_side_by_side_are_refused(tmp_path):
    path = tmp_path / "mixed.tar"
    write_tar(path, ["a.meta.json", "b.meta.json", "a.view_00.webp"])
    with pytest.raises(ShardError, match="not side by side"):
        list(iterate_shard(path))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "text.tar"
    path.write_text("hello " * 500)
    with pytest.raises(ShardError, match="damaged"):
        list(iterate_shard(path))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"schema": 1, "shards": [{"name": "x"}]}',
        '{"schema": 99, "shards": []}',
        '{"schema": 1, "shards": [{"name": "pipe:touch x", "samples": 1, "bytes": 1, "sha256": "", "keys": []}]}',
    ],
)
def test_a_wrong_index_has_a_name(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ShardError, match=r"index.json"):
        read_index(tmp_path)


def test_a_missing_index_says_what_to_do(tmp_path):
    with pytest.raises(ShardError, match="build_shards"):
        read_index(tmp_path)
