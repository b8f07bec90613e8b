"""The clip stream through Ray Data: tasks read shards, actors label points, the trainer decodes.

    work orders -> read (tasks) -> label (actors, only for trackers that compute) -> trainer of one rank

A work order is a range of steps of one rank; its items follow from `order` by arithmetic, so every rank runs its own
Ray Data execution, made inside the trainer's process, and Ray Data keeps the order of the rows (`preserve_order`).
Batches are therefore the very batches of the in-process loader, and a cursor is exact. Rows carry encoded members (a
decoded clip is some 20 times larger) in blocks of a few items. One execution spans many epochs, so actors and their
models are built once and not once per epoch. Where readers and labellers ask for the same resources Ray fuses them, and
the actors read for themselves.

Readers and labellers ask for a fraction of a CPU each: a rank needs `readers + labellers` times `stream_cpus` free
beside the CPUs that the trainers hold, and the stream says so instead of waiting when the cluster has less.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy
from ray.data._internal.execution.execution_callback import ExecutionCallback

from animate4d.core.errors import ClusterError, ShardError
from animate4d.data.batch import TrainingBatch, collate
from animate4d.data.config import DataConfig
from animate4d.data.loader import prefetched
from animate4d.data.order import Cursor, Item
from animate4d.data.placement import share_gpus
from animate4d.data.reader import EncodedItem, ItemReader
from animate4d.tracks.build import NONE

ORDER_ITEMS = 32
"""Items per work order, roughly: a few blocks."""
BLOCK_ITEMS = 16
"""Items that a reader yields at a time, at most."""
BLOCK_BYTES = 2**20
"""Blocks have this size or hold one item, whichever is larger: items of 64 px take 0.1 MB, of 256 px 1 MB. Small blocks
bring the first batch, and errors, sooner, and bound what readers hold."""
ITEM_SHARE = 0.75
"""Ray Data's own target in a large item: below one, or a block would wait for the next item where one is smaller than
most; above a half, or it would call whole items too large."""
STORE_BYTES_AHEAD = 128 * 2**20
"""Object store that one rank's stream may fill ahead of the trainer."""
SEGMENT_ORDERS = 1024
"""Work orders per Ray Data execution: some 30,000 items between two starts of the actors."""
TASK_ORDERS = 16
"""Work orders per reading task; a task streams its blocks out as they are made."""

LOOP_PAUSE_S = 0.05
"""Rest of Ray Data's control loop. A round takes the interpreter from the decoding thread for milliseconds, and brings
up to two blocks: enough for some 300 items a second, while one thread decodes about a hundred."""

FETCHING_THREAD = "iter_threaded"
"""Ray Data's name for the threads that fetch blocks for an iterator."""
CLOSING_S = 5.0
"""They are waited for no longer than this; a tenth of a second is what they take."""

ROOM_PATIENCE_S = 15.0
"""Tasks of a stream just closed, or of a worker just replaced, give their CPUs back within seconds."""


