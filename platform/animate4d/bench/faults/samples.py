"""Faults of single samples (D23, D25, D27): skipped by name up to a limit, never trained on, never dropped quietly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from animate4d.bench.faults.scenario import Account, Scenario, Watch, scenario, worst
from animate4d.bench.faults.shards import READERS
from animate4d.bench.faults.workbench import (
    ITEMS,
    START,
    VIEWS,
    Item,
    Workbench,
    data_config,
    differences,
    read_items,
    read_steps,
)
from animate4d.core.errors import ShardError
from animate4d.data.config import DataConfig
from animate4d.data.loader import open_stream
from animate4d.io.arrays import pack_arrays

Members = dict[str, bytes]

READER_LOG = "animate4d.data.reader"


@contextmanager
def skips_noticed(watch: Watch) -> Iterator[None]:
    """Note the first warning about a skipped item, and keep the warnings to ourselves."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            watch.detected(record.getMessage())

    listener, log = Listener(), logging.getLogger(READER_LOG)
    log.addHandler(listener)
    before, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.propagate = before
        log.removeHandler(listener)


def one_item_skipped(bench: Workbench, name: str, spoil: Callable[[Members], Members]) -> Account:
    """Spoil one picture of one sample; that item must be skipped by name and all others arrive unchanged."""
    folder = bench.write_shards(name, damage=spoil)
    return worst([count_skips(bench, data_config(folder, **reader)) for reader in READERS])


def count_skips(bench: Workbench, config: DataConfig) -> Account:
    """Read one epoch in which one item must be skipped."""
    watch = Watch()
    stream = open_stream(config)
    found: list[Item] = []
    with skips_noticed(watch):
        for step in read_steps(stream, START, ITEMS // config.batch_size):
            found += step
            if watch.detected_s is None:
                watch.start()  # the fault is met in the step that notices it
            elif watch.recovered_s is None:
                watch.recovered()
    named = set(stream.skipped)
    silent = differences(bench.epoch, found, named) + sum(item in named for item, _ in found)
    return watch.account(lost=len(named), silent=silent)


@scenario(
    "D23",
    "sample without one of its pictures",
    then="that item is skipped, named and counted; another one takes its place",
    unit="items",
    most_lost=1,
    says=("skipped", "/3", "view_03.webp is missing"),
)
def d23(bench: Workbench) -> Account:
    """Leave out one view."""
    return one_item_skipped(bench, "d23", lambda members: without(members, "view_03.webp"))


@scenario(
    "D23-tracks",
    "sample without its tracks",
    then="refused by name; goes on with a tracker that labels",
    unit="items",
    says=("tracks.npz", "--tracker opencv-lk"),
)
def d23_tracks(bench: Workbench) -> Account:
    """Leave out the exact tracks: training without them would drop a term of the loss for this clip."""
    folder = bench.write_shards("d23-tracks", damage=lambda members: without(members, "tracks.npz"))
    watch = Watch()
    found: list[Item] = []
    with watch.expecting(ShardError):
        for step in read_steps(open_stream(data_config(folder)), START, ITEMS):
            found += step
            watch.start()
    silent = differences(bench.epoch[: len(found)], found) + (bench.victim not in watch.message)
    labelled = data_config(folder, tracker="opencv-lk", view_groups="one")  # labels for one view of each clip
    names = {name.partition("/")[0] for name, _ in read_items(labelled, items=len(bench.members))}
    watch.recovered()
    return watch.account(lost=0, silent=silent + len(names.symmetric_difference(bench.members)))


def without(members: Members, name: str) -> Members:
    """Return members without one of them."""
    return {other: data for other, data in members.items() if other != name}


def spoil_picture(members: Members) -> Members:
    """Replace one view by bytes that begin like a picture and are none."""
    return members | {"view_03.webp": b"RIFF____WEBPVP8L" + bytes(64)}


@scenario(
    "D25",
    "picture that cannot be decoded, in the middle of a shard",
    then="that item is skipped, named and counted; its neighbours arrive",
    unit="items",
    most_lost=1,
    says=("skipped", "/3", "view_03.webp"),
)
def d25(bench: Workbench) -> Account:
    """Spoil one view."""
    return one_item_skipped(bench, "d25", spoil_picture)


@scenario(
    "D25-ray",
    "the same through Ray Data",
    then="as in the process",
    unit="items",
    most_lost=1,
    says=("skipped", "/3", "view_03.webp"),
    needs_ray=True,
)
def d25_ray(bench: Workbench) -> Account:
    """Spoil one view, read by Ray's tasks."""
    return count_skips(bench, data_config(bench.write_shards("d25", damage=spoil_picture), loader="ray", batch_size=4))


@scenario(
    "D27",
    "label of another shape or type, or not finite",
    then="skipped by name, and above 1 % stopped; goes on with the clip left out by --keep-list",
    unit="items",
    most_lost=VIEWS,
    says=("tracks.npz", "limit 1%", "--keep-list"),
)
def d27(bench: Workbench) -> Account:
    """Spoil the tracks of one clip, a part of its eight items: 7 % of these data."""
    shape = (VIEWS, 8, 5)
    xy, seen, name = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.uint8), np.zeros(1, np.uint8)
    wrong = (xy[1:], xy.astype(np.float64), xy * np.nan)
    spoiled = [pack_arrays({"xy": values, "visible": seen, "tracker": name}) for values in wrong]
    return worst([stopped_until_left_out(bench, {"tracks.npz": data}) for data in spoiled])


def stopped_until_left_out(bench: Workbench, changed: Members) -> Account:
    """Change members of one sample so that all its items are damaged; training must stop, and go on without it."""
    folder = bench.write_shards("d27", damage=lambda members: members | changed)
    stream = open_stream(data_config(folder))
    watch = Watch()
    found: list[Item] = []
    with skips_noticed(Watch()), watch.expecting(ShardError):
        for step in read_steps(stream, START, ITEMS):
            found += step
            watch.start()
    named = [item for item in stream.skipped if item.startswith(f"{bench.victim}/")]
    silent = differences(bench.epoch[: len(found)], found, named) + (bench.victim not in watch.message)
    keep = folder.parent / "keep.txt"
    keep.write_text("\n".join(key for key in bench.members if key != bench.victim))
    names = [name for name, _ in read_items(data_config(folder, keep=keep), items=ITEMS - VIEWS)]
    watch.recovered()
    wanted = {name for name, _ in bench.epoch if not name.startswith(f"{bench.victim}/")}
    return watch.account(lost=ITEMS - len(names), silent=silent + len(wanted.symmetric_difference(names)))


SCENARIOS: tuple[Scenario, ...] = (d23, d23_tracks, d25, d25_ray, d27)
