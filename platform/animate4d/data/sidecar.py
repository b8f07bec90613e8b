"""Files computed from samples and kept beside the shards: one per (sample, view group), with a note of whose it is.

A shard is never written to, so labels and latents of several makers can lie beside it. The note names the sample, its
views, the sha256 of the pictures and the maker: a file is refused for any other sample, and stale when the pictures
have changed or another maker's file lies in its place.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from animate4d.core.errors import ConfigError, ShardError, StorageError
from animate4d.data.schema import decode_meta
from animate4d.io.atomic import write_bytes
from animate4d.io.storage import patiently, unreadable
from animate4d.io.tensors import pack_tensors, read_note

OWNER = {"sample", "views", "pictures"}
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sidecar:
    """A folder of such files, all made the same way.

    Attributes:
        folder: of this maker alone; its name says how the files were made.
        noun: what they are, in sentences: "labels" or "latents".
        maker: facts of the note that a file must have; one that was made another way counts as missing.
    """

    folder: Path
    noun: str
    maker: Mapping[str, str] = field(default_factory=dict)

    def make_folder(self) -> None:
        """Make the folder.

        Raises:
            ConfigError: it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"data.{self.noun}: {self.folder} cannot be made ({error.strerror}): give a folder that can be written"
            ) from error

    def path(self, sample: str, views: Sequence[int]) -> Path:
        """Return where the file of a sample's views is kept."""
        return self.folder / f"{sample}.v{'-'.join(map(str, views))}.safetensors"

    def has(self, members: Mapping[str, bytes], views: Sequence[int]) -> bool:
        """Return whether the file is there, of this maker and of these very pictures; reads its note only.

        Raises:
            ShardError: it is damaged, or a picture is missing.
            StorageError: it cannot be read.
        """
        path = self.path(decode_meta(members).id, views)
        note = self._from_storage(path, lambda: self._note_of(path))
        return note is not None and self._belongs(note, members, views)

    def find(self, members: Mapping[str, bytes], views: Sequence[int]) -> bytes | None:
        """Return the file, or None where it is missing or of another maker or other pictures; raises as `has` does."""
        path = self.path(decode_meta(members).id, views)
        data = self._from_storage(path, path.read_bytes)
        return data if data is not None and self._belongs(self._note(path, io.BytesIO(data)), members, views) else None

    def write(self, members: Mapping[str, bytes], views: Sequence[int], data: bytes) -> None:
        """Keep what `pack_sidecar` made of these views of a sample.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.path(decode_meta(members).id, views)
        try:
            write_bytes(path, data)
        except OSError as error:
            raise StorageError(
                f"{path.parent} cannot be written ({error.strerror}): make room, then run again"
            ) from error

    def _from_storage(self, path: Path, read: Callable[[], Value]) -> Value | None:
        try:
            return patiently(read, expected=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(path, error, f"check the storage of data.{self.noun}") from error

    def _note_of(self, path: Path) -> dict[str, Any]:
        with path.open("rb") as file:
            return self._note(path, file)

    def _note(self, path: Path, content: IO[bytes]) -> dict[str, Any]:
        try:
            text = read_note(content)
        except ShardError as error:
            raise ShardError(f"{path} cannot be read ({error}): delete it") from error
        return parse_note(text, self.noun)

    def _belongs(self, note: Mapping[str, Any], members: Mapping[str, bytes], views: Sequence[int]) -> bool:
        made = all(note.get(name) == value for name, value in self.maker.items())
        return made and note["pictures"] == pictures_hash(members, views)


def pack_sidecar(
    members: Mapping[str, bytes],
    views: Sequence[int],
    arrays: Mapping[str, np.ndarray],
    maker: Mapping[str, str],
) -> bytes:
    """Return the file of arrays with the note of whose they are and of how they were made (see `Sidecar.maker`)."""
    note = {"sample": decode_meta(members).id, "views": list(views), "pictures": pictures_hash(members, views)} | dict(
        maker
    )
    return pack_tensors(arrays, json.dumps(note))


def check_note(text: str, noun: str, sample: str, views: Sequence[int]) -> dict[str, Any]:
    """Parse the note of a file and check whose it is.

    Raises:
        ShardError: damaged, or of another sample or other views.
    """
    content = parse_note(text, noun)
    if (content["sample"], content["views"]) != (sample, list(views)):
        raise ShardError(
            f"{noun} of sample {content['sample']} views {content['views']} were offered to {sample} views "
            f"{list(views)}: delete the {noun} folder beside the shards"
        )
    return content


def parse_note(text: str, noun: str) -> dict[str, Any]:
    """Parse a note; raises ShardError where it does not say whose it is."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ShardError(f"kept {noun} are damaged ({error}): delete the {noun} folder beside the shards") from error
    if not isinstance(content, dict) or not set(content) >= OWNER:
        raise ShardError(f"kept {noun} do not say whose they are: delete the {noun} folder beside the shards")
    return content


def pictures_hash(members: Mapping[str, bytes], views: Sequence[int]) -> str:
    """Return the sha256 of the pictures of these views."""
    digest = hashlib.sha256()
    for view in views:
        name = f"view_{view:02d}.webp"
        if name not in members:
            raise ShardError(f"{name} is missing")
        digest.update(members[name])
    return digest.hexdigest()
