"""The text of a manifest, and manifests written as JSON lines: an object per row, its keys being the columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from animate4d.core.errors import ManifestError

Record = tuple[int, dict[str, str], str]
"""First line number, cells by column, and what is wrong with the row as a whole (empty if nothing is)."""


def read_text(path: Path) -> str:
    """Return a manifest's text.

    Raises:
        ManifestError: there is no such file, or it is not UTF-8.
    """
    if path.is_dir():
        raise ManifestError(f"{path} is a folder: give the manifest itself")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file: give the path of a manifest (CSV or JSONL)") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: byte {error.start} is not UTF-8: save the file as 'CSV UTF-8'") from None


def read_records(path: Path) -> tuple[list[str], list[Record]]:
    """Return the columns, in order of their first use, and the rows of a file of JSON lines.

    A value may be text, a number, true, false, null (an empty cell) or a list of those (a cell of several words).

    Raises:
        ManifestError: the file cannot be read, or a line is no JSON object.
    """
    columns: dict[str, None] = {}
    records: list[Record] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{path}: line {number} is not JSON ({error}): write one object per line") from None
        if not isinstance(row, dict):
            raise ManifestError(f'{path}: line {number} is no JSON object: write {{"asset": ..., "prompt": ...}}')
        cells = {name.strip().lower(): _cell(value) for name, value in row.items()}
        columns |= dict.fromkeys(cells)
        lacking = next((name for name in ("asset", "prompt") if name not in cells), None)
        nested = next((name for name, value in row.items() if isinstance(value, dict)), None)
        problem = f"the key '{lacking}' is missing: add it" if lacking else ""
        if nested is not None:
            problem = f"'{nested[:40]}' holds an object: give text, a number or a list"
        records.append((number, cells, problem))
    return list(columns), records


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(_cell(one) for one in value)
    return value.strip() if isinstance(value, str) else json.dumps(value)
