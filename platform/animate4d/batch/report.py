"""How every row of a batch ended: `results.csv` for spreadsheets, `results.jsonl` with every value exactly as it is.

Text cells of the CSV that a spreadsheet would run as a formula get a leading apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Sequence
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
    "group",
    "seed",
    "asset",
    "prompt",
    "state",
    "kind",
    "column",
    "message",
    "attempts",
    "score",
    "best",
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
        shrunk: whether it ran out of memory first and was done with less.
        attempts: starts in this run; 0 when an earlier run had done it, or its input was wrong.
        receipt: of the result folder when done.
        trace: of an error that was not the user's, for the ledger.
    """

    row: ManifestRow
    state: State
    kind: Kind = ""
    message: str = ""
    shrunk: bool = False
    attempts: int = 0
    receipt: dict[str, Any] = field(default_factory=dict)
    trace: str = ""

    @property
    def column(self) -> str:
        """Manifest column at fault, where one is known."""
        return self.row.column or ("asset" if self.kind == "bad input" else "")

    @property
    def score(self) -> float | None:
        """How good the result is, 0 to 1; None unless done.

        The motion recovered, 1 - vertex error / error of standing still, where the true motion is known. Elsewhere the
        mean overlap of the moved model's outline with the video's, times the share of frames that the fit did not lose.
        """
        if self.state != "done":
            return None
        truth, fit = self.receipt["truth"], self.receipt["fit"]
        if truth is not None and truth["ratio"] is not None:
            return min(max(1.0 - truth["ratio"], 0.0), 1.0)
        return fit["mask_iou"] * (1.0 - len(fit["lost_frames"]) / fit["frames"])

    @property
    def notes(self) -> list[str]:
        """What the user should know of a result."""
        less = ["It ran out of memory and was made with fit=draft."] if self.shrunk else []
        return [*less, *self.receipt["warnings"]]


def best_of_seeds(results: Sequence[RowResult]) -> set[str]:
    """Return the ids of the best result of every row that was done with several seeds."""
    groups: dict[str, list[RowResult]] = {}
    for result in results:
        groups.setdefault(result.row.group, []).append(result)
    best = set()
    for several in groups.values():
        scored = [(result.score, result.row.id) for result in several if result.score is not None]
        if len(several) > 1 and scored:
            best.add(max(scored, key=lambda pair: pair[0])[1])
    return best


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
    best = best_of_seeds(results)
    for result in results:
        cells = table_row(result, best) | {extra[name]: value for name, value in result.row.extra.items()}
        writer.writerow({name: safe_cell(value) for name, value in cells.items()})
    write_text(path, stream.getvalue())


def write_records(path: Path, results: Sequence[RowResult]) -> None:
    """Write the same table as JSON lines, atomically: text exactly as given, no cell for what is unknown."""
    best = best_of_seeds(results)
    lines = [json.dumps(table_row(result, best) | {"manifest": result.row.extra}) for result in results]
    write_text(path, "".join(f"{line}\n" for line in lines))


def table_row(result: RowResult, best: Collection[str] = ()) -> dict[str, Any]:
    """Return the cells of one row by column name; numbers stay numbers, what is unknown has no cell.

    Args:
        result: how the row ended.
        best: ids that `best_of_seeds` found.
    """
    row, receipt = result.row, result.receipt
    cells: dict[str, Any] = {
        "row": row.line,
        "id": row.id,
        "group": row.group,
        "seed": row.request.seed if row.request else "",
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
        "score": round(result.score or 0.0, 4),
        "best": int(row.id in best),
        "seconds": round(sum(seconds.values()), 3),
        "peak_memory_mb": max(receipt["peak_memory_mb"].values()),
        "fit_loss": fit["loss"],
        "mask_iou": fit["mask_iou"],
        "lost_frames": " ".join(map(str, fit["lost_frames"])),
        "warnings": "; ".join(result.notes),
        **{name: truth[name] for name in TRUTH if truth.get(name) is not None},
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
