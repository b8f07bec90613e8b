"""What Ray's reading tasks hold, and what the object store spills, while large samples go through the stream.

A reader's memory is its anonymous memory (RssAnon: heap, Arrow's pool, everything that belongs to no file), sampled
from outside every two milliseconds. Pages of the object store are shared and no part of it; the store has a size of its
own. What a reader of tiny samples holds (interpreter, imports, Ray's worker) is taken off.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from animate4d.bench.stream.shards import noise_shards, stream_config
from animate4d.compute.session import object_store_bytes, ray_session, spilled_bytes
from animate4d.data.order import Cursor
from animate4d.data.stream import RayStream

READER_TITLE = b"ray::MapBatches(read_orders)"
"""What Ray calls a process while it runs our reading task."""

PERIOD_S = 0.002
TINY_BYTES = 50_000
TINY_STEPS = 40
BATCH = 2


@dataclass(slots=True)
class Readers:
    """Peak anonymous memory of every reading process seen, bytes by process id."""

    peaks: dict[int, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Largest peak.

        Raises:
            RuntimeError: no reading process was seen.
        """
        if not self.peaks:
            raise RuntimeError("no reading process was seen: Ray names its tasks otherwise")
        return max(self.peaks.values())


@contextmanager
def watched_readers() -> Iterator[Readers]:
    """Sample the reading processes of this machine for the duration of a block."""
    readers, ended = Readers(), threading.Event()

    def watch() -> None:
        known: list[Path] = []
        looked = 0.0
        while not ended.wait(PERIOD_S):
            if time.monotonic() - looked > 0.05:
                known, looked = reading_processes(), time.monotonic()
            for process in known:
                if held := anonymous_bytes(process):
                    readers.peaks[int(process.name)] = max(held, readers.peaks.get(int(process.name), 0))

    thread = threading.Thread(target=watch, name="watch-readers", daemon=True)
    thread.start()
    try:
        yield readers
    finally:
        ended.set()
        thread.join()


def reading_processes() -> list[Path]:
    """Return the /proc folders of the processes below this one that run our reading task now."""
    found: list[Path] = []
    parents: dict[int, int] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it has ended
                parents[int(process.name)] = parent(process)
                if (process / "cmdline").read_bytes().startswith(READER_TITLE):
                    found.append(process)
    return [process for process in found if os.getpid() in ancestors(int(process.name), parents)]


def parent(process: Path) -> int:
    """Return the id of a process' parent: the second word after the name, which may hold spaces and brackets."""
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


def ancestors(process: int, parents: Mapping[int, int]) -> Iterator[int]:
    """Yield the ids of a process' parent, its parent, and so on: another job's readers are no matter of ours."""
    while process in parents:
        process = parents[process]
        yield process


def anonymous_bytes(process: Path) -> int:
    """Return a process' anonymous memory, 0 if it has ended."""
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def measure_large_samples(folder: Path, *, sample_bytes: int, steps: int, store_bytes: int) -> dict[str, Any]:
    """Stream large samples through an object store of a given size; the trainer's part is decoding.

    Args:
        folder: for the shards.
        sample_bytes: size of a sample, all of whose views go into one item.
        steps: batches of two.
        store_bytes: of the object store of a private cluster.
    """
    clips = min(2 * BATCH, steps * BATCH)
    tiny = stream_config(noise_shards(folder / "tiny", 8, TINY_BYTES), BATCH)
    large = stream_config(noise_shards(folder / "large", clips, sample_bytes), BATCH)
    sizes = [entry.stat().st_size for entry in (folder / "large").glob("shard-*.tar")]
    with ray_session(private=True, object_store=store_bytes):
        before = spilled_bytes()
        peaks, target = [], 0
        for config, count in ((tiny, TINY_STEPS), (large, steps)):
            stream = RayStream(replace(config, loader="ray", size=16))
            target = stream.target_block_bytes
            with (
                watched_readers() as readers,
                closing(cast(Generator[Any, None, None], stream.batches(Cursor()))) as batches,
            ):
                for _ in islice(batches, count):
                    pass
            peaks.append(readers.peak)
        base, peak = peaks
        return {
            "sample_bytes": sum(sizes) // clips,
            "streamed_bytes": sum(sizes) // clips * steps * BATCH,
            "target_block_bytes": target,
            "store_bytes": object_store_bytes(),
            "spilled_bytes": spilled_bytes() - before,
            "reader_base_bytes": base,
            "reader_peak_bytes": peak,
            "reader_bytes": peak - base,
        }
