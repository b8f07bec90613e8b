"""How every row of a batch ended, as `results.csv`.

Text cells that a spreadsheet would run as a formula get a leading apostrophe; the exact text is in `ledger.jsonl`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from animate4d.batch.manifest import Manifest, ManifestRow
from animate4d.io.atomic import write_text
from animate4d.pipeline.receipt import STAGES

State = Literal["done", "failed", "skipped"]
Kind = Literal["", "bad input", "resource", "infrastructure", "bug", "interrupted"]

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")
"""First characters that make a spreadsheet run a cell (CWE-1236, OWASP ASVS 1.2.10)."""

LINKS = {
    "glb": "animated.glb",
    "viewer": "viewer.html",
    "ply": "splats/static.ply",
    "mp4": "views.mp4",
    "thumb": "thumb.webp",
    "receipt": "receipt.json",
}
TRUTH = ("e_fit", "e_static", "ratio", "psnr", "psnr_unseen")
"""Scores of rows whose true motion is known."""

COLUMNS = (
    "row",
    "id",
    "asset",
    "prompt",
    "state",
    "kind",
    "column",
    "message",
    "attempts",
    "seconds",
    *(f"seconds_{stage}" for stage in STAGES),
    "peak_memory_mb",
    "fit_loss",
    "mask_iou",
    "lost_frames",
    *TRUTH,
    "warnings",
    *LINKS,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowResult:
    """The one final state of a row.

    Attributes:
        row: what was asked.
        state: done, failed, or skipped (not worked on because the batch was interrupted).
        kind: of failure; empty when done.
        message: one line; empty when done.
        attempts: starts in this run; 0 when an earlier run had done it, or its input was wrong.
        receipt: of the result folder when done.
        trace: of an error that was not the user's, for the ledger.
    """

    row: ManifestRow
    state: State
    kind: Kind = ""
    message: str = ""
    attempts: int = 0
    receipt: dict[str, Any] = field(default_factory=dict)
    trace: str = ""

    @property
    def column(self) -> str:
        """Manifest column at fault, where one is known."""
        return self.row.column or ("asset" if self.kind == "bad input" else "")


def write_results(path: Path, manifest: Manifest, results: Sequence[RowResult]) -> None:
    """Write the table, in manifest order, atomically; unknown manifest columns come last."""
    stream = io.StringIO()
    # A manifest column that is named like one of ours would make the table ambiguous.
    extra = {name: safe_cell(f"manifest_{name}" if name in COLUMNS else name) for name in manifest.extra_columns}
    # Text is always quoted: the writer itself would leave a bare carriage return, which readers take for a line end.
    writer = csv.DictWriter(
        stream, [*COLUMNS, *extra.values()], lineterminator="\n", restval="", quoting=csv.QUOTE_NONNUMERIC
    )
    writer.writeheader()
    for result in results:
        cells = table_row(result) | {extra[name]: value for name, value in result.row.extra.items()}
        writer.writerow({name: safe_cell(value) for name, value in cells.items()})
    write_text(path, stream.getvalue())


def table_row(result: RowResult) -> dict[str, Any]:
    """Return the cells of one row by column name; numbers stay numbers, what is unknown is an empty cell."""
    row, receipt = result.row, result.receipt
    cells: dict[str, Any] = {
        "row": row.line,
        "id": row.id,
        "asset": row.asset,
        "prompt": row.prompt,
        "state": result.state,
        "kind": result.kind,
        "column": result.column,
        "message": result.message,
        "attempts": result.attempts,
    }
    if result.state != "done":
        return cells
    seconds, fit, truth = receipt["seconds"], receipt["fit"], receipt["truth"] or {}
    cells |= {f"seconds_{stage}": value for stage, value in seconds.items()}
    cells |= {
        "seconds": round(sum(seconds.values()), 3),
        "peak_memory_mb": max(receipt["peak_memory_mb"].values()),
        "fit_loss": fit["loss"],
        "mask_iou": fit["mask_iou"],
        "lost_frames": " ".join(map(str, fit["lost_frames"])),
        "warnings": "; ".join(receipt["warnings"]),
        **{name: truth.get(name, "") for name in TRUTH},
        **{name: f"{row.id}/{file}" for name, file in links_of(receipt).items()},
    }
    return cells


def links_of(receipt: dict[str, Any]) -> dict[str, str]:
    """Return the files of a result that are linked, by column; splats, for one, have no GLB."""
    return {name: file for name, file in LINKS.items() if file in receipt["files"] or name == "receipt"}


def safe_cell(value: Any) -> Any:
    """Return a cell no spreadsheet runs: text that starts like a formula gets a leading apostrophe."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value
