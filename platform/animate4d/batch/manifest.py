"""The manifest of a batch: a CSV with one object per row.

Columns `asset` and `prompt` are required; `id`, `seed`, `video`, `clip` and the options of `pipeline.config` are
optional; unknown columns are kept and come back in `results.csv`. What is wrong with the table as a whole (a missing
column, two rows of one id) refuses it before any work; what is wrong with one row becomes that row's failure.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from animate4d.core.errors import ConfigError, ManifestError
from animate4d.core.hashing import hash_json, slug
from animate4d.pipeline.config import SEED_LIMIT, AnimateOptions, Request

REQUIRED = ("asset", "prompt")
OPTION_COLUMNS = tuple(option.name for option in fields(AnimateOptions))
KNOWN = (*REQUIRED, "id", "seed", "video", "clip", *OPTION_COLUMNS)
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
DEVICE_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
BATCH_FILES = {"ledger.jsonl", "results.csv", "index.html", "logs", "gallery"}
FIELD_LIMIT = 100_000
"""Characters in one cell; an unclosed quote otherwise swallows the rest of the file into one prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestRow:
    """One row as written, and what it asks for.

    Attributes:
        line: number of the row's first line in the file, the header being line 1.
        id: names the result folder; from the `id` column, else derived from the row's content.
        asset: cell as written.
        prompt: cell as written, without surrounding spaces.
        request: what to animate; None when the row is wrong.
        column: where the row is wrong; empty when it is right.
        problem: one line saying what is wrong and what to do; empty when the row is right.
        extra: unknown columns.
    """

    line: int
    id: str
    asset: str
    prompt: str
    request: Request | None
    column: str = ""
    problem: str = ""
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A table that can be worked on.

    Attributes:
        path: the CSV file.
        rows: in file order, ids unique.
        extra_columns: unknown columns in file order.
        warnings: things to tell the user before starting, one line each.
    """

    path: Path
    rows: tuple[ManifestRow, ...]
    extra_columns: tuple[str, ...]
    warnings: tuple[str, ...]


class CellError(ConfigError):
    """A cell does not hold what its column needs."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


def read_manifest(path: Path, defaults: AnimateOptions) -> Manifest:
    """Read a manifest; asset paths are taken relative to its folder.

    Args:
        path: UTF-8 CSV (a byte-order mark and Windows line ends are fine).
        defaults: options of rows whose cell is empty or whose column is missing.

    Raises:
        ManifestError: the file cannot be read as a table, a required column is missing, there are no rows, or two rows
            share an id.
    """
    table = _read_table(path)
    header = [name.strip().lower() for name in table[0][1]] if table else []
    _check_header(path, header)
    rows = tuple(_parse_row(path, line, header, cells, defaults) for line, cells in table[1:])
    if not rows:
        raise ManifestError(f"{path}: no rows below the header: add one line per object")
    _check_ids(path, rows)
    extra = tuple(name for name in header if name and name not in KNOWN)
    return Manifest(path=path, rows=rows, extra_columns=extra, warnings=tuple(_misspelled(path, extra)))


def _read_table(path: Path) -> list[tuple[int, list[str]]]:
    """Return (first line number, cells) of every non-empty record."""
    if path.is_dir():
        raise ManifestError(f"{path} is a folder: give the manifest CSV itself")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file: give the path of a manifest CSV") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: byte {error.start} is not UTF-8: save the file as 'CSV UTF-8'") from None
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    table: list[tuple[int, list[str]]] = []
    first = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                table.append((first, cells))
            first = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path}: line {first}: {error}: close the quotes of that row") from None
    return table


def _check_header(path: Path, header: list[str]) -> None:
    if not header:
        raise ManifestError(f"{path}: no rows: the first line must name the columns, at least asset,prompt")
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise ManifestError(f"{path}: the columns are not separated by commas: export the table as comma-separated CSV")
    for name in REQUIRED:
        if name not in header:
            raise ManifestError(f"{path}: column '{name}' is missing (found: {', '.join(header)}): add it to line 1")
    doubled = next((name for name in header if name and header.count(name) > 1), None)
    if doubled:
        raise ManifestError(f"{path}: column '{doubled}' stands twice in line 1: keep one of them")


