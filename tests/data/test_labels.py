import errno
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from animate4d.core.errors import ConfigError, ShardError, StorageError
from animate4d.data.config import DataConfig
from animate4d.data.labels import Labeller, label_clip, read_labels
from animate4d.data.order import Cursor, Item
from animate4d.data.reader import ItemReader
from animate4d.data.sidecar import pack_sidecar
from animate4d.io import storage
from animate4d.io.tensors import pack_tensors, unpack_tensors
from animate4d.tracks.build import make_tracker

VIEWS = [0, 2, 4, 6]


class CountingTracker:
    id = "opencv-lk/1"

    def __init__(self) -> None:
        self.calls = 0
        self._real = make_tracker("opencv-lk")

    def track(self, video, queries, masks, valid=None):
        self.calls += 1
        self.valid = valid
        return self._real.track(video, queries, masks, valid)


@pytest.fixture
def labeller(tmp_path):
    made = Labeller("opencv-lk", 15, tmp_path / "labels")
    made._tracker = CountingTracker()
    return made


def test_labels_follow_the_object_on_all_stored_frames(make_sample):
    key, members = make_sample(1, size=64, frames=16)
    tracks = read_labels(label_clip(make_tracker("opencv-lk"), members, VIEWS, 15), key, VIEWS, 16)
    assert tracks.tracker.startswith("opencv-lk/")
    assert tracks.xy.shape[:2] == (4, 16)
    alive = tracks.visible[:, 7] > 0
    assert alive.sum() > 40
    moved = tracks.xy[:, 7] - tracks.xy[:, 0]  # 2 px to the right per frame
    assert np.abs(np.median(moved[alive], axis=0) - (14, 0)).max() < 0.3


def test_labels_are_made_once_and_again_when_pictures_change(labeller, make_sample):
    _, members = make_sample(1)
    first = labeller.label(members, VIEWS)
    assert labeller.label(members, VIEWS) == first
    assert labeller._tracker.calls == 1
    other = dict(members, **{"view_02.webp": make_sample(2)[1]["view_02.webp"]})
    assert labeller.label(other, VIEWS) != first
    assert labeller._tracker.calls == 2
    labeller.label(members, [1, 3, 5, 7])
    assert labeller._tracker.calls == 3


def test_labels_of_another_sample_or_other_views_are_refused(make_sample):
    key, members = make_sample(1)
    data = label_clip(make_tracker("opencv-dis"), members, VIEWS, 15)
    for sample, views in [("disc-00000002-00-00000", VIEWS), (key, [1, 3, 5, 7])]:
        with pytest.raises(ShardError, match=key) as error:
            read_labels(data, sample, views, 8)
        assert "\n" not in str(error.value)


@pytest.fixture
def shards(tmp_path, write_shards):
    return write_shards(tmp_path / "s", 3, tracks=False, per_shard=2)


def reader(folder, cache_bytes=0, **changes):
    base = DataConfig(
        shards=folder, size=32, views=4, frames=4, stride=2, frames_per_step=3, tracker="opencv-lk", prefetch=0
    )
    return ItemReader(replace(base, **changes), cache_bytes=cache_bytes)


