import itertools
import logging
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from animate4d.core.errors import ShardError
from animate4d.data.config import DataConfig
from animate4d.data.loader import open_stream, prefetched
from animate4d.data.order import Cursor


def config(folder, **changes) -> DataConfig:
    base = DataConfig(
        shards=folder, size=32, views=4, frames=4, stride=2, frames_per_step=3, points=6, batch_size=3, prefetch=0
    )
    return replace(base, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_shards):
    return write_shards(tmp_path_factory.mktemp("loader") / "s", 5, per_shard=2)


def take(stream, start, count):
    batches = stream.batches(start)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def same(first, second) -> bool:
    names = ("video", "mask", "camera", "frame_index", "tracks", "visible", "flow", "flow_mask")
    return first.sample_ids == second.sample_ids and all(
        torch.equal(getattr(first, name), getattr(second, name)) for name in names
    )


def test_batches_have_the_promised_shapes(folder):
    batch, cursor = take(open_stream(config(folder)), Cursor(), 1)[0]
    assert batch.video.shape == (3, 4, 3, 3, 32, 32)
    assert batch.mask.shape == (3, 4, 3, 1, 32, 32)
    assert batch.camera.shape == (3, 4, 4, 4)
    assert batch.frame_index.shape == (3, 3)
    assert batch.tracks.shape == (3, 4, 3, 6, 2)
    assert batch.visible.shape == (3, 4, 3, 6)
    assert batch.flow.shape == (3, 4, 3, 2, 16, 16)
    assert batch.flow_mask.shape == (3, 4, 3, 1, 16, 16)
    assert {batch.video.dtype, batch.tracks.dtype, batch.flow.dtype, batch.camera.dtype} == {torch.float32}
    assert batch.frame_index.dtype == torch.int64
    assert cursor == Cursor(0, 3)
    moved = batch.to("meta")
    assert moved.video.device.type == "meta"
    assert moved.captions == batch.captions


def test_every_item_comes_once_per_epoch(folder):
    stream = open_stream(config(folder, batch_size=2))
    ids = [name for batch, _ in take(stream, Cursor(), 10) for name in batch.sample_ids]  # 5 samples x 2 groups
    assert len(set(ids[:10])) == len(set(ids[10:])) == 10


def test_a_run_taken_up_at_any_cursor_goes_on_with_the_same_batches(folder):
    whole = take(open_stream(config(folder)), Cursor(), 8)
    for stop in (1, 3, 7):  # 10 items per epoch: step 4 straddles the end
        rest = take(open_stream(config(folder)), whole[stop - 1][1], 8 - stop)
        assert [cursor for _, cursor in rest] == [cursor for _, cursor in whole[stop:]]
        assert all(same(first[0], second[0]) for first, second in zip(rest, whole[stop:], strict=True))


@pytest.mark.parametrize("changes", [{"prefetch": 2}, {"cache_mb": 0}])
def test_threads_and_memory_change_nothing(folder, changes):
    plain = take(open_stream(config(folder)), Cursor(0, 6), 4)
    other = take(open_stream(config(folder, **changes)), Cursor(0, 6), 4)
    assert all(same(first[0], second[0]) and first[1] == second[1] for first, second in zip(plain, other, strict=True))


def test_ranks_split_each_step_even_with_fewer_shards_than_ranks(folder):
    world = 4  # 3 shards
    ranks = [
        take(open_stream(config(folder, batch_size=1), rank=rank, world=world), Cursor(), 5) for rank in range(world)
    ]
    assert len({tuple(cursor for _, cursor in steps) for steps in ranks}) == 1
    ids = [ranks[rank][step][0].sample_ids[0] for step in range(5) for rank in range(world)]
    assert len(set(ids[:10])) == len(set(ids[10:])) == 10
    alone = take(open_stream(config(folder, batch_size=4)), Cursor(), 5)
    assert ids == [name for batch, _ in alone for name in batch.sample_ids]


