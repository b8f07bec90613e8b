"""Faults of whole shards (D21, D22, D24, D26, D28, D29, storage): what they do to the stream that feeds training."""

from __future__ import annotations

import os
import pickle
import shutil
import tarfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from animate4d.bench.faults.scenario import Account, Scenario, Watch, scenario, worst
from animate4d.bench.faults.workbench import (
    ITEMS,
    START,
    Item,
    Workbench,
    data_config,
    differences,
    read_items,
    read_steps,
)
from animate4d.core.errors import ShardError
from animate4d.data.loader import open_stream
from animate4d.data.order import Cursor
from animate4d.io.shards import describe, read_index, save_index

SHARD = "shard-000001.tar"
"""The one that is damaged: neither the first nor the last."""

READERS: tuple[dict[str, Any], ...] = ({"cache_mb": 1024}, {"cache_mb": 0})
"""Data sets held in memory, and those read member by member."""

Spoil = Callable[[Path], object]
"""Damages the shard that it is given."""


def refused_until_mended(bench: Workbench, name: str, spoils: Sequence[Spoil], **changes: Any) -> Account:
    """Damage a shard in several ways, one after the other; each must be refused, and the mended data go through.

    Args:
        bench: where.
        name: of the scenario.
        spoils: the ways.
        **changes: settings of the stream.
    """
    folder = bench.copy_shards(name)
    config = data_config(folder, **changes)
    accounts = []
    for spoil in spoils:
        spoil(folder / SHARD)
        watch = Watch()
        found: list[Item] = []
        with watch.expecting(ShardError):
            for step in read_steps(open_stream(config), START, ITEMS):
                found += step
        silent = differences(bench.epoch[: len(found)], found) if watch.detected_s else ITEMS
        for file in (SHARD, "index.json"):
            shutil.copyfile(bench.shards / file, folder / file)
        accounts.append(watch.account(lost=0, silent=silent))
    again = read_items(config, items=1)
    watch.recovered()  # like every other way: all end in the same mended shard
    again += read_items(config, Cursor(0, 1), ITEMS - 1)
    silent = sum(account.silent for account in accounts) + differences(bench.epoch, again)
    return replace(worst(accounts), recovered_s=watch.recovered_s, silent=silent)


def entries(path: Path) -> list[tarfile.TarInfo]:
    """Return a shard's members."""
    with tarfile.open(path) as tar:
        return tar.getmembers()


def cut(size: int) -> Spoil:
    """Return what cuts a shard to a size."""
    return lambda path: os.truncate(path, size)


@scenario(
    "D21",
    "shard cut between two members",
    then="refused before the first sample; goes on when the shard is copied again",
    says=(SHARD, "bytes", "again"),
)
def d21(bench: Workbench) -> Account:
    """Cut before each member: all of these read silently as a shorter tar."""
    cuts = [cut(member.offset) for member in entries(bench.shards / SHARD)[1:]]
    return worst([refused_until_mended(bench, "d21", cuts, **reader) for reader in READERS])


