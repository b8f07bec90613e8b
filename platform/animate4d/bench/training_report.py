"""The training bench's tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from animate4d.bench.training import Row, TrainingReport, Verdict

COLUMNS = ("", "ms a step", "quartiles", "CPU ms", "steps/s", "data wait", "by round")
WIDTHS = (29, 9, 13, 7, 7, 9, 16)


def show(report: TrainingReport) -> str:
    """Return the tables as text."""
    machine, settings = report.machine, report.settings
    head = [
        f"training, preset {settings['preset']}, {settings['steps']} steps a training after {settings['warmup']} to "
        f"warm up, {settings['rounds']} rounds in turns",
        f"{machine['device']}, {machine['cores']} CPU cores, one thread per worker, torch {machine['torch']}, load "
        f"{machine['load_average']} to {machine['load_average_at_end']}",
        "",
    ]
    rows = [columns(row) for row in report.rows]
    compared = [sentence(verdict) for verdict in report.verdicts]
    explained = [
        "",
        "ms are medians over all steps of all rounds; CPU ms are those of all workers together. Both loops run in one",
        "process on batches in memory; all other rows are trainings under Ray Train that read shards.",
    ]
    return "\n".join([*head, line(COLUMNS), *rows, "", *compared, *explained])


def columns(row: Row) -> str:
    """Return one row of the table."""
    timing = row.timing
    return line(
        (
            row.name,
            f"{timing.ms:.0f}",
            f"{timing.low:.0f}-{timing.high:.0f}",
            "-" if timing.cpu_ms is None else f"{timing.cpu_ms:.0f}",
            f"{1e3 / timing.ms:.2f}",
            "-" if row.data_wait is None else f"{row.data_wait:.2%}",
            " ".join(f"{value:.0f}" for value in row.rounds_ms) or "-",
        )
    )


def line(cells: tuple[str, ...]) -> str:
    """Return cells in columns, the first to the left."""
    first, *rest = zip(cells, WIDTHS, strict=True)
    return f"{first[0]:<{first[1]}}" + "".join(f" {cell:>{width}}" for cell, width in rest)


def sentence(verdict: Verdict) -> str:
    """Return one comparison with what was wanted of it."""
    aim = ""
    if verdict.low is not None:
        aim = f"wanted at least {verdict.low:g}"
    elif verdict.high is not None:
        aim = f"wanted at most {verdict.high:g}"
    ending = "; ".join(text for text in (aim and f"{aim}: {'yes' if verdict.good else 'NO'}", verdict.note) if text)
    return f"  {verdict.name:<44}{verdict.value:>8.4f}" + (f"   {ending}" if ending else "")
