"""WebDataset shards: plain tar files whose members are `<key>.<member>`, beside an `index.json`.

A tar that was cut between two members reads silently as a shorter one, so the index keeps sample count, byte size and
sha256 of every shard and reading checks all three. Only the member types written here are accepted; keys have no dots.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from animate4d.core.errors import ShardError, StorageError
from animate4d.core.hashing import hash_file
from animate4d.io.atomic import sync_file, sync_folder, temporary_name, write_json
from animate4d.io.storage import PatientFile, patiently, unreadable

INDEX_NAME = "index.json"
INDEX_SCHEMA = 1
MEMBER = re.compile(r"meta\.json|view_\d{2,3}\.webp|(tracks|flow|latents)\.npz")
KEY = re.compile(r"[a-z0-9_-]{1,160}")
SHARD = re.compile(r"shard-(\d{6})\.tar")
END_BYTES = 2 * tarfile.BLOCKSIZE
"""Zeros at the end of a tar. A member cut off before them ends in at most one block of padding."""
MAX_MEMBER_BYTES = 256 * 1024**2
"""A 16-frame strip at 512 px is about 8 MB; anything near this limit is not a sample of ours."""

READ_BYTES = 2**20
"""Read at a time from a shard that is read through."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """What the index knows about one shard.

    Attributes:
        name: file name inside the folder.
        samples: number of samples.
        bytes: file size.
        sha256: of the file, hex.
        keys: sample keys in the order they are stored.
    """

    name: str
    samples: int
    bytes: int
    sha256: str
    keys: tuple[str, ...]


class ShardWriter:
    """Append samples to a folder of shards.

    A shard gets its final name only when it is complete, and enters the index right after; numbering continues after
    the shards that are there. Use as a context manager: a block that raises leaves the unfinished shard out.
    """

    def __init__(self, folder: Path, max_samples: int = 32) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.max_samples = max_samples
        self._infos = refresh_index(folder)
        self._keys: list[str] = []
        self._tar: tarfile.TarFile | None = None
        self._temporary: Path | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        elif self._tar is not None and self._temporary is not None:
            self._tar.close()
            self._temporary.unlink(missing_ok=True)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Keys written since the last complete shard; a crash now would lose them."""
        return tuple(self._keys)

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Add one sample; completes the shard when it is full."""
        if self._tar is None:
            self._temporary = temporary_name(self.folder / "shard.tar")
            self._tar = tarfile.open(self._temporary, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - open over calls
        add_sample(self._tar, key, members)
        self._keys.append(key)
        if len(self._keys) >= self.max_samples:
            self.close()

    def close(self) -> None:
        """Complete the open shard, if any, and write the index."""
        if self._tar is not None and self._temporary is not None:
            self._tar.close()
            sync_file(self._temporary)
            number = max((int(info.name[6:12]) for info in self._infos), default=-1) + 1
            name = f"shard-{number:06d}.tar"
            info = describe(self._temporary, name, tuple(self._keys))
            self._temporary.rename(self.folder / name)
            sync_folder(self.folder)
            self._infos.append(info)
            self._tar, self._temporary, self._keys = None, None, []
        save_index(self.folder, self._infos)


def write_samples(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> list[str]:
    """Write one tar of samples outside any index; it appears whole, or not at all when there are none.

    Returns:
        The keys written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, keys = temporary_name(path), []
    try:
        with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
            for key, members in samples:
                add_sample(tar, key, members)
                keys.append(key)
        if keys:
            sync_file(temporary)
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return keys


def add_sample(tar: tarfile.TarFile, key: str, members: Mapping[str, bytes]) -> None:
    """Append one sample to an open tar; names are checked because readers would refuse others."""
    if not KEY.fullmatch(key):
        raise ValueError(f"sample key {key!r}: use a-z, 0-9, '-' and '_' only")
    for member, data in members.items():
        if not MEMBER.fullmatch(member):
            raise ValueError(f"member {member!r} of sample {key} is not a type that shards hold")
        entry = tarfile.TarInfo(f"{key}.{member}")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))


def read_index(folder: Path) -> list[ShardInfo]:
    """Read `index.json`.

    Raises:
        ShardError: the folder has no readable index, or the index names something that is not a shard.
    """
    path = folder / INDEX_NAME
    try:
        content = json.loads(patiently(path.read_bytes, expected=False))
        infos = [ShardInfo(**{**entry, "keys": tuple(entry["keys"])}) for entry in content["shards"]]
    except FileNotFoundError as error:
        raise ShardError(f"{path} is missing: give a folder made by jobs/build_shards.py") from error
    except OSError as error:
        raise unreadable(path, error, "check the storage and the path") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ShardError(f"{path} is not an index of shards ({error}): build the shards again") from error
    if content.get("schema") != INDEX_SCHEMA:
        raise ShardError(f"{path} has schema {content.get('schema')!r}, this version reads {INDEX_SCHEMA}")
    for info in infos:
        if not SHARD.fullmatch(info.name):
            raise ShardError(f"{path} names {info.name!r}, which is not a shard file name")
    return infos


def write_index(folder: Path) -> list[ShardInfo]:
    """Rebuild `index.json` from the complete shards in a folder, reading only those it does not know yet."""
    infos = refresh_index(folder)
    save_index(folder, infos)
    return infos