@scenario(
    "D22",
    "shard cut inside a member's data or header, or to nothing",
    then="refused before the first sample; goes on when the shard is copied again",
    says=(SHARD, "bytes", "again"),
)
def d22(bench: Workbench) -> Account:
    """Cut inside each member."""
    members = entries(bench.shards / SHARD)
    inside = [cut(member.offset_data + member.size // 2) for member in members]
    headers = [cut(member.offset + 100) for member in members]
    return worst([refused_until_mended(bench, "d22", [cut(0), *inside, *headers], **reader) for reader in READERS])


@scenario(
    "D24",
    "members of a sample not side by side",
    then="refused; goes on when the shard is built again",
    says=(SHARD, "side by side", "again"),
)
def d24(bench: Workbench) -> Account:
    """Move one member of the first sample to the end, with an index that agrees."""

    def scatter(path: Path) -> None:
        first, second, *rest = contents_of(path)
        rewrite(path, [first, *rest, second])

    return worst([refused_until_mended(bench, "d24", [scatter], **reader) for reader in READERS])


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@scenario(
    "D26",
    "shard with a pickle that would run code",
    then="refused unopened; goes on when the shard is built again",
    says=(SHARD, "labels.pkl", "not opened", "again"),
)
def d26(bench: Workbench) -> Account:
    """Add a pickle to a sample, as a foreign tool might, with an index that agrees."""
    canary = bench.folder / "canary"

    def poison(path: Path) -> None:
        first, *rest = contents_of(path)
        key = first[0].partition(".")[0]
        rewrite(path, [first, (f"{key}.labels.pkl", pickle.dumps(Canary(canary))), *rest])

    account = worst([refused_until_mended(bench, "d26", [poison], **reader) for reader in READERS])
    return replace(account, silent=account.silent + canary.exists())


def contents_of(path: Path) -> list[tuple[str, bytes]]:
    """Return a tar's members with their bytes."""
    with tarfile.open(path) as tar:
        return [(entry.name, tar.extractfile(entry).read()) for entry in tar]  # type: ignore[union-attr]


def rewrite(path: Path, contents: list[tuple[str, bytes]]) -> None:
    """Write a shard anew and make its index agree: what is inside must be refused for itself."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in contents:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, BytesIO(data))
    infos = read_index(path.parent)
    save_index(
        path.parent, [describe(path, info.name, info.keys) if info.name == path.name else info for info in infos]
    )


@scenario(
    "D28",
    "shard deleted while the epoch runs",
    then="tried again for a while, then refused; goes on from the same place when it is back",
    says=(SHARD, "put", "back"),
)
def d28(bench: Workbench) -> Account:
    """Take a shard away after the first step."""
    config = data_config(bench.copy_shards("d28"), cache_mb=0)
    watch = Watch()
    found: list[Item] = []
    with watch.expecting(ShardError):
        for number, step in enumerate(read_steps(open_stream(config), START, ITEMS)):
            found += step
            if number == 0:
                (config.shards / SHARD).unlink()
                watch.start()
    shutil.copyfile(bench.shards / SHARD, config.shards / SHARD)
    rest = read_items(config, Cursor(0, len(found)), ITEMS - len(found))
    watch.recovered()
    return watch.account(lost=0, silent=differences(bench.epoch, [*found, *rest]))


@scenario(
    "storage",
    "storage that stalls, then fails, then comes back",
    then="tried again until it answers; nothing to do",
)
def storage(bench: Workbench) -> Account:
    """Put a pipe in a shard's place: reading it hangs, and then fails because a pipe has no places to go to."""
    folder = bench.copy_shards("storage")
    shard, aside = folder / SHARD, folder / "aside"

    def come_back() -> None:
        with suppress(OSError):  # whoever waits for the pipe's other end goes on and meets the error
            os.close(os.open(shard, os.O_WRONLY | os.O_NONBLOCK))
        shard.unlink()
        aside.rename(shard)

    watch = Watch()
    found: list[Item] = []
    for number, step in enumerate(read_steps(open_stream(data_config(folder, cache_mb=0)), START, ITEMS)):
        found += step
        if number == ITEMS // 2:  # by then the headers of all shards were read
            shard.rename(aside)
            os.mkfifo(shard)
            back = threading.Timer(0.5, come_back)
            back.start()
            watch.start()
    back.join()
    watch.recovered()
    return watch.account(lost=0, silent=differences(bench.epoch, found))


@scenario(
    "D29",
    "fewer shards than workers",
    then="every item once, as many steps on every rank; nothing to do",
)
def d29(bench: Workbench) -> Account:
    """Four ranks on one shard."""
    folder, world = bench.write_shards("d29", per_shard=1000), 4
    assert len(read_index(folder)) == 1
    watch = Watch()
    config = data_config(folder)
    ranks = [
        list(read_steps(open_stream(config, rank=rank, world=world), START, ITEMS // world)) for rank in range(world)
    ]
    watch.recovered()
    together = [item for step in zip(*ranks, strict=True) for items in step for item in items]
    return watch.account(lost=0, silent=differences(bench.epoch, together))


SCENARIOS: tuple[Scenario, ...] = (d21, d22, d24, d26, d28, d29, storage)
