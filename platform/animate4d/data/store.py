"""Members of any sample, in any order, from a folder of shards.

Opening compares every shard's size with the index. A data set that fits the cache is read once, checked by sha256 and
held encoded in memory; a larger one is read member by member at the offsets its tar headers give, which never touches
the views an item does not use (sha256 is then not checked, keys and sizes are).
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from animate4d.core.errors import ShardError
from animate4d.data.split import Split
from animate4d.io.shards import ShardInfo, check_size, iterate_shard, member_of, missing_shard, read_index
from animate4d.io.storage import PatientFile, patiently


class ShardStore:
    """Random access to the samples of a folder.

    Attributes:
        keys: sample keys in index order; a sample's place in it is its number.
    """

    def __init__(
        self, folder: Path, *, cache_bytes: int = 0, keep: Path | None = None, split: Split | None = None
    ) -> None:
        """Open a folder; raises ShardError where index and shards disagree, or nothing is left to read.

        Args:
            folder: of the shards.
            cache_bytes: hold everything in memory where the shards are no larger.
            keep: a list of the keys to use (see `read_keep_list`); the others are as if they were not there.
            split: side of the split by object to use, of the kept samples.
        """
        self.folder = folder
        self._infos = read_index(folder)
        stored = [(key, number) for number, info in enumerate(self._infos) for key in info.keys]
        if not stored:
            raise ShardError(f"{folder} has no samples in its index: build shards first (jobs/build_shards.py)")
        twice, count = Counter(key for key, _ in stored).most_common(1)[0]
        if count > 1:
            raise ShardError(f"{folder} holds sample {twice} twice: build the shards into an empty folder")
        wanted = frozenset(kept_keys([key for key, _ in stored], folder, keep, split))
        self.keys = tuple(key for key, _ in stored if key in wanted)
        self._shards = [number for key, number in stored if key in wanted]
        for info in self._infos:
            check_size(folder / info.name, info)
        self._offsets: dict[int, dict[str, dict[str, tuple[int, int]]]] = {}
        self._cache: dict[str, dict[str, bytes]] | None = None
        if sum(info.bytes for info in self._infos) <= cache_bytes:
            self._cache = {}
            for info in self._infos:
                self._cache.update(pair for pair in iterate_shard(folder / info.name, info) if pair[0] in wanted)
            self._check_keys(self._cache)

    @property
    def in_memory(self) -> bool:
        """Whether all samples are held in memory, checked."""
        return self._cache is not None

    @property
    def sample_bytes(self) -> int:
        """Size of a sample in the shard where they are largest, on average."""
        return max(info.bytes // info.samples for info in self._infos if info.samples)

    def read(self, sample: int, members: Sequence[str]) -> dict[str, bytes]:
        """Return those of the wanted members that sample number `sample` has.

        Raises:
            StorageError: its shard has gone, or cannot be read.
            ShardError: its shard was cut or changed since the index was written.
        """
        key = self.keys[sample]
        if self._cache is not None:
            held = self._cache[key]
            return {name: held[name] for name in members if name in held}
        shard = self._shards[sample]
        info = self._infos[shard]
        path = self.folder / info.name
        try:
            if shard not in self._offsets:
                self._offsets[shard] = _member_offsets(path, info)
            offsets = self._offsets[shard][key]
            wanted = {name: offsets[name] for name in members if name in offsets}
            picked = patiently(lambda: _pick(path, wanted))
        except OSError as error:
            raise missing_shard(path, error) from error
        cut = next((name for name, (_, size) in wanted.items() if len(picked[name]) != size), None)
        if cut is not None:
            raise ShardError(f"{path} was cut while in use: {key}.{cut} is incomplete")
        return picked

    def _check_keys(self, found: dict[str, dict[str, bytes]]) -> None:
        missing = next((key for key in self.keys if key not in found), None)
        if missing is not None:
            raise ShardError(f"{self.folder}: the index names sample {missing}, which no shard holds: build them again")


def kept_keys(stored: Sequence[str], folder: Path, keep: Path | None, split: Split | None) -> list[str]:
    """Return the samples of a folder that a keep list and a side of the split leave, in stored order.

    Raises:
        ShardError: the list is unreadable, of other shards or empty, or the side of the split is.
    """
    wanted = frozenset(stored) if keep is None else read_keep_list(keep, folder, dict.fromkeys(stored))
    keys = [key for key in stored if key in wanted]
    if split is None:
        return keys
    chosen = split.choose(keys)
    if not chosen:
        raise ShardError(f"{folder} has too few objects to hold out {split.share:.0%} of them: none is left to read")
    return chosen


def read_keep_list(path: Path, folder: Path, stored: Mapping[str, object]) -> frozenset[str]:
    """Read which samples of a folder to use: one key per line; empty lines and what follows a # are left out.

    Raises:
        ShardError: unreadable, empty, or it names a sample that the folder does not hold.
    """
    try:
        lines = patiently(path.read_bytes, expected=False).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"{path}: cannot be read as a list of samples to keep ({error})") from error
    words = [line.partition("#")[0].strip() for line in lines]
    for number, key in enumerate(words, start=1):
        if key and key not in stored:
            raise ShardError(f"{path} line {number}: {folder} holds no sample {key}: the list is of other shards")
    kept = frozenset(key for key in words if key)
    if not kept:
        raise ShardError(f"{path} keeps no sample of {folder}: curate with milder thresholds")
    return kept


def _pick(path: Path, places: Mapping[str, tuple[int, int]]) -> dict[str, bytes]:
    """Return what stands at some (offset, size) of a file, in one go: a thread per member would cost too much."""
    picked = {}
    with open(path, "rb") as file:
        for name, (start, size) in places.items():
            file.seek(start)
            picked[name] = file.read(size)
    return picked


def _member_offsets(path: Path, info: ShardInfo) -> dict[str, dict[str, tuple[int, int]]]:
    """Return key -> member -> (offset, size) of one shard, read from its headers only."""
    check_size(path, info)
    offsets: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with PatientFile(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
            for entry in tar:
                key, member = member_of(path, entry)
                if key in offsets and key != next(reversed(offsets)):
                    raise ShardError(f"{path}: the members of sample {key} are not side by side: build it again")
                members = offsets.setdefault(key, {})
                if member in members:
                    raise ShardError(f"{path} holds {entry.name} twice: build it again")
                members[member] = (entry.offset_data, entry.size)
    except tarfile.TarError as error:
        raise ShardError(f"{path} is damaged ({error}): copy or build it again") from error
    if tuple(offsets) != info.keys:
        raise ShardError(
            f"{path} holds {len(offsets)} samples, its index names {info.samples}, or they differ: build it again"
        )
    return offsets