def tracks_of(reader) -> dict:
    """(sample, group) -> its tracks, through the whole reader."""
    items = [reader.order.item(Cursor(0, place)) for place in range(reader.order.epoch_items)]
    return {(item.sample, item.group): reader.example(item).tracks for item in items}


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_exchanged_label_files_never_reach_another_sample(shards, tmp_path):
    """Every file takes the name of the next one: nothing of that is believed, and all of it is made again."""
    truth = tracks_of(reader(shards))
    files = sorted(shards.glob("labels/*/*.safetensors"))
    assert len(files) == len(truth) == 6
    contents = [path.read_bytes() for path in files]
    for path, data in zip(files, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(data)
    assert same(tracks_of(reader(shards)), truth)
    assert [path.read_bytes() for path in files] == contents


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_labels_of_samples_held_in_memory_are_held_too(shards, cache_bytes):
    ours = reader(shards, cache_bytes=cache_bytes)
    item = ours.order.item(Cursor())
    first = ours.example(item).tracks
    (path,) = shards.glob("labels/*/*.safetensors")
    path.unlink()
    assert np.array_equal(ours.example(item).tracks, first)
    assert path.exists() == (cache_bytes == 0), "found in memory, or made again"


def test_labels_of_a_twin_with_the_same_pictures_are_refused(labeller, make_sample):
    """Two samples may show the very same pictures; the labels of one still say whose they are."""
    key, members = make_sample(1)
    meta = json.loads(members["meta.json"]) | {"id": "twin-00000001-00-00000"}
    twin = members | {"meta.json": json.dumps(meta).encode()}
    labeller.label(members, VIEWS)
    path = next(labeller.folder.iterdir())
    path.rename(path.with_name(path.name.replace(key, meta["id"])))
    with pytest.raises(ShardError, match=f"of sample {key}.* offered to {meta['id']}"):
        read_labels(labeller.label(twin, VIEWS), meta["id"], VIEWS, 8)


def test_a_sample_that_pretends_to_be_another_spoils_only_itself(tmp_path, write_shards, make_sample):
    pretender = {1: lambda members: members | {"meta.json": make_sample(0)[1]["meta.json"]}}
    plain = tracks_of(reader(write_shards(tmp_path / "plain", 4, tracks=False)))
    spoilt = reader(write_shards(tmp_path / "spoilt", 4, tracks=False, damage=pretender), max_bad_share=0.5)
    for place in (*range(8), *range(8)):
        item = spoilt.order.item(Cursor(0, place))
        example = spoilt.example(item)
        if item.sample == 1:
            assert not example.sample_id.startswith("disc-00000001")
        else:
            assert np.array_equal(example.tracks, plain[item.sample, item.group])
    assert all("of sample disc-00000000" in reason for reason in spoilt.skipped.values())
    assert set(spoilt.skipped) == {"disc-00000001-00-00000/0", "disc-00000001-00-00000/1"}


@pytest.mark.parametrize("change", [{"tracker": "other/1"}, {"grid": "9"}])
def test_labels_made_another_way_are_made_again(labeller, make_sample, change):
    """Someone copied another tracker's folder over this one's, or labels of another precision."""
    _, members = make_sample(1)
    arrays = {"xy": np.zeros((4, 8, 9, 2), np.float32), "visible": np.full((4, 8, 9), 255, np.uint8)}
    facts = {"tracker": "opencv-lk/1", "grid": "15"} | change
    labeller._files.write(members, VIEWS, pack_sidecar(members, VIEWS, arrays, facts))
    assert unpack_tensors(labeller.label(members, VIEWS), {"xy": ("float32", (4, 8, None, 2))})[0]["xy"].any()
    assert labeller._tracker.calls == 1
    assert not labeller.keep(members, VIEWS)


def test_a_label_file_with_pickled_objects_is_refused_unopened(labeller, make_sample, tmp_path):
    class Canary:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "canary",))

    _, members = make_sample(1)
    labeller.label(members, VIEWS)
    path = next(labeller.folder.iterdir())
    buffer = io.BytesIO()
    np.savez(buffer, note=np.array([Canary()], object), xy=np.zeros(3), visible=np.zeros(3))
    for data in (buffer.getvalue(), pickle.dumps(Canary())):
        path.write_bytes(data)
        with pytest.raises(ShardError, match="not readable as safetensors"):
            labeller.label(members, VIEWS)
    assert not (tmp_path / "canary").exists()