def spoil_strip(members):
    return members | {"view_00.webp": b"RIFF____WEBPVP8L" + bytes(50)}


def test_an_undecodable_item_is_skipped_named_and_replaced(tmp_path, write_shards, caplog):
    folder = write_shards(tmp_path / "s", 5, damage={2: spoil_strip})
    stream = open_stream(config(folder, batch_size=2, max_bad_share=0.3))
    with caplog.at_level(logging.WARNING):
        steps = take(stream, Cursor(), 10)
    bad = "disc-00000002-00-00000/0"  # only group 0 uses view 0
    assert list(stream.skipped) == [bad]
    assert "view_00" in stream.skipped[bad] or "WebP" in stream.skipped[bad]
    assert caplog.text.count(bad) == 1
    ids = [name for batch, _ in steps for name in batch.sample_ids]
    assert len(ids) == 20
    assert bad not in ids
    assert len(set(ids[:10])) == 9
    assert steps[4][1] == Cursor(1, 0)
    again = take(open_stream(config(folder, batch_size=2, max_bad_share=0.3)), Cursor(), 10)
    assert [batch.sample_ids for batch, _ in again] == [batch.sample_ids for batch, _ in steps]


@pytest.mark.parametrize("missing", ["view_00.webp", "meta.json"])
def test_too_many_bad_items_stop_the_run(tmp_path, write_shards, missing):
    def drop(members):
        return {name: data for name, data in members.items() if name != missing}

    folder = write_shards(tmp_path / "s", 5, damage={2: drop})
    with pytest.raises(ShardError) as error:
        take(open_stream(config(folder, prefetch=1)), Cursor(), 10)
    assert "disc-00000002-00-00000" in str(error.value)
    assert "limit 1%" in str(error.value)
    assert "\n" not in str(error.value)


def test_items_with_and_without_flow_share_a_batch(tmp_path, write_shards):
    def drop(members):
        return {name: data for name, data in members.items() if name != "flow.npz"}

    folder = write_shards(tmp_path / "s", 2, damage={1: drop})
    batch, _ = take(open_stream(config(folder, batch_size=4)), Cursor(), 1)[0]
    has_flow = [not name.startswith("disc-00000001") for name in batch.sample_ids]
    assert [bool(mask.any()) for mask in batch.flow_mask] == has_flow
    assert not batch.flow[~torch.tensor(has_flow)].any()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_prefetching_keeps_order_raises_in_turn_and_stops_its_thread(depth):
    closed = threading.Event()

    def numbers():
        try:
            for number in itertools.count():
                if number == 5:
                    raise ShardError("five")
                yield number
        finally:
            closed.set()

    before = threading.active_count()
    values = prefetched(numbers, depth)
    assert [next(values) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ShardError, match="five"):
        next(values)
    closed.clear()
    values = prefetched(numbers, depth)
    assert next(values) == 0
    values.close()
    assert closed.wait(5)
    assert threading.active_count() == before


def test_a_batch_costs_far_less_than_a_training_step(tmp_path, write_shards):
    folder = write_shards(tmp_path / "s", 4, views=16, frames=16, size=64)
    stream = open_stream(DataConfig(shards=folder, prefetch=0)).batches(Cursor())
    next(stream)
    costs = []
    for _ in range(8):
        began = time.process_time()
        next(stream)
        costs.append(time.process_time() - began)
    # Measured 28 ms; a smoke training step is about 300 ms.
    assert np.median(costs) < 0.15


def test_only_kept_clips_are_trained_on(folder, tmp_path):
    keys = ("disc-00000001-00-00000", "disc-00000004-00-00000")
    (tmp_path / "keep.txt").write_text("\n".join(keys))
    batches = take(open_stream(config(folder, keep=tmp_path / "keep.txt", batch_size=2)), Cursor(), 2)
    assert {name for batch, _cursor in batches for name in batch.sample_ids} == {
        f"{key}/{group}" for key in keys for group in (0, 1)
    }
