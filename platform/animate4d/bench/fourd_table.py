"""The motion-fit bench's table for people: a line per clip, and a summary per variant."""

from __future__ import annotations

from typing import Any

import numpy as np

from animate4d.bench.fourd_variants import AS_IS

MEASURES = (
    ("ratio", "ratio", "{:.3f}", max),
    ("e_fit", "error", "{:.2%}", max),
    ("psnr", "PSNR", "{:.1f}", min),
    ("psnr_unseen", "unseen", "{:.1f}", min),
    ("psnr_evaluation", "evaluation", "{:.1f}", min),
    ("mask_iou", "mask IoU", "{:.3f}", min),
    ("cpu_s", "CPU s", "{:.0f}", max),
    ("peak_mb", "peak MB", "{:.0f}", max),
)
"""Column of a row, title, form, and which end is the worst."""


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per variant, in order of appearance: median and worst of every measure over its clips."""
    found = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        line: dict[str, Any] = {"variant": variant, "clips": len(own)}
        for name, _, _, worst in MEASURES:
            values = [row[name] for row in own if row[name] is not None]
            line[f"{name}_median"] = float(np.median(values)) if values else None
            line[f"{name}_worst"] = worst(values) if values else None
        found.append(line | {"frames_lost": sum(len(row["lost_frames"].split()) for row in own)})
    return found


def text_table(rows: list[dict[str, Any]]) -> str:
    """Return the clips of the preset as it is, and the summary of all variants (median / worst)."""
    clips = [row for row in rows if row["variant"] == AS_IS]
    lines = [["clip", *(title for _, title, _, _ in MEASURES), "lost frames"]]
    lines += [[row["clip"], *_cells(row, "{name}"), row["lost_frames"]] for row in clips]
    titles = [title for _, title, _, _ in MEASURES]
    sums = [["variant", *titles, "frames lost"]]
    for line in summaries(rows):
        pairs = zip(_cells(line, "{name}_median"), _cells(line, "{name}_worst"), strict=True)
        sums.append([line["variant"], *(f"{median} / {worst}" for median, worst in pairs), str(line["frames_lost"])])
    return "\n".join([*_aligned(lines), "", "median / worst over the clips", *_aligned(sums)])


def _cells(row: dict[str, Any], key: str) -> list[str]:
    values = [(row[key.format(name=name)], form) for name, _, form, _ in MEASURES]
    return ["-" if value is None else form.format(value) for value, form in values]


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    ]