def _parse_row(path: Path, line: int, header: list[str], cells: list[str], defaults: AnimateOptions) -> ManifestRow:
    padded = [*cells, *[""] * (len(header) - len(cells))]
    row = {name: cell.strip() for name, cell in zip(header, padded, strict=False) if name}
    given = {name: row.get(name, "") for name in KNOWN if name != "id"}
    row_id = row.get("id") or f"{slug(Path(row['asset']).stem)[:40]}-{hash_json(given)[:8]}"
    plain: dict[str, Any] = {
        "line": line,
        "id": row_id,
        "asset": row["asset"],
        "prompt": row["prompt"],
        "extra": {name: value for name, value in row.items() if name not in KNOWN},
    }
    try:
        if len(cells) > len(header):
            raise CellError("", f"{len(cells)} cells for {len(header)} columns: quote a prompt that holds a comma")
        _check_id(row_id)
        request = _parse_request(path.parent, row, defaults)
    except ConfigError as error:
        column = error.column if isinstance(error, CellError) else str(error).split(" ", 1)[0]
        where = f"line {line}, column {column}" if column else f"line {line}"
        return ManifestRow(**plain, request=None, column=column, problem=f"{where}: {error}")
    return ManifestRow(**plain, request=request)


def _parse_request(folder: Path, row: dict[str, str], defaults: AnimateOptions) -> Request:
    if not row["asset"]:
        raise CellError("asset", "the cell is empty: give the path of a 3D file")
    if "://" in row["asset"]:
        raise CellError(
            "asset", f"{row['asset'][:80]!r} is a URL, and nothing is fetched: give the path of a local file"
        )
    if "\0" in row["asset"]:
        raise CellError("asset", "the path holds a NUL character: give the path of a 3D file")
    changes: dict[str, Any] = {}
    for name in OPTION_COLUMNS:
        if row.get(name):
            changes[name] = _READERS[name](name, row[name])
    if "tracker_checkpoint" in changes:
        changes["tracker_checkpoint"] = folder / changes["tracker_checkpoint"]
    return Request(
        asset=folder / row["asset"],
        prompt=row["prompt"],
        seed=_whole_number("seed", row["seed"], f"0 to {SEED_LIMIT - 1}") if row.get("seed") else 0,
        video=row.get("video") or "generated",  # type: ignore[arg-type]  # Request checks it
        clip=row.get("clip") or None,
        options=replace(defaults, **changes),
    )


def _whole_number(column: str, text: str, allowed: str = "") -> int:
    # int() also takes '1_000' and Arabic-Indic digits; a seed copied from a sheet is ASCII digits, perhaps '7.0'.
    if not re.fullmatch(r"[+-]?[0-9]{1,30}(\.0*)?", text):
        between = f" from {allowed}" if allowed else ""
        raise CellError(column, f"{text[:40]!r} is not a whole number: give one{between}")
    return int(text.split(".")[0])


def _number(column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise CellError(column, f"{text[:40]!r} is not a number") from None


def _word(_column: str, text: str) -> str:
    return text.lower()


def _text(_column: str, text: str) -> str:
    return text


def _words(_column: str, text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s,;+]+", text.lower()) if word)


_READERS: dict[str, Callable[[str, str], Any]] = {
    "frames": _whole_number,
    "fit": _word,
    "tracker": _word,
    "tracker_checkpoint": _text,
    "clips": _whole_number,
    "strength": _number,
    "loop": _word,
    "fps": _number,
    "formats": _words,
    "guidance": _number,
    "steps": _whole_number,
    "negative_prompt": _text,
    "free_init": _whole_number,
    "step_cache": _whole_number,
}


def _check_id(row_id: str) -> None:
    """Refuse ids that are not one safe folder name on every system, or that would hide a file of the batch."""
    stem = row_id.split(".", 1)[0].lower()
    if not SAFE_ID.fullmatch(row_id) or row_id.endswith(".") or stem in DEVICE_NAMES:
        raise CellError("id", f"{row_id[:80]!r} cannot name a folder: use up to 80 of A-Z a-z 0-9 . _ -")
    if row_id.lower() in BATCH_FILES:
        raise CellError("id", f"{row_id!r} is the name of a file of the batch itself: choose another id")


def _check_ids(path: Path, rows: tuple[ManifestRow, ...]) -> None:
    # Compared without case: 'Fox' and 'fox' are one folder on macOS and Windows.
    seen: dict[str, ManifestRow] = {}
    for row in rows:
        other = seen.setdefault(row.id.lower(), row)
        if other is not row:
            raise ManifestError(
                f"{path}: lines {other.line} and {row.line} share the id '{row.id}': give each row its own id "
                "(rows without an id that ask for exactly the same count as one)"
            )


def _misspelled(path: Path, extra: tuple[str, ...]) -> list[str]:
    found = []
    for name in extra:
        close = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.75)
        if close:
            found.append(f"{path}: column '{name}' is kept but not used; did you mean '{close[0]}'?")
    return found