class RayStream:
    """One rank's batches, read and labelled by Ray Data. Use it in a process connected to Ray (see `ClipStream`)."""

    def __init__(self, config: DataConfig, *, rank: int = 0, world: int = 1) -> None:
        self._config, self._rank, self._world = config, rank, world
        self._reader = ItemReader(config)
        self._steps_per_order = max(1, ORDER_ITEMS // config.batch_size)
        self.skipped = self._reader.skipped

    @property
    def target_block_bytes(self) -> int:
        """What Ray Data is told to make blocks of: `BLOCK_BYTES`, or most of one item where items are larger."""
        return max(BLOCK_BYTES, int(ITEM_SHARE * self._reader.store.sample_bytes / self._reader.order.groups))

    def batches(self, start: Cursor) -> Iterator[tuple[TrainingBatch, Cursor]]:
        """Yield batches; see `ClipStream.batches`.

        Raises:
            ClusterError: the cluster has no CPU left for readers and labellers.
        """
        return prefetched(lambda: self._batches(start), self._config.prefetch)

    def _batches(self, cursor: Cursor) -> Iterator[tuple[TrainingBatch, Cursor]]:
        config = self._config
        gpus = share_gpus(
            gpus=ray.cluster_resources().get("GPU", 0.0),
            workers=self._world,
            labellers=config.gpu_labellers,
            asked=config.labeller_gpus,
        ).labeller
        require_room(config, gpus)
        while True:
            for table in tables_of(self._dataset(cursor, gpus), config.batch_size):
                items, cursor = self._reader.order.step(cursor, config.batch_size, self._rank, self._world)
                rows = map(unpack_row, table.to_pylist())
                yield collate([self._reader.example(item, row) for item, row in zip(items, rows, strict=True)]), cursor

    def _dataset(self, start: Cursor, labeller_gpus: float) -> Dataset:
        config = self._config
        width = len(self._reader.decoder.members(0))
        read = partial(
            read_orders,
            config=config,
            width=width,
            start=start,
            rank=self._rank,
            world=self._world,
            steps=self._steps_per_order,
        )
        rows = ray.data.from_items(
            [{"id": number} for number in range(SEGMENT_ORDERS)], override_num_blocks=SEGMENT_ORDERS // TASK_ORDERS
        ).map_batches(
            read,
            batch_size=TASK_ORDERS,
            batch_format="numpy",
            num_cpus=config.stream_cpus,
            compute=TaskPoolStrategy(size=config.readers),
        )
        if config.computes_labels:
            rows = rows.map_batches(
                LabelActor,
                batch_size=None,  # a block: one has few items where items are large
                batch_format="pyarrow",
                fn_constructor_kwargs={"config": config},
                num_cpus=config.stream_cpus,
                num_gpus=labeller_gpus or None,
                # One at a time: Ray Data waits 0.1 s for all tasks handed out to be ready before it takes from any.
                compute=ActorPoolStrategy(size=config.labellers, max_tasks_in_flight_per_actor=1),
            )
        context = rows.context
        context.custom_execution_callback_classes = [Unhurried]
        context.enable_progress_bars = False
        context.target_max_block_size = self.target_block_bytes
        context.execution_options.preserve_order = True
        context.execution_options.verbose_progress = False
        context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
            object_store_memory=STORE_BYTES_AHEAD
        )
        return rows


def tables_of(dataset: Dataset, rows: int) -> Iterator[pa.Table]:
    """Execute a dataset and yield so many rows at a time.

    Once this iterator is closed no thread of Ray Data looks into the object store any more: they outlive Ray's own
    iterator by a tenth of a second, and one that meets a closed session takes the whole process with it.
    """
    known = set(threading.enumerate())
    try:
        with closing(iter(dataset.iter_batches(batch_size=rows, batch_format="pyarrow", prefetch_batches=1))) as tables:
            yield from tables
    finally:
        for thread in set(threading.enumerate()) - known:
            if thread.name == FETCHING_THREAD:
                thread.join(CLOSING_S)


def read_orders(batch: Any, *, config: DataConfig, width: int, **plan: Any) -> Iterator[pa.Table]:
    """Read the items of some work orders; runs in a Ray task.

    Shards that cannot be read come out as a last row that says so: an exception would reach the trainer before the rows
    in front of it, wrapped in the trace of a task.
    """
    try:
        reader = _reader(without_tracker(config) if config.computes_labels else config)
        for items in read_items(reader, batch["id"], config.batch_size, **plan):
            yield drained(items, width)
    except ShardError as error:
        yield pack_rows([EncodedItem(sample="", group=0, members={}, fatal=located(error))], width)


def without_tracker(config: DataConfig) -> DataConfig:
    """Return what reads the same members and loads no network for it."""
    return replace(config, tracker=NONE, tracker_checkpoint=None, tracker_precision="fp32")


def read_items(
    reader: ItemReader, orders: Iterable[int], batch_size: int, *, start: Cursor, rank: int, world: int, steps: int
) -> Iterator[list[EncodedItem]]:
    """Yield the items of work orders, each `steps` steps of one rank, a few at a time, or one large one."""
    held: list[EncodedItem] = []
    for number in orders:
        cursor = reader.order.advance(start, int(number) * steps * batch_size * world)
        items: list[Item] = []
        for _ in range(steps):
            found, cursor = reader.order.step(cursor, batch_size, rank, world)
            items += found
        for item in items:
            held.append(reader.fetch(item))
            if len(held) == BLOCK_ITEMS or sum(map(byte_size, held)) >= BLOCK_BYTES:
                yield held
                held = []
    if held:
        yield held


def drained(items: list[EncodedItem], width: int) -> pa.Table:
    """Return items as a table and let go of them: a reader holds their bytes no longer than it must."""
    table = pack_rows(items, width)
    items.clear()
    return table


