import itertools
import threading
import time
from dataclasses import replace

import pytest
import torch

from animate4d.core.errors import ClusterError, ShardError
from animate4d.data.config import DataConfig
from animate4d.data.loader import open_stream
from animate4d.data.order import Cursor

pytestmark = pytest.mark.ray

NAMES = ("video", "mask", "camera", "frame_index", "tracks", "visible", "flow", "flow_mask")


def config(folder, **changes) -> DataConfig:
    base = DataConfig(
        shards=folder, size=32, views=4, frames=4, stride=2, frames_per_step=3, points=6, batch_size=2, loader="ray"
    )
    return replace(base, **changes)


def take(stream, start, count):
    batches = stream.batches(start)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def expect_same(first, second) -> None:
    assert [cursor for _, cursor in first] == [cursor for _, cursor in second]
    for (one, _), (other, _) in zip(first, second, strict=True):
        assert one.sample_ids == other.sample_ids
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in NAMES)


@pytest.fixture
def small_orders(monkeypatch):
    """Orders and executions small enough that two epochs need several of each."""
    from animate4d.data import stream

    monkeypatch.setattr(stream, "ORDER_ITEMS", 4)
    monkeypatch.setattr(stream, "BLOCK_ITEMS", 3)
    monkeypatch.setattr(stream, "SEGMENT_ORDERS", 4)
    monkeypatch.setattr(stream, "TASK_ORDERS", 2)


@pytest.mark.parametrize("tracker", ["exact", "opencv-lk"])
def test_two_epochs_are_the_batches_of_the_in_process_loader(
    ray_cluster, tmp_path, write_shards, small_orders, tracker
):
    folder = write_shards(tmp_path / "s", 5, per_shard=3)  # 2 shards, 10 items per epoch
    streamed = take(open_stream(config(folder, tracker=tracker, readers=2)), Cursor(), 10)
    assert streamed[-1][1] == Cursor(2, 0)
    ids = [name for batch, _ in streamed for name in batch.sample_ids]
    assert len(set(ids[:10])) == len(set(ids[10:])) == 10
    plain = open_stream(config(folder, tracker=tracker, loader="inprocess", labels=tmp_path / "own"))
    expect_same(streamed, take(plain, Cursor(), 10))


def test_a_closed_stream_leaves_no_thread_that_could_look_into_a_closed_session(ray_cluster, tmp_path, write_shards):
    from animate4d.data.stream import FETCHING_THREAD

    batches = open_stream(config(write_shards(tmp_path / "s", 3))).batches(Cursor())
    next(batches)
    assert FETCHING_THREAD in {thread.name for thread in threading.enumerate()}
    batches.close()
    assert FETCHING_THREAD not in {thread.name for thread in threading.enumerate()}


def test_a_cursor_goes_on_exactly_on_every_rank(ray_cluster, tmp_path, write_shards):
    folder = write_shards(tmp_path / "s", 5, per_shard=3)
    start = Cursor(0, 6)
    for rank in range(2):
        streamed = take(open_stream(config(folder, batch_size=1), rank=rank, world=2), start, 4)
        plain = open_stream(config(folder, batch_size=1, loader="inprocess"), rank=rank, world=2)
        expect_same(streamed, take(plain, start, 4))


def test_an_undecodable_item_is_skipped_like_in_process(ray_cluster, tmp_path, write_shards):
    def spoil(members):
        return members | {"view_00.webp": b"RIFF____WEBPVP8L" + bytes(50)}

    folder = write_shards(tmp_path / "s", 5, damage={2: spoil})
    options = {"tracker": "opencv-lk", "max_bad_share": 0.3}
    stream = open_stream(config(folder, **options))
    streamed = take(stream, Cursor(), 6)
    assert list(stream.skipped) == ["disc-00000002-00-00000/0"]
    expect_same(streamed, take(open_stream(config(folder, loader="inprocess", **options)), Cursor(), 6))


def test_missing_tracks_come_out_as_one_named_error(ray_cluster, tmp_path, write_shards):
    folder = write_shards(tmp_path / "s", 2, tracks=False)
    with pytest.raises(ShardError, match="--tracker opencv-lk") as error:
        take(open_stream(config(folder)), Cursor(), 1)
    assert "disc-0000000" in str(error.value)
    assert "\n" not in str(error.value)


def test_shard_that_goes_away_is_a_named_error_and_no_hang(ray_cluster, tmp_path, write_shards):
    folder = write_shards(tmp_path / "s", 4, per_shard=2)
    stream = open_stream(config(folder))
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(ShardError, match=r"shard-000001\.tar"):
        take(stream, Cursor(), 4)


def test_a_full_cluster_is_said_instead_of_waited_for(ray_cluster, tmp_path, write_shards, monkeypatch):
    import ray

    from animate4d.data import stream as stream_module

    @ray.remote(num_cpus=2)
    class Hog:
        def ready(self):
            return True

    monkeypatch.setattr(stream_module, "ROOM_PATIENCE_S", 1.0)
    hog = Hog.remote()
    ray.get(hog.ready.remote())
    deadline = time.monotonic() + 10
    while ray.available_resources().get("CPU", 0) and time.monotonic() < deadline:
        time.sleep(0.1)
    try:
        with pytest.raises(ClusterError, match="inprocess") as error:
            take(open_stream(config(write_shards(tmp_path / "s", 2))), Cursor(), 1)
        assert "\n" not in str(error.value)
    finally:
        ray.kill(hog)


@pytest.mark.slow
def test_streams_work_inside_train_workers_that_hold_half_of_two_cores(ray_cluster, tmp_path, write_shards):
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    folder = write_shards(tmp_path / "s", 5, per_shard=3)

    def work(settings):
        import ray.train

        context = ray.train.get_context()
        rank, world = context.get_world_rank(), context.get_world_size()
        stream = open_stream(settings["config"], rank=rank, world=world)
        steps = itertools.islice(stream.batches(Cursor()), 5)
        lines = [",".join(batch.sample_ids) for batch, _ in steps]
        (settings["out"] / f"rank-{rank}.txt").write_text("\n".join(lines))

    TorchTrainer(
        work,
        train_loop_config={"config": config(folder), "out": tmp_path},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(name="stream", storage_path=str(tmp_path / "ray")),
    ).fit()
    ranks = [(tmp_path / f"rank-{rank}.txt").read_text().splitlines() for rank in range(2)]
    ids = [name for step in zip(*ranks, strict=True) for line in step for name in line.split(",")]
    alone = take(open_stream(config(folder, batch_size=4, loader="inprocess")), Cursor(), 5)
    assert ids == [name for batch, _ in alone for name in batch.sample_ids]
