"""Tracks drawn on frames: a row per tracker, columns through time.

A dot is a point the tracker believes in, its tail where it has been. A white line leads to where the point truly is; a
hollow ring is a point in sight that the tracker has given up.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from animate4d.bench.trackers_clips import TrueClip
from animate4d.core.tracks import Tracks

TILE, GAP, LINE = 224, 4, 16
SCALE = 2
"""Everything is drawn this much larger and averaged down, for smooth lines."""

COLUMNS = 5
TAIL = 10
"""Frames a tail goes back."""

MARKED_PX = 2.0
"""Error, in pixels of a picture of 256, from which the line to the true place is drawn."""

BACKGROUND, INK = (24, 24, 27), (235, 235, 235)


def draw_clip(clip: TrueClip, found: Mapping[str, Tracks], *, view: int | None = None) -> np.ndarray:
    """Draw one view of a clip as every tracker follows it.

    Args:
        clip: the truth.
        found: tracker -> its tracks.
        view: which; default the one with the most points.

    Returns:
        `[height, width, 3]` uint8.
    """
    view = int(clip.valid.sum(1).argmax()) if view is None else view
    frames = np.linspace(0, clip.video.shape[1] - 1, COLUMNS).round().astype(int)
    rows = {"exact": clip.tracks, **found}
    sheet = Image.new("RGB", (COLUMNS * (TILE + GAP) + GAP, len(rows) * (TILE + LINE + GAP) + LINE), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 2), f"{clip.name}, view {view}, frames {', '.join(map(str, frames))}", fill=INK)
    for row, (name, tracks) in enumerate(rows.items()):
        top = LINE + row * (TILE + LINE + GAP)
        pen.text((GAP, top + 2), name, fill=INK)
        for column, frame in enumerate(frames):
            tile = draw_tile(clip, tracks, view, int(frame))
            sheet.paste(tile, (GAP + column * (TILE + GAP), top + LINE))
    return np.asarray(sheet)


def draw_tile(clip: TrueClip, tracks: Tracks, view: int, frame: int) -> Image.Image:
    """Draw the points of one view in one frame."""
    side = TILE * SCALE
    image = Image.fromarray(clip.video[view, frame]).resize((side, side), Image.Resampling.BICUBIC)
    # Paler pictures let the points stand out.
    image = Image.blend(image, Image.new("RGB", image.size, (128, 128, 128)), 0.35)
    pen = ImageDraw.Draw(image)
    scale = side / clip.video.shape[3]
    xy, true_xy = tracks.xy[view] * scale, clip.tracks.xy[view] * scale
    for point in np.flatnonzero(clip.valid[view]):
        color = color_at(clip.queries[view, point], clip.queries[view][clip.valid[view]])
        believed, seen = tracks.visible[view, :, point] > 0, clip.tracks.visible[view, frame, point] > 0
        if believed[frame]:
            tail = [at for at in range(max(0, frame - TAIL), frame + 1) if believed[at]]
            if len(tail) > 1:
                pen.line([tuple(xy[at, point]) for at in tail], fill=color, width=SCALE)
            if seen and np.linalg.norm(xy[frame, point] - true_xy[frame, point]) > MARKED_PX * side / 256:
                pen.line([tuple(xy[frame, point]), tuple(true_xy[frame, point])], fill=(255, 255, 255), width=SCALE)
            disc(pen, xy[frame, point], 2.5 * SCALE, fill=color)
        elif seen:
            disc(pen, true_xy[frame, point], 2.5 * SCALE, outline=color)
    return image.resize((TILE, TILE), Image.Resampling.BOX)


def disc(
    pen: ImageDraw.ImageDraw,
    centre: np.ndarray,
    radius: float,
    *,
    fill: tuple[int, int, int] | None = None,
    outline: tuple[int, int, int] | None = None,
) -> None:
    """Draw a disc or a ring."""
    x, y = (float(value) for value in centre)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=outline, width=SCALE)


def color_at(start: np.ndarray, starts: np.ndarray) -> tuple[int, int, int]:
    """Return a point's colour: hue by its height in frame 0, so that mixed-up points show."""
    low, high = starts[:, 1].min(), starts[:, 1].max()
    hue = 0.8 * float((start[1] - low) / max(high - low, 1e-6))
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return int(red * 255), int(green * 255), int(blue * 255)
