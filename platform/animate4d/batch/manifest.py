"""The manifest of a batch: a table with one object per row, as CSV or as JSON lines.

Columns `asset` and `prompt` are required; `id`, `seed`, `seeds`, `video`, `clip` and the options of `pipeline.config`
are optional; unknown columns are kept and come back in `results.csv`. A row whose asset is a pattern (`models/*.glb`)
stands for a row per file, one with several seeds for a row per seed. What is wrong with the table as a whole (a missing
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

from animate4d.batch.records import Record, read_records, read_text
from animate4d.core.errors import ConfigError, ManifestError
from animate4d.core.hashing import hash_json, slug
from animate4d.pipeline.config import SEED_LIMIT, AnimateOptions, Request

REQUIRED = ("asset", "prompt")
OPTION_COLUMNS = tuple(option.name for option in fields(AnimateOptions))
KNOWN = (*REQUIRED, "id", "seed", "seeds", "video", "clip", *OPTION_COLUMNS)
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
DEVICE_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
BATCH_FILES = {"ledger.jsonl", "results.csv", "results.jsonl", "index.html", "logs", "gallery"}
MAX_TOLD = 20
"""Pairs of rows with one id that a message names."""
MAX_SEEDS = 100
"""Seeds of one row; more is a slip of the hand rather than a choice among results."""
FIELD_LIMIT = 100_000
"""Characters in one cell; an unclosed quote otherwise swallows the rest of the file into one prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestRow:
    """One row as written, and what it asks for.

    Attributes:
        line: number of the row's first line in the file, the header being line 1.
        id: names the result folder; from the `id` column, else derived from the row's content.
        group: shared by the rows that one row with several seeds stands for; else the id.
        asset: cell as written.
        prompt: cell as written, without surrounding spaces.
        request: what to animate; None when the row is wrong.
        column: where the row is wrong; empty when it is right.
        problem: one line saying what is wrong and what to do; empty when the row is right.
        extra: unknown columns.
    """

    line: int
    id: str
    group: str = ""
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
        path: the file.
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
        path: UTF-8 CSV, or JSON lines where its name ends in .jsonl (a byte-order mark and Windows line ends are fine).
        defaults: options of rows whose cell is empty or whose column is missing.

    Raises:
        ManifestError: the file cannot be read as a table, a required column is missing, there are no rows, or two rows
            share an id.
    """
    header, table = read_records(path) if path.suffix.lower() == ".jsonl" else _read_csv(path)
    rows = tuple(
        row
        for line, cells, problem in table
        for row in _parse_rows(path.parent, line, header, cells, problem, defaults)
    )
    if not rows:
        raise ManifestError(f"{path}: no rows below the header: add one line per object")
    _check_ids(path, rows)
    extra = tuple(name for name in header if name and name not in KNOWN)
    return Manifest(path=path, rows=rows, extra_columns=extra, warnings=tuple(_misspelled(path, extra)))


def _read_csv(path: Path) -> tuple[list[str], list[Record]]:
    """Return the columns and (first line number, cells by column, problem) of every non-empty record."""
    table = _read_cells(path)
    header = [name.strip().lower() for name in table[0][1]] if table else []
    _check_header(path, header)
    records = []
    for line, cells in table[1:]:
        padded = [*cells, *[""] * (len(header) - len(cells))]
        row = {name: cell.strip() for name, cell in zip(header, padded, strict=False) if name}
        more = f"{len(cells)} cells for {len(header)} columns: quote a prompt that holds a comma"
        records.append((line, row, more if len(cells) > len(header) else ""))
    return header, records


def _read_cells(path: Path) -> list[tuple[int, list[str]]]:
    """Return (first line number, cells) of every non-empty record."""
    text = read_text(path)
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


def _parse_rows(
    folder: Path, line: int, header: list[str], row: dict[str, str], problem: str, defaults: AnimateOptions
) -> list[ManifestRow]:
    """Return the rows that a row of the file stands for: one per file of its pattern and per seed."""
    row = {name: row.get(name, "") for name in (*header, *REQUIRED)}
    try:
        if problem:
            raise CellError("", problem)
        files = _files(folder, row["asset"])
        seeds = _seeds(row)
    except CellError as error:
        return [_parse_row(folder, line, row, row.get("id", ""), error, defaults)]
    rows = []
    for file in files:
        one = row | {"asset": file}
        name = row.get("id", "")
        name = f"{name}.{slug(Path(file).stem)[:40]}" if name and len(files) > 1 else name
        if len(seeds) == 1:
            rows.append(_parse_row(folder, line, one | {"seed": seeds[0]}, name, None, defaults))
            continue
        group = name or _content_id(one)
        rows += [
            replace(_parse_row(folder, line, one | {"seed": seed}, f"{group}.seed{seed}", None, defaults), group=group)
            for seed in seeds
        ]
    return rows


def _parse_row(
    folder: Path, line: int, row: dict[str, str], row_id: str, problem: CellError | None, defaults: AnimateOptions
) -> ManifestRow:
    row_id = row_id or _content_id(row)
    plain: dict[str, Any] = {
        "line": line,
        "id": row_id,
        "group": row_id,
        "asset": row["asset"],
        "prompt": row["prompt"],
        "extra": {name: value for name, value in row.items() if name and name not in KNOWN},
    }
    try:
        if problem is not None:
            raise problem
        _check_id(row_id)
        request = _parse_request(folder, row, defaults)
    except ConfigError as error:
        column = error.column if isinstance(error, CellError) else str(error).split(" ", 1)[0]
        where = f"line {line}, column {column}" if column else f"line {line}"
        return ManifestRow(**plain, request=None, column=column, problem=f"{where}: {error}")
    return ManifestRow(**plain, request=request)


def _content_id(row: dict[str, str]) -> str:
    """Return an id of what a row asks for; a column that is empty might as well not be there."""
    given = {name: row.get(name, "") for name in KNOWN if name not in ("id", "seeds")}
    if row.get("seeds"):
        given["seeds"] = row["seeds"]
    return f"{slug(Path(row['asset']).stem)[:40]}-{hash_json(given)[:8]}"


def _files(folder: Path, asset: str) -> list[str]:
    """Return the files a cell names, as written or, for a pattern, as found in order of their names."""
    if not set("*?[") & set(asset) or "://" in asset or "\0" in asset:
        return [asset]
    try:
        if (folder / asset).exists():
            return [asset]
        if Path(asset).is_absolute() or ".." in Path(asset).parts:
            # so that no row makes the whole disk be searched
            raise CellError("asset", f"the pattern {asset[:80]!r} leads out of {folder}: patterns are relative to it")
        files = sorted(str(path.relative_to(folder)) for path in folder.glob(asset) if path.is_file())
    except (OSError, ValueError) as error:
        raise CellError("asset", f"the pattern {asset[:80]!r} cannot be searched ({error})") from None
    if not files:
        raise CellError("asset", f"no file in {folder} fits the pattern {asset[:80]!r}: mend it, or name a file")
    return files


def _seeds(row: dict[str, str]) -> list[str]:
    """Return the seeds of a row as text; a range may be written 0-3."""
    if not row.get("seeds"):
        return [row.get("seed", "")]
    if row.get("seed"):
        raise CellError("seeds", "the row has a seed too: keep one of the two columns")
    seeds: list[str] = []
    for part in re.split(r"[\s,;]+", row["seeds"].strip(" ,;")):
        first, dash, last = part.partition("-")
        if not re.fullmatch(r"[0-9]{1,19}", first) or (dash and not re.fullmatch(r"[0-9]{1,19}", last)):
            raise CellError("seeds", f"{part[:40]!r} is no seed and no range: write 0-3, or 1 5 9")
        count = int(last if dash else first) + 1 - int(first)
        if not 0 < count <= MAX_SEEDS:
            raise CellError("seeds", f"{part[:40]!r} is a range of {count} seeds: give 1 to {MAX_SEEDS}")
        span = map(str, range(int(first), int(first) + count))
        seeds += [seed for seed in span if seed not in seeds]
    if len(seeds) > MAX_SEEDS:
        raise CellError("seeds", f"{len(seeds)} seeds: give at most {MAX_SEEDS}")
    return seeds


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
    doubled = []
    for row in rows:
        other = seen.setdefault(row.id.lower(), row)
        if other is not row:
            doubled.append(f"lines {other.line} and {row.line} share the id '{row.id}'")
    if doubled:
        more = f" and {len(doubled) - MAX_TOLD} more" if len(doubled) > MAX_TOLD else ""
        raise ManifestError(
            f"{path}: {'; '.join(doubled[:MAX_TOLD])}{more}: give each row its own id "
            "(rows without an id that ask for exactly the same count as one)"
        )


def _misspelled(path: Path, extra: tuple[str, ...]) -> list[str]:
    found = []
    for name in extra:
        close = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.75)
        if close:
            found.append(f"{path}: column '{name}' is kept but not used; did you mean '{close[0]}'?")
    return found
