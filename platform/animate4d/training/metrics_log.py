"""`metrics.jsonl`: one JSON object per logged step. Rank 0 appends, the driver and MLflow read."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from animate4d.core.failpoint import failpoint
from animate4d.io.atomic import write_text

NAME = "metrics.jsonl"

Row = dict[str, Any]


class MetricsLog:
    """Appends rows, each a whole line. Opening drops rows after `step` and a last line that was cut.

    Attributes:
        failure: why rows cannot be written, one sentence; "" while they can. Rows that come after are dropped.
    """

    def __init__(self, out: Path, step: int) -> None:
        self.path = out / NAME
        self.failure = ""
        try:
            rows = [row for row in read_rows(self.path) if row["step"] <= step]
            write_text(self.path, "".join(line_of(row) for row in rows))
            self._stream = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            self.failure = self._sentence(error)

    def append(self, row: Row) -> None:
        """Add a row; it is readable by others when this returns."""
        if self.failure:
            return
        try:
            failpoint("metrics.append")
            self._stream.write(line_of(row))
            self._stream.flush()
        except OSError as error:
            self.failure = self._sentence(error)
            with suppress(OSError):  # closing tries the unwritten rest once more
                self._stream.close()

    def close(self) -> None:
        """Close the file."""
        if not self.failure:
            self._stream.close()

    def _sentence(self, error: OSError) -> str:
        return (
            f"{self.path} could not be written ({error.strerror}); the checkpoints are whole: "
            "make room or mend the disk, then run again with --resume"
        )


class MetricsTail:
    """Reads what is new in a growing `metrics.jsonl`; a rewritten file is read again without repeating steps."""

    def __init__(self, out: Path, step: int) -> None:
        self.path = out / NAME
        self.step = step
        self._offset = 0
        self._inode = -1

    def new_rows(self) -> list[Row]:
        """Return complete rows of later steps than seen so far."""
        try:
            stream = open(self.path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return []
        with stream:
            inode = self.path.stat().st_ino
            if inode != self._inode:
                self._inode, self._offset = inode, 0
            stream.seek(self._offset)
            block = stream.read()
        whole = block[: block.rfind(b"\n") + 1]
        self._offset += len(whole)
        rows = [row for row in parse_rows(whole.decode()) if row["step"] > self.step]
        if rows:
            self.step = rows[-1]["step"]
        return rows


def read_rows(path: Path) -> list[Row]:
    """Return all whole rows; a missing file has none."""
    return parse_rows(path.read_text()) if path.exists() else []


def parse_rows(text: str) -> list[Row]:
    """Parse lines; a last line without its end was cut by a kill and is left out."""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def line_of(row: Row) -> str:
    """Return a row as its line."""
    return json.dumps(row, allow_nan=False) + "\n"
