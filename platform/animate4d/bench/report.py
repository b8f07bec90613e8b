"""The model bench's table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from animate4d.bench.clock import Timing

if TYPE_CHECKING:
    from animate4d.bench.model import ModelReport, Row

COLUMNS = (
    "",
    "ms",
    "quartiles",
    "CPU ms",
    "FLOP",
    "of peak",
    "memory",
    "tensors",
    "plain ms",
    "plain mem",
    "ratio",
    "CPU ratio",
)
WIDTHS = (29, 7, 13, 7, 8, 7, 8, 8, 8, 9, 6, 9)


def show(report: ModelReport) -> str:
    """Return the whole table as text."""
    settings, machine = report.settings, report.machine
    head = [
        f"MV-VDM {settings['preset']}: {settings['views']} views x {settings['frames']} frames x "
        f"{settings['image_size']} px, {report.parameters / 1e6:.2f} M parameters, "
        f"{report.trained / 1e6:.2f} M of them trained",
        f"{machine['device']}, {settings['precision']}, torch {machine['torch']}, {machine['threads']} CPU threads, "
        f"load {machine['load_average']} to {machine['load_average_at_end']}",
        f"measured peak of matrix products: {scaled(report.peak)}FLOP/s",
        f"training: {settings['clips']} clips x {settings['frames_per_step']} frames a step; "
        f"sampling: {settings['steps']} steps, guidance {settings['guidance']:g}; random weights",
        "",
        f"{'FLOP of one forward pass':<36}{'batch 1':>12}{'batch 2':>12}",
    ]
    single, double = report.parts["batch 1"], report.parts["batch 2"]
    parts = [f"  {part:<34}{scaled(single[part]):>12}{scaled(double[part]):>12}" for part in single]
    total = f"  {'total':<34}{scaled(sum(single.values())):>12}{scaled(sum(double.values())):>12}"
    rows = [columns(row) for row in report.rows]
    notes = [f"  {row.name}: {row.note}" for row in report.rows if row.note]
    if any("left out" in row.note for row in report.rows):
        notes.append("  Shrink with --image-size, --frames, --views, --batch or --steps to measure what was left out.")
    explained = [
        "",
        "ms are medians; plain counterparts ran in turns with ours and gave the same result. memory is the peak,",
        "weights included; tensors is what was predicted of it on meta. FLOP leaves out what checkpointing runs twice.",
    ]
    return "\n".join([*head, *parts, total, "", line(COLUMNS), *rows, *([""] if notes else []), *notes, *explained])


def columns(row: Row) -> str:
    """Return one row of the second table."""
    timing = row.timing
    return line(
        (
            row.name,
            milliseconds(timing.ms) if timing else "-",
            f"{milliseconds(timing.low)}-{milliseconds(timing.high)}" if timing else "-",
            milliseconds(timing.cpu_ms) if timing and timing.cpu_ms is not None else "-",
            scaled(row.flops),
            "-" if row.share is None else f"{row.share:.1%}",
            megabytes(row.bytes),
            megabytes(row.predicted_bytes),
            milliseconds(row.plain.ms) if isinstance(row.plain, Timing) else "-",
            megabytes(row.plain_bytes),
            "-" if row.ratio is None else f"{row.ratio:.3f}",
            "-" if row.cpu_ratio is None else f"{row.cpu_ratio:.3f}",
        )
    )


def line(cells: tuple[str, ...]) -> str:
    """Return cells in columns, the first to the left."""
    first, *rest = zip(cells, WIDTHS, strict=True)
    return f"{first[0]:<{first[1]}}" + "".join(f" {cell:>{width}}" for cell, width in rest)


def milliseconds(value: float) -> str:
    """Return a duration with three digits or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def megabytes(value: int | None) -> str:
    """Return a size in MB or GB."""
    if value is None:
        return "-"
    return f"{value / 1e9:.3g} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def scaled(value: float) -> str:
    """Return a number with its unit's prefix, as in 25.97 T."""
    for prefix, size in (("T", 1e12), ("G", 1e9)):
        if value >= size:
            return f"{value / size:.4g} {prefix}"
    return f"{value / 1e6:.4g} M"