def byte_size(item: EncodedItem) -> int:
    """Return the bytes of an item's members."""
    return sum(map(len, item.members.values()))


class LabelActor:
    """Holds a tracker and labels the items that pass; kept labels are found on disk.

    A learned tracker runs on the GPU that Ray gave this actor, or on the CPU where it gave none.
    """

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._device = "cuda" if ray.get_gpu_ids() else "cpu"

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows with labels, or with the reason why there are none."""
        rows = [unpack_row(row) for row in batch.to_pylist()]
        try:
            reader = _reader(self._config, self._device)
            rows = [reader.label(row) for row in rows]
        except ShardError as error:
            rows = [replace(row, fatal=row.fatal or located(error)) for row in rows]
        for name, column in outcome_columns(rows).items():  # the members, most of the bytes, stay where they are
            batch = batch.set_column(batch.column_names.index(name), name, column)
        return batch


def located(error: ShardError) -> str:
    """Say on which machine the shards could not be read: on another one they may be fine."""
    return f"{error} (node {ray.util.get_node_ip_address()})"


def pack_rows(items: list[EncodedItem], width: int) -> pa.Table:
    """Put items into an Arrow table.

    Args:
        items: with up to `width` members each.
        width: columns for members.
    """
    members = [[*item.members.values(), *[b""] * (width - len(item.members))] for item in items]
    return pa.table(
        {
            "sample": pa.array([item.sample for item in items], pa.string()),
            "group": pa.array([item.group for item in items], pa.int32()),
            "names": pa.array([json.dumps(list(item.members)) for item in items], pa.string()),
            **outcome_columns(items),
            **{f"member_{place}": binary_column([row[place] for row in members]) for place in range(width)},
        }
    )


def outcome_columns(items: list[EncodedItem]) -> dict[str, pa.Array]:
    """Return the columns that labelling decides."""
    return {
        "labels": binary_column([item.labels for item in items]),
        "damage": pa.array([item.damage for item in items], pa.string()),
        "fatal": pa.array([item.fatal for item in items], pa.string()),
    }


def binary_column(values: list[bytes]) -> pa.Array:
    """Return a column of bytes; a single value, as large items come, is not copied."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.int64)
    data = values[0] if len(values) == 1 else b"".join(values)
    return pa.Array.from_buffers(pa.large_binary(), len(values), [None, pa.py_buffer(ends), pa.py_buffer(data)])


def unpack_row(row: dict[str, Any]) -> EncodedItem:
    """Take an item out of an Arrow row."""
    names = json.loads(row["names"])
    return EncodedItem(
        sample=row["sample"],
        group=row["group"],
        members={name: row[f"member_{place}"] for place, name in enumerate(names)},
        labels=row["labels"],
        damage=row["damage"],
        fatal=row["fatal"],
    )


class Unhurried(ExecutionCallback):
    """Lets Ray Data's control loop, a thread of the trainer's process, rest after every step.

    The loop waits for what the reading tasks have ready. While the trainer is behind, something always is, and the loop
    goes round without end, which takes the interpreter from the thread that decodes.
    """

    def on_execution_step(self, executor: object) -> None:
        """Rest."""
        time.sleep(LOOP_PAUSE_S)


def require_room(config: DataConfig, labeller_gpus: float) -> None:
    """Fail at once, with a sentence, where the stream would wait for ever.

    Raises:
        ClusterError: what the trainers left cannot hold one reader and one labeller.
    """
    needed = {"CPU": config.stream_cpus * (2 if config.computes_labels else 1), "GPU": labeller_gpus}
    give_up = time.monotonic() + ROOM_PATIENCE_S
    while True:
        free = ray.available_resources()
        # A thousandth less is rounding of fractions, not a lack.
        lacking = next((kind for kind, share in needed.items() if free.get(kind, 0.0) < share - 1e-3), None)
        if lacking is None:
            return
        if time.monotonic() > give_up:
            raise ClusterError(
                f"the data stream needs {needed[lacking]:g} free {lacking}s per rank, the cluster has "
                f"{free.get(lacking, 0.0):g}: use fewer trainers, lower data.stream_cpus or data.labeller_gpus, or the "
                "inprocess loader"
            )
        time.sleep(0.2)


@lru_cache(maxsize=2)
def _reader(config: DataConfig, device: str | None = None) -> ItemReader:
    return ItemReader(config, device=device)
