"""Reading from storage that is slow, loses a file for a moment, or dies: tried again under a time limit, then given up.

A read that fails is repeated with growing pauses, from a file opened anew: a handle that NFS calls stale stays so.
A read that does not return cannot be interrupted, only left behind; so every read is made in another thread, which
costs some 20 microseconds.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from animate4d.core.errors import StorageError

ATTEMPTS = 4
PAUSE_S = 0.5
"""First pause; each is twice the one before. 3.5 s in all is enough to tell a server that moves from a deletion."""

LIMIT_S = 60.0
"""How long one read may take. A sample of 20 MB then needs 0.33 MB/s; a restarted file server is back in a minute."""

Value = TypeVar("Value")


def patiently(read: Callable[[], Value], *, expected: bool = True) -> Value:
    """Return what a function that reads files returns.

    Args:
        read: is called again after an OSError or when it does not return, so it must open its files itself.
        expected: whether a missing file is a fault to wait for, and not an answer.

    Raises:
        OSError: the last one, a TimeoutError for a read that does not return; a FileNotFoundError at once if missing
            files are not expected.
    """
    for attempt in range(ATTEMPTS):
        try:
            return within(LIMIT_S, read)
        except OSError as error:
            if attempt == ATTEMPTS - 1 or (isinstance(error, FileNotFoundError) and not expected):
                raise
            time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def within(seconds: float, read: Callable[[], Value]) -> Value:
    """Return what `read` returns, or raise what it raises.

    Raises:
        TimeoutError: it has not returned in time; its thread is left behind and its result, should it come, dropped.
    """
    try:
        helper = _idle.pop()
    except IndexError:
        helper = Helper()
    error, value = helper.run(seconds, read)
    _idle.append(helper)
    if error is not None:
        raise error
    return value


class Helper:
    """A thread that reads for others, one read after the other.

    Threads are kept: each new one would allocate from another arena of malloc, and a process that reads large samples
    would hold several times what it needs.
    """

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[BaseException | None, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="storage", daemon=True).start()

    def run(self, seconds: float, read: Callable[[], Any]) -> tuple[BaseException | None, Any]:
        """Return what `read` raises and returns; raises TimeoutError, after which this helper is of no use any more."""
        self._tasks.put(read)
        try:
            return self._results.get(timeout=seconds)
        except queue.Empty:
            self._tasks.put(None)  # ends the thread, should its read ever return
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} s") from None

    def _work(self) -> None:
        while True:
            read = self._tasks.get()
            if read is None:
                return
            try:
                self._results.put((None, read()))
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                self._results.put((error, None))
            del read  # and what it holds


_idle: list[Helper] = []
os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive a fork


class PatientFile:
    """A file open for reading; where reading fails it is opened anew and taken up where it was. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._position = 0

    def __enter__(self) -> PatientFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def seek(self, position: int) -> None:
        """Go to a place, counted from the start."""
        self._position = position

    def tell(self) -> int:
        """Return the place."""
        return self._position

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end; raises as `patiently` does."""
        held, position = [self._file], self._position
        self._file = None

        def attempt() -> tuple[IO[bytes], bytes]:
            # The first attempt takes the open file along: it is not used again unless this one succeeds.
            file = (held.pop() if held else None) or open(self._path, "rb")  # noqa: SIM115 - open over calls
            file.seek(position)
            return file, file.read(size)

        self._file, data = patiently(attempt)
        self._position += len(data)
        return data


def unreadable(subject: object, error: OSError, advice: str) -> StorageError:
    """Return the named error of a file that `patiently` could not read."""
    return StorageError(f"{subject} cannot be read ({error.strerror or error}; tried {ATTEMPTS} times): {advice}")