def iterate_shard(path: Path, info: ShardInfo | None = None) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, member -> bytes) of one shard, one sample in memory at a time.

    Args:
        path: the tar file.
        info: its index entry; then size is checked before the first sample, count and sha256 after the last.

    Raises:
        ShardError: damaged, shorter than indexed, foreign member types, or members of a sample not side by side.
        StorageError: missing although indexed, or its storage fails.
    """
    if info is not None:
        check_size(path, info)
    seen: set[str] = set()
    try:
        with PatientFile(path) as file:
            stream = HashingReader(file)
            with tarfile.open(fileobj=stream, mode="r|", bufsize=READ_BYTES) as tar:  # type: ignore[call-overload]
                key, members = "", dict[str, bytes]()
                for entry in tar:
                    found, member = member_of(path, entry)
                    if found != key:
                        if key:
                            yield key, members
                        if found in seen:
                            raise ShardError(
                                f"{path}: the members of sample {found} are not side by side: build it again"
                            )
                        seen.add(found)
                        key, members = found, {}
                    if member in members:
                        raise ShardError(f"{path} holds {entry.name} twice: build it again")
                    body = tar.extractfile(entry)
                    members[member] = body.read() if body else b""
                    if len(members[member]) != entry.size:
                        raise ShardError(f"{path}: {entry.name} is cut short: copy or build the shard again")
                if key:
                    yield key, members
            digest = stream.finish()
    except OSError as error:
        raise missing_shard(path, error) if info else unreadable(path, error, "check the storage") from error
    except tarfile.TarError as error:
        raise ShardError(f"{path} is damaged ({error}): copy or build it again") from error
    if info is not None and len(seen) != info.samples:
        raise ShardError(f"{path} has {len(seen)} samples, its index says {info.samples}: copy or build it again")
    if info is not None and digest != info.sha256:
        raise ShardError(f"{path} does not match the sha256 in its index: copy or build it again")


class HashingReader:
    """A binary stream that hashes what is read from it."""

    def __init__(self, stream: PatientFile) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Read and hash."""
        data = self._stream.read(size)
        self._digest.update(data)
        return data

    def finish(self) -> str:
        """Hash what is left (a tar ends in padding that its reader does not touch) and return the hex digest."""
        while self.read(READ_BYTES):
            pass
        return self._digest.hexdigest()


def missing_shard(path: Path, error: OSError) -> StorageError:
    """Return the named error of a shard that the index knows and the storage does not give."""
    return unreadable(f"{path} is in the index but", error, "check the storage, put it back or build it again")


def check_size(path: Path, info: ShardInfo) -> None:
    """Compare a shard's size with its index entry.

    Raises:
        StorageError: the file is not there, or its storage does not answer.
        ShardError: the sizes differ.
    """
    try:
        size = patiently(lambda: path.stat().st_size)
    except OSError as error:
        raise missing_shard(path, error) from error
    if size != info.bytes:
        raise ShardError(f"{path} has {size} bytes, its index says {info.bytes}: copy or build it again")


def member_of(path: Path, entry: tarfile.TarInfo) -> tuple[str, str]:
    """Split a tar entry's name into key and member type, refusing everything that we do not write.

    Links and sparse files too: their bytes do not stand in the tar as their size says.
    """
    key, _, member = entry.name.partition(".")
    ours = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not entry.issparse()
    if not ours or not KEY.fullmatch(key) or not MEMBER.fullmatch(member):
        raise ShardError(
            f"{path} holds {entry.name!r}, which is not a member of our shards; such files are not opened: "
            "build it again"
        )
    if entry.size > MAX_MEMBER_BYTES:
        raise ShardError(f"{path}: {entry.name} claims {entry.size} bytes, more than the limit of {MAX_MEMBER_BYTES}")
    return key, member


def describe(path: Path, name: str, keys: tuple[str, ...]) -> ShardInfo:
    """Make the index entry of a complete tar file."""
    return ShardInfo(name=name, samples=len(keys), bytes=path.stat().st_size, sha256=hash_file(path), keys=keys)


def refresh_index(folder: Path) -> list[ShardInfo]:
    """Return entries for the shards that are in the folder now; those that the index does not know yet are read.

    Raises:
        ShardError: a shard is not what its index says, or one that the index does not know was cut: a run that goes on
            would take what is left of it for all there ever was.
    """
    known = {info.name: info for info in read_index(folder)} if (folder / INDEX_NAME).exists() else {}
    infos = []
    for path in sorted(folder.glob("shard-*.tar")):
        if not SHARD.fullmatch(path.name):
            continue
        info = known.get(path.name)
        if info is None:
            check_end(path)
            info = describe(path, path.name, tuple(key for key, _ in iterate_shard(path)))
        elif info.bytes != path.stat().st_size:
            raise ShardError(
                f"{path} has {path.stat().st_size} bytes, its index says {info.bytes}: copy it again, or delete it to "
                "have its clips built again"
            )
        infos.append(info)
    return infos


def check_end(path: Path) -> None:
    """Look for the empty blocks that end a tar; one cut between two members lacks them and reads without an error.

    Raises:
        ShardError: they are not there.
    """
    with open(path, "rb") as stream:
        stream.seek(max(0, path.stat().st_size - END_BYTES))
        end = stream.read()
    if end != bytes(END_BYTES):
        raise ShardError(f"{path} was cut short: delete it to have its clips built again")


def save_index(folder: Path, infos: list[ShardInfo]) -> None:
    """Write `index.json` atomically."""
    content: dict[str, Any] = {"schema": INDEX_SCHEMA, "samples": sum(info.samples for info in infos)}
    content["shards"] = [asdict(info) for info in infos]
    write_json(folder / INDEX_NAME, content)
