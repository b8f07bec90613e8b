"""The clip stream: one interface for the loader inside the trainer's process and for Ray Data.

Both give the same batches in the same order for the same config, bit for bit: the order is arithmetic (`order`), and
the draws inside an item are seeded by its place in it. `batches(cursor)` therefore goes on exactly where a checkpoint
stopped.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any, Protocol, TypeVar

from animate4d.data.batch import TrainingBatch, collate
from animate4d.data.config import DataConfig
from animate4d.data.order import Cursor
from animate4d.data.reader import ItemReader

Value = TypeVar("Value")


class ClipStream(Protocol):
    """Endless training batches of one rank.

    Attributes:
        skipped: id -> reason of the items that could not be decoded so far.
    """

    skipped: dict[str, str]

    def batches(self, start: Cursor) -> Iterator[tuple[TrainingBatch, Cursor]]:
        """Yield (batch, cursor after it) without end, starting with the step at `start`.

        The cursor is the same on all ranks and may be taken up by another number of ranks, with the same shards and
        config. The iterator is a generator: close it (or drop it) to stop its threads and tasks.

        Raises:
            ShardError: shards are damaged or gone, or too many items cannot be decoded.
        """
        ...


def open_stream(config: DataConfig, *, rank: int = 0, world: int = 1) -> ClipStream:
    """Open the loader that the config names.

    Args:
        config: what to read.
        rank: which of the `world` trainers this one is.
        world: number of trainers.

    Raises:
        ShardError: no index, or shards that do not agree with it.
        ConfigError: the shards cannot give what the config wants.
    """
    if config.loader == "ray":
        # Ray takes seconds to import and the other loader does not need it.
        from animate4d.data.stream import RayStream

        return RayStream(config, rank=rank, world=world)
    return InProcessStream(config, rank=rank, world=world)


class InProcessStream:
    """Reads and decodes in the trainer's process, optionally one batch ahead in a thread."""

    def __init__(self, config: DataConfig, *, rank: int = 0, world: int = 1) -> None:
        self._config, self._rank, self._world = config, rank, world
        self._reader = ItemReader(config, cache_bytes=config.cache_mb * 2**20)
        self.skipped = self._reader.skipped

    @property
    def epoch_items(self) -> int:
        """Items per epoch over all ranks."""
        return self._reader.order.epoch_items

    def batches(self, start: Cursor) -> Iterator[tuple[TrainingBatch, Cursor]]:
        """Yield batches; see `ClipStream.batches`."""
        return prefetched(lambda: self._batches(start), self._config.prefetch)

    def _batches(self, cursor: Cursor) -> Iterator[tuple[TrainingBatch, Cursor]]:
        while True:
            items, cursor = self._reader.order.step(cursor, self._config.batch_size, self._rank, self._world)
            yield collate([self._reader.example(item) for item in items]), cursor


def prefetched(make: Callable[[], Iterator[Value]], depth: int) -> Iterator[Value]:
    """Run a generator in a background thread, at most `depth` values ahead; its exceptions arrive in their turn.

    Closing this iterator closes the generator too and waits for its thread.
    """
    if depth == 0:
        yield from make()
        return
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                ready.put((kind, value), timeout=0.1)
                return

    def work() -> None:
        try:
            with closing(make()) as values:  # type: ignore[type-var]
                for value in values:
                    put("value", value)
                    if stopped.is_set():
                        return
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, who raises it
            put("error", error)
        else:
            put("end", None)

    thread = threading.Thread(target=work, name="clip-stream", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stopped.set()
        thread.join()
