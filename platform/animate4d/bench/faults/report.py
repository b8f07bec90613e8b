"""The table of faults: as text, as CSV, and against the one kept in the repository."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from animate4d.bench.faults.scenario import Account, Scenario

COLUMNS = ("fault", "what", "then", "detected_s", "recovered_s", "lost", "unit", "silent")
KEPT = "dashboards/faults.csv"
"""Where the repository keeps the table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One fault and what became of it.

    Attributes:
        scenario: the fault.
        account: None if the scenario itself broke down.
        problems: in what it went other than documented.
    """

    scenario: Scenario
    account: Account | None
    problems: tuple[str, ...]

    def cells(self) -> dict[str, str]:
        """Return the row of the table, by column."""
        account = self.account
        return {
            "fault": self.scenario.name,
            "what": self.scenario.what,
            "then": self.scenario.then,
            "detected_s": seconds(None if account is None else account.detected_s),
            "recovered_s": seconds(None if account is None else account.recovered_s),
            "lost": "?" if account is None else str(account.lost),
            "unit": self.scenario.unit,
            "silent": "?" if account is None else str(account.silent),
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything that is known."""
        known = {} if self.account is None else asdict(self.account)
        return {
            "fault": self.scenario.name,
            "what": self.scenario.what,
            "then": self.scenario.then,
            **known,
            "unit": self.scenario.unit,
            "most_lost": self.scenario.most_lost,
            "problems": list(self.problems),
        }


def seconds(value: float | None) -> str:
    """Return seconds with two digits or all before the point; a dash where there are none."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.001 else "<0.001"


def text_table(rows: Sequence[Row]) -> str:
    """Return the table for people."""
    titles = {"detected_s": "detected s", "recovered_s": "recovered s"}
    shown = [name for name in COLUMNS if name not in ("then", "unit")]
    lines = [[titles.get(name, name) for name in shown]]
    for row in rows:
        cells = row.cells()
        if cells["lost"] not in ("0", "?"):
            cells["lost"] += f" {cells['unit']}"
        lines.append([cells[name] for name in shown])
    widths = [max(len(line[column]) for line in lines) for column in range(len(shown))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def csv_table(rows: Sequence[Row]) -> str:
    """Return the table as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.cells() for row in rows)
    return stream.getvalue()


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """Return a kept table: fault -> row."""
    with open(path, newline="") as stream:
        return {row["fault"]: row for row in csv.DictReader(stream)}


def worse(row: Row, kept: Mapping[str, Mapping[str, str]]) -> str:
    """Say in what a fault costs more than in the kept table, seconds apart; "" if in nothing."""
    before, now = kept.get(row.scenario.name), row.cells()
    if before is None:
        return f"{row.scenario.name} is not in {KEPT}: run `animate4d bench faults` and keep its table"
    more = [
        f"{name} {before[name]} -> {now[name]}" for name in ("lost", "silent") if int(now[name]) > int(before[name])
    ]
    return f"{row.scenario.name} got worse: {', '.join(more)}" if more else ""
