"""A bar chart of the error of every probed layer, in network order, beside what it has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from animate4d.pipeline.probe import REFERENCE_PX

LABEL, PLOT, ROW, TOP, SCALE = 300, 560, 22, 74, 2
BACKGROUND, INK, FAINT, LINE = (255, 255, 255), (30, 30, 34), (110, 110, 118), (226, 226, 230)
STILL = (205, 50, 60)
KINDS = {
    "resnets": (150, 160, 175),
    "attentions": (86, 152, 214),
    "motion_modules": (232, 136, 48),
    "branch": (246, 196, 140),
    "block": (70, 170, 110),
}
"""Colour of each kind of layer."""


def draw_chart(rows: Sequence[Mapping[str, Any]], baselines: Mapping[str, Mapping[str, Any]], own: str) -> np.ndarray:
    """Draw one bar per layer.

    Args:
        rows: one result row per tap, in the order to draw; those without an error are left out.
        baselines: name -> scores, with "points do not move".
        own: the tap that training supervises.

    Returns:
        `[height, width, 3]` uint8.
    """
    rows = [row for row in rows if row["error"] is not None]
    still = baselines["points do not move"]["error"] * REFERENCE_PX
    errors = [REFERENCE_PX * (row["error"] + (row.get("error_se") or 0)) for row in rows]
    step = _tick_step(max([*errors, still]))
    span = step * (int(max([*errors, still]) / step) + 1)
    size = (LABEL + PLOT + 60, TOP + ROW * len(rows) + 46)
    sheet = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), BACKGROUND)
    draw = ImageDraw.Draw(sheet)

    def x_of(px: float) -> float:
        return LABEL + PLOT * px / span

    def text(x: float, y: float, words: str, height: int, colour: tuple[int, int, int], anchor: str = "la") -> None:
        draw.text(
            (x * SCALE, y * SCALE), words, fill=colour, font=ImageFont.load_default(height * SCALE), anchor=anchor
        )

    def line(x0: float, y0: float, x1: float, y1: float, colour: tuple[int, int, int], width: float = 1) -> None:
        draw.line([(x0 * SCALE, y0 * SCALE), (x1 * SCALE, y1 * SCALE)], fill=colour, width=round(width * SCALE))

    text(16, 8, "How far from the truth each layer's features find a point", 17, INK)
    bottom = TOP + ROW * len(rows)
    for tick in np.arange(0, span + step / 2, step):
        line(x_of(tick), TOP, x_of(tick), bottom, LINE)
        text(x_of(tick), bottom + 5, f"{tick:g}", 12, FAINT, "ma")
    text(
        x_of(span / 2),
        bottom + 23,
        f"mean error, pixels of a {REFERENCE_PX} px picture (with standard error)",
        12,
        FAINT,
        "ma",
    )
    place = 16.0
    for kind, colour in KINDS.items():
        words = {"motion_modules": "motion module", "branch": "one branch of it", "block": "block output"}.get(
            kind, kind.removesuffix("s")
        )
        draw.rectangle([place * SCALE, 40 * SCALE, (place + 11) * SCALE, 51 * SCALE], fill=colour)
        text(place + 16, 38, words, 12, FAINT)
        place += 34 + draw.textlength(words, font=ImageFont.load_default(12 * SCALE)) / SCALE
    line(place, 38, place, 52, INK, 2)
    text(place + 6, 38, "floor of its map", 12, FAINT)
    for y in range(TOP, bottom, 8):
        line(x_of(still), y, x_of(still), min(y + 4, bottom), STILL, 1.5)
    for number, row in enumerate(rows):
        y, px = TOP + number * ROW, REFERENCE_PX * row["error"]
        supervised = row["tap"] == own
        text(LABEL - 8, y + ROW / 2, row["tap"] + (" *" if supervised else ""), 12, INK if supervised else FAINT, "rm")
        box = [LABEL * SCALE, (y + 4) * SCALE, x_of(px) * SCALE, (y + ROW - 4) * SCALE]
        draw.rectangle(box, fill=KINDS[_kind(row["tap"])])
        spread = REFERENCE_PX * (row.get("error_se") or 0)
        line(x_of(max(px - spread, 0)), y + ROW / 2, x_of(px + spread), y + ROW / 2, INK)
        floor = x_of(REFERENCE_PX * row["floor"])
        if floor <= LABEL + PLOT:
            line(floor, y + 2, floor, y + ROW - 2, INK, 2)
        words, after = f"{px:.1f}", x_of(px + spread) + 5
        width = 7 * len(words)
        if after - 3 < floor < after + width:
            after = floor + 5
        box = [(after - 2) * SCALE, (y + 4) * SCALE, (after + width) * SCALE, (y + ROW - 4) * SCALE]
        draw.rectangle(box, fill=BACKGROUND)
        text(after, y + ROW / 2, words, 12, INK, "lm")
    text(x_of(still), TOP - 16, f"points do not move {still:.1f}", 12, STILL, "ma")
    return np.asarray(sheet.resize(size, Image.Resampling.BOX))


def _kind(tap: str) -> str:
    if tap.endswith((".temporal", ".spatial")):
        return "branch"
    return next((kind for kind in KINDS if f".{kind}." in tap), "block")


def _tick_step(largest: float) -> float:
    """Return the 1, 2, 5 or 10 times a power of ten that gives four to ten ticks."""
    power = 10.0 ** np.floor(np.log10(max(largest, 1e-6) / 4))
    return float(next(power * factor for factor in (1, 2, 5, 10) if largest / (power * factor) <= 8))
