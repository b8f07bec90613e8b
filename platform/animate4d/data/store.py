"""Members of any sample, in any order, from a folder of shards.

Opening compares every shard's size with the index. A data set that fits the cache is read once, checked by sha256 and
held encoded in memory; a larger one is read member by member at the offsets its tar headers give, which never touches
the views an item does not use (sha256 is then not checked, keys and sizes are).
"""

from __future__ import annotations

import tarfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from animate4d.core.errors import ShardError
from animate4d.io.shards import ShardInfo, iterate_shard, member_of, read_index

READ_ATTEMPTS = 3
READ_PAUSE_S = 0.5
"""Shared file systems lose a file for a moment when a server moves; a second is enough to tell that from a deletion."""


Value = TypeVar("Value")


class ShardStore:
    """Random access to the samples of a folder.

    Attributes:
        keys: sample keys in index order; a sample's place in it is its number.
    """

    def __init__(self, folder: Path, *, cache_bytes: int = 0) -> None:
        """Open a folder; raises ShardError where index and shards disagree."""
        self.folder = folder
        self._infos = read_index(folder)
        self.keys = tuple(key for info in self._infos for key in info.keys)
        if not self.keys:
            raise ShardError(f"{folder} has no samples in its index: build shards first (jobs/build_shards.py)")
        twice, count = Counter(self.keys).most_common(1)[0]
        if count > 1:
            raise ShardError(f"{folder} holds sample {twice} twice: build the shards into an empty folder")
        self._starts = [0]
        for info in self._infos:
            _check_size(folder, info)
            self._starts.append(self._starts[-1] + len(info.keys))
        self._offsets: dict[int, dict[str, dict[str, tuple[int, int]]]] = {}
        self._cache: dict[str, dict[str, bytes]] | None = None
        if sum(info.bytes for info in self._infos) <= cache_bytes:
            self._cache = {}
            for info in self._infos:
                self._cache.update(iterate_shard(folder / info.name, info))
            self._check_keys(self._cache)

    def read(self, sample: int, members: Sequence[str]) -> dict[str, bytes]:
        """Return those of the wanted members that sample number `sample` has.

        Raises:
            ShardError: its shard has gone, was cut or changed since the index was written.
        """
        key = self.keys[sample]
        if self._cache is not None:
            held = self._cache[key]
            return {name: held[name] for name in members if name in held}
        shard = bisect_right(self._starts, sample) - 1
        return _patiently(self.folder / self._infos[shard].name, lambda: self._pick(shard, key, members))

    def _pick(self, shard: int, key: str, members: Sequence[str]) -> dict[str, bytes]:
        info = self._infos[shard]
        if shard not in self._offsets:
            self._offsets[shard] = _member_offsets(self.folder / info.name, info)
        offsets = self._offsets[shard][key]
        picked = {}
        with open(self.folder / info.name, "rb") as file:
            for name in members:
                if name in offsets:
                    start, size = offsets[name]
                    file.seek(start)
                    picked[name] = file.read(size)
                    if len(picked[name]) != size:
                        raise ShardError(f"{self.folder / info.name} was cut while in use: {key}.{name} is incomplete")
        return picked

    def _check_keys(self, found: dict[str, dict[str, bytes]]) -> None:
        missing = next((key for key in self.keys if key not in found), None)
        if missing is not None:
            raise ShardError(f"{self.folder}: the index names sample {missing}, which no shard holds: build them again")


def _check_size(folder: Path, info: ShardInfo) -> None:
    path = folder / info.name
    size = _patiently(path, lambda: path.stat().st_size)
    if size != info.bytes:
        raise ShardError(f"{path} has {size} bytes, its index says {info.bytes}: copy or build it again")


def _member_offsets(path: Path, info: ShardInfo) -> dict[str, dict[str, tuple[int, int]]]:
    """Return key -> member -> (offset, size) of one shard, read from its headers only."""
    _check_size(path.parent, info)
    offsets: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                key, member = member_of(path, entry)
                offsets.setdefault(key, {})[member] = (entry.offset_data, entry.size)
    except tarfile.TarError as error:
        raise ShardError(f"{path} is damaged ({error}): copy or build it again") from error
    if tuple(offsets) != info.keys:
        raise ShardError(
            f"{path} holds {len(offsets)} samples, its index names {info.samples}, or they differ: build it again"
        )
    return offsets


def _patiently(path: Path, read: Callable[[], Value]) -> Value:
    for attempt in range(READ_ATTEMPTS):
        try:
            return read()
        except OSError as error:
            if attempt == READ_ATTEMPTS - 1:
                raise ShardError(
                    f"{path} is in the index but cannot be read ({error.strerror}): put it back or build it again"
                ) from error
            time.sleep(READ_PAUSE_S)
    raise AssertionError("the last attempt returns or raises")