def test_a_label_folder_whose_storage_fails_stops_the_run_and_blames_no_sample(shards, monkeypatch):
    monkeypatch.setattr(storage, "PAUSE_S", 0.0)
    real, broken = Path.read_bytes, reader(shards)
    broken.example(broken.order.item(Cursor()))

    def read_bytes(path):
        if "labels" in path.parts:
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        with pytest.raises(StorageError, match=r"labels.*Input/output error"):
            broken.example(broken.order.item(Cursor()))
    assert not broken.skipped

    def write_bytes(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("animate4d.data.sidecar.write_bytes", write_bytes)
    with pytest.raises(StorageError, match=r"labels.* cannot be written \(No space left on device\)"):
        broken.example(broken.order.item(Cursor(0, 1)))
    assert not broken.skipped


def test_damaged_and_foreign_label_files_are_named(labeller, make_sample):
    _, members = make_sample(1)
    labeller.label(members, VIEWS)
    (path,) = labeller.folder.iterdir()
    whole = path.read_bytes()
    for data in (b"", b"PK\x03\x04", whole[:100], safetensors.numpy.save({"xy": np.zeros(3)}), pack_tensors({}, "x")):
        path.write_bytes(data)
        with pytest.raises(ShardError):
            labeller.label(members, VIEWS)


@pytest.mark.parametrize("cut", [True, False])
def test_a_label_file_whose_numbers_have_changed_or_are_cut_is_refused(labeller, make_sample, cut):
    key, members = make_sample(1)
    data = bytearray(labeller.label(members, VIEWS))
    if cut:
        del data[-10:]
    else:
        data[-10] ^= 1
    with pytest.raises(ShardError, match="safetensors" if cut else "checksum"):
        read_labels(bytes(data), key, VIEWS, 8)


def test_label_with_a_wrong_shape_is_refused_with_the_sample(make_sample):
    key, members = make_sample(1)
    data = label_clip(make_tracker("opencv-lk"), members, VIEWS, 15)
    with pytest.raises(ShardError, match="xy"):
        read_labels(data, key, VIEWS, 9)


def test_a_labels_folder_that_cannot_be_made_is_said_at_opening(tmp_path):
    (tmp_path / "labels").write_text("a file")
    with pytest.raises(ConfigError, match=r"data\.labels"):
        Labeller("opencv-lk", 15, tmp_path / "labels")


def test_items_use_labels_at_their_frames_and_scale(tmp_path, write_shards):
    folder = write_shards(tmp_path / "s", 2, size=64, tracks=False)
    config = DataConfig(
        shards=folder, size=32, views=4, frames=4, stride=2, frames_per_step=3, tracker="opencv-lk", prefetch=0
    )
    item = ItemReader(config).example(Item(Cursor(0, 1), 1, 0))
    alive = item.visible[:, -1] > 0
    assert alive.any()
    moved = (item.tracks - item.tracks[:, :1])[..., 0]
    # 2 px of 64 per stored frame = 1 px of 32, every second stored frame is a model frame.
    assert np.abs(np.median(moved[:, -1][alive]) - 2 * item.frame_index[-1]) < 0.3
    assert (folder / "labels").is_dir()


def test_a_tracker_is_told_its_weights_and_which_queries_are_padding(tmp_path, make_sample, monkeypatch):
    asked = []

    def make(name, *, checkpoint, settings, device):
        asked.append((name, checkpoint, settings.precision, device))
        tracker = CountingTracker()
        tracker.id = f"cotracker3-offline/1-{checkpoint.stem}-{settings.name}"
        return tracker

    monkeypatch.setattr("animate4d.data.labels.make_tracker", make)
    weights = [tmp_path / f"{name}.pth" for name in ("0123", "4567")]
    one = Labeller("cotracker3", 15, tmp_path / "labels", weights[0])
    half = Labeller("cotracker3", 15, tmp_path / "labels", weights[0], precision="bf16", device="cuda")
    other = Labeller("cotracker3", 15, tmp_path / "labels", weights[1])
    assert asked[:2] == [("cotracker3", weights[0], "fp32", None), ("cotracker3", weights[0], "bf16", "cuda")]
    _, members = make_sample(1)
    one.label(members, VIEWS)
    assert one._tracker.valid.dtype == bool
    for labeller in (half, other):  # other labels for another precision, and for other weights
        labeller.label(members, VIEWS)
        assert labeller._tracker.calls == 1
    assert len(list((tmp_path / "labels").iterdir())) == 3
    # Not even a file put into the other's folder is taken for the other's.
    path = next(half.folder.iterdir())
    path.write_bytes(next(one.folder.iterdir()).read_bytes())
    half.label(members, VIEWS)
    assert half._tracker.calls == 2
