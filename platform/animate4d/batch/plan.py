"""Which rows need work, what is wrong with others, and what it will all cost: everything known before work begins."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from animate4d.assets.sniff import detect_format
from animate4d.batch.forecast import Forecast, Forecaster, duration, makespan
from animate4d.batch.manifest import Manifest, ManifestRow
from animate4d.batch.places import Places
from animate4d.core.errors import AssetError
from animate4d.pipeline.receipt import matching_receipt

Need = Literal["kept", "to do", "wrong"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRow:
    """A row and what it needs.

    Attributes:
        row: as read.
        need: kept (its result is there and is what is asked for), to do, or wrong.
        receipt: of a kept row.
        shrunk: whether that is of its smaller request, after it had run out of memory.
        problem: one line for a wrong row.
        forecast: of a row to do.
    """

    row: ManifestRow
    need: Need
    receipt: dict[str, Any] | None = None
    shrunk: bool = False
    problem: str = ""
    forecast: Forecast | None = None


def plan_rows(manifest: Manifest, out: Path, version: str, shrunk: Collection[str] = ()) -> list[PlannedRow]:
    """Look at every row, in manifest order; nothing is written and no model file is parsed.

    Args:
        manifest: the table.
        out: folder of the results so far; need not exist.
        version: of the model, for generated videos.
        shrunk: ids of rows that ran out of memory before: a result of their smaller request counts as theirs.
    """
    planned = [_look_at(row, out, version, row.id in shrunk) for row in manifest.rows]
    forecaster = Forecaster(one.receipt for one in planned if one.receipt is not None)
    return [
        PlannedRow(row=one.row, need="to do", forecast=forecaster.row(one.row.request))
        if one.need == "to do" and one.row.request is not None
        else one
        for one in planned
    ]


def _look_at(row: ManifestRow, out: Path, version: str, shrunk: bool) -> PlannedRow:
    if row.request is None:
        return PlannedRow(row=row, need="wrong", problem=row.problem)
    try:
        _check_asset(row)
        receipt, less = matching_receipt(out / row.id, row.request, version), False
        if receipt is None and shrunk and (smaller := row.request.smaller()):
            receipt, less = matching_receipt(out / row.id, smaller, version), True
    except AssetError as error:
        return PlannedRow(row=row, need="wrong", problem=f"line {row.line}: {error}")
    return PlannedRow(row=row, need="to do" if receipt is None else "kept", receipt=receipt, shrunk=less)


def _check_asset(row: ManifestRow) -> None:
    """Tell a missing file, or one that is no 3D model at all, before a worker is spent on it."""
    assert row.request is not None
    path = row.request.asset
    if path.is_dir():
        raise AssetError(f"{row.asset} is a folder: give the path of one 3D file")
    if not path.is_file():
        raise AssetError(f"{row.asset}: there is no such file in {path.parent}: mend the path or remove the row")
    detect_format(path)


def plan_text(planned: Sequence[PlannedRow], places: Places) -> list[str]:
    """Return the plan for people, a line per row, then sums."""
    lines = [_line(one) for one in planned]
    counts = {need: sum(one.need == need for one in planned) for need in ("to do", "kept", "wrong")}
    forecasts = [one.forecast for one in planned if one.forecast is not None]
    seconds = [forecast.seconds for forecast in forecasts]
    lines += ["", ", ".join(f"{count} {need}" for need, count in counts.items())]
    if not forecasts:
        return lines
    hours, at_once = f"{sum(seconds) / 3600:.2f} CPU-hours", places.at_once
    if places.split:
        on_gpu = sum(forecast.model_seconds for forecast in forecasts)
        hours = f"{(sum(seconds) - on_gpu) / 3600:.2f} CPU-hours, {on_gpu / 3600:.2f} GPU-hours"
    lines += [
        f"{hours}, {duration(makespan(seconds, at_once))} with {at_once} object{'s' if at_once > 1 else ''} at once, "
        f"{sum(forecast.bytes for forecast in forecasts) / 1e9:.2f} GB on disk",
    ]
    guessed = sum(not forecast.measured for forecast in forecasts)
    if guessed:
        lines.append(
            f"{guessed} of the times are of one core of an AMD EPYC; rows done in this folder make them this machine's"
        )
    return lines


def _line(one: PlannedRow) -> str:
    head = f"line {one.row.line:<5} {one.need:<6} {one.row.id}"
    if one.need == "wrong":
        return f"{head}: {one.problem.removeprefix(f'line {one.row.line}: ')}"
    if one.forecast is None:
        return head
    return f"{head}: about {duration(one.forecast.seconds)}, {one.forecast.bytes / 1e6:.0f} MB"
