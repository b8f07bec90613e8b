"""Writes that are either whole or absent: a temporary name in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from animate4d.core.errors import ConfigError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that other processes see the old content or the new one, never a part. Makes parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file atomically; NaN and infinities are refused because JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path` to write into; it takes the place of `path` when the block ends well.

    A block that raises leaves `path` as it was and no trace of the new folder. An old folder at `path` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                sync_file(file)
        if path.exists():
            replaced = temporary_name(path)
            path.rename(replaced)
            temporary.rename(path)
            shutil.rmtree(replaced)
        else:
            temporary.rename(path)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)
    sync_folder(path.parent)


def temporary_name(path: Path) -> Path:
    """Return a hidden, unused name in the same folder, so that renaming it to `path` stays on one file system."""
    return path.with_name(f".{path.name[:120]}.{uuid.uuid4().hex[:12]}.tmp")


def sync_file(path: Path) -> None:
    """Make a finished file's content survive a power cut."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(out: Path) -> None:
    """Raise a ConfigError if nothing can be written into an output folder, which is made if need be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{out}: cannot write there ({error.strerror}): choose another --out") from None
