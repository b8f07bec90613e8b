"""What a batch did, in order: an append-only file of JSON lines, and the lock that keeps it to one writer.

Only the driver writes. Each event is flushed to disk before the batch goes on, so after a crash the file tells how far
it came; a last line cut short by the crash is closed off and skipped by the reader.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from animate4d.core.errors import ConfigError

LOCK_NAME = ".lock"


class Ledger:
    """Append events to `ledger.jsonl`; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._stream = open(path, "ab+")  # noqa: SIM115  # closed by __exit__
        size = self._stream.seek(0, os.SEEK_END)
        if size:
            self._stream.seek(size - 1)
            if self._stream.read(1) != b"\n":
                self._stream.write(b"\n")

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with the time of day; returns once it is on disk."""
        self.write_all([{"event": event, **facts}])

    def write_all(self, events: Iterable[dict[str, Any]]) -> None:
        """Append events, each with its name under `event`, and wait for the disk once."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        for event in events:
            # Escaping all beyond ASCII keeps line separators and terminal codes in a prompt from faking a record.
            self._stream.write(json.dumps({"time": now, **event}, ensure_ascii=True).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stream.close()


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Return every whole event of a ledger, oldest first; lines cut short by a crash are left out."""
    events = []
    for line in path.read_bytes().splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the system releases it when the process ends, however it ends.

    Raises:
        ConfigError: another process holds it.
    """
    path = folder / LOCK_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "unknown"
            raise ConfigError(
                f"{folder}: another batch is writing here ({holder}): wait for it, stop it, or choose another --out"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
