"""The picture of paper 001's Fig. 3 for one clip: followed points in every view, and where one of them is looked for.

Left, true points are rings and found ones dots of the same colour, joined by a line as long as the error. Right, the
similarity of one point of frame 0 with every place of later frames: brighter is more alike.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline.probe import REFERENCE_PX, ProbeClip, first_points, score, tapped
from animate4d.pipeline.probe_config import ProbeConfig
from animate4d.pipeline.probe_match import find_points, similarity

TILE, GAP, SCALE = 176, 6, 2
"""Pixels of a frame and between frames; everything is drawn `SCALE` times as large, then averaged down."""

SHOWN_FRAMES = 4
SHOWN_POINTS = 10
"""Points drawn per view, spread out: with all of them nothing can be told apart."""

BACKGROUND, INK, FAINT = (24, 24, 27), (235, 235, 235), (150, 150, 155)


@dataclass(frozen=True, slots=True)
class Followed:
    """Points of a clip followed with one layer.

    Attributes:
        clip: the truth.
        found: `[V, T, P, 2]` positions as shares of the picture.
        cosines: `[V, T, P, h, w]`.
    """

    clip: ProbeClip
    found: np.ndarray
    cosines: np.ndarray


def picture_of(config: ProbeConfig, model: MVVDM, clip: ProbeClip, number: int, row: Mapping[str, Any]) -> np.ndarray:
    """Follow a clip's points with the layer, noise level and centring of a result row, and draw it.

    Args:
        config: of the probe.
        model: the probed model.
        clip: the clip.
        number: its place in the folder, which seeds its noise as in the probe.
        row: of the probe's result.

    Returns:
        `[height, width, 3]` uint8.
    """
    features = tapped(config, model, clip, number, row["timestep"], [row["tap"]])[row["tap"]]
    cosines = similarity(features, first_points(clip, model), centred=row["centred"])
    found = find_points(cosines)[row["match"]].double().cpu().numpy()
    px, still = (
        REFERENCE_PX * score(points, clip, config)["error"]
        for points in (found, np.repeat(clip.points[:, :1], clip.points.shape[1], axis=1))
    )
    titles = (
        clip.meta.caption,
        f"{row['tap']}, {row['height']} x {row['width']} cells, noise {row['timestep']}: {px:.1f} px off on average "
        f"(not moving: {still:.1f} px) in a picture of {REFERENCE_PX} px",
    )
    return draw_followed(Followed(clip, found, cosines.cpu().numpy()), titles)


def draw_followed(followed: Followed, titles: tuple[str, str]) -> np.ndarray:
    """Lay out views as rows; left the points in some frames, right the similarity map of one point in the same frames.

    Args:
        followed: what to draw.
        titles: a headline and a line below it.
    """
    views, frames = followed.clip.video.shape[:2]
    shown = np.unique(np.linspace(0, frames - 1, min(SHOWN_FRAMES, frames)).round().astype(int))
    block = len(shown) * (TILE + GAP)
    left, right, top = GAP, GAP + block + 3 * GAP, 92
    size = (right + block, top + views * (TILE + GAP) + 30)
    sheet = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _text(draw, (left, 5), titles[0], 17, INK)
    _text(draw, (left, 28), titles[1], 12, FAINT)
    for start, what in ((left, "Points followed, view by view"), (right, "Likeness to one point of frame 0")):
        _text(draw, (start, top - 38), what, 13, INK)
        for column, frame in enumerate(shown):
            _text(draw, (start + column * (TILE + GAP), top - 19), f"frame {frame}", 12, FAINT)
    for view in range(views):
        y = top + view * (TILE + GAP)
        points = spread_points(followed.clip, view)
        asked = telling_point(followed.clip, view, shown)
        for column, frame in enumerate(shown):
            picture = _enlarged(followed.clip.video[view, frame])
            x = left + column * (TILE + GAP)
            sheet.paste(Image.fromarray(picture), (x * SCALE, y * SCALE))
            _draw_points(draw, (x, y), followed, view, frame, points)
            x = right + column * (TILE + GAP)
            if asked is None:
                sheet.paste(Image.fromarray(picture), (x * SCALE, y * SCALE))
                continue
            sheet.paste(
                Image.fromarray(_heat(picture, followed.cosines[view, :, asked], frame)), (x * SCALE, y * SCALE)
            )
            _draw_asked(draw, (x, y), followed, view, frame, asked)
    below = top + views * (TILE + GAP) + 7
    _legend(draw, left, right, below)
    return np.asarray(sheet.resize(size, Image.Resampling.BOX))


def spread_points(clip: ProbeClip, view: int) -> list[int]:
    """Return up to `SHOWN_POINTS` points of a view, each as far as possible from those before it in frame 0."""
    candidates = np.flatnonzero(clip.weight[view, 1:].sum(0) > 0)
    if not len(candidates):
        return []
    places = clip.points[view, 0, candidates]
    chosen = [int(np.argmax(clip.motion[view, :, candidates].max(1)))]
    while len(chosen) < min(SHOWN_POINTS, len(candidates)):
        distance = np.linalg.norm(places[:, None] - places[chosen], axis=-1).min(1)
        chosen.append(int(distance.argmax()))
    return [int(candidates[index]) for index in chosen]


def telling_point(clip: ProbeClip, view: int, shown: Sequence[int] | np.ndarray) -> int | None:
    """Return the point whose map says most: seen in as many of the shown frames as any, and moving furthest in them."""
    later = [frame for frame in shown if frame > 0]
    seen = (clip.weight[view, later] > 0).sum(0)
    if not seen.any():
        return None
    motion = np.where(clip.weight[view, later] > 0, clip.motion[view, later], 0).max(0)
    return int(np.lexsort((motion, seen))[-1])


def _draw_points(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], followed: Followed, view: int, frame: int, points: list[int]
) -> None:
    clip = followed.clip
    for index, point in enumerate(points):
        colour = _hue(index, len(points))
        true = _place(corner, clip.points[view, frame, point])
        if frame == 0:
            _disc(draw, true, 3.5, colour)
        elif clip.weight[view, frame, point] > 0:
            found = _place(corner, followed.found[view, frame, point])
            draw.line([true, found], fill=colour, width=SCALE)
            _ring(draw, true, 4.5, colour)
            _disc(draw, found, 2.8, colour)


def _draw_asked(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], followed: Followed, view: int, frame: int, asked: int
) -> None:
    clip = followed.clip
    true = _place(corner, clip.points[view, frame, asked])
    if frame == 0:
        _disc(draw, true, 4, (255, 255, 255))
        return
    found = _place(corner, followed.found[view, frame, asked])
    if clip.weight[view, frame, asked] > 0:
        _ring(draw, true, 6, (255, 255, 255))
        _disc(draw, found, 3, (90, 220, 255))
    else:
        _text(draw, (corner[0] + 5, corner[1] + 4), "hidden", 12, INK)


def _legend(draw: ImageDraw.ImageDraw, left: int, right: int, y: int) -> None:
    _ring(draw, ((left + 8) * SCALE, (y + 9) * SCALE), 4.5, INK)
    _text(draw, (left + 18, y + 1), "true", 12, FAINT)
    _disc(draw, ((left + 62) * SCALE, (y + 9) * SCALE), 3, INK)
    _text(draw, (left + 70, y + 1), "found (only points that are visible then are drawn and scored)", 12, FAINT)
    _ring(draw, ((right + 8) * SCALE, (y + 9) * SCALE), 6, (255, 255, 255))
    _text(draw, (right + 18, y + 1), "true", 12, FAINT)
    _disc(draw, ((right + 62) * SCALE, (y + 9) * SCALE), 3, (90, 220, 255))
    _text(draw, (right + 70, y + 1), "found", 12, FAINT)
    _text(draw, (right + 132, y + 1), "unlike", 12, FAINT)
    bar = right + 174
    for step in range(100):
        colour = tuple(int(value) for value in _colours(np.array([[step / 99]]))[0, 0])
        box = [(bar + step) * SCALE, (y + 4) * SCALE, (bar + step + 1) * SCALE, (y + 14) * SCALE]
        draw.rectangle(box, fill=colour)
    _text(draw, (bar + 107, y + 1), "alike", 12, FAINT)


def _heat(picture: np.ndarray, cosines: np.ndarray, frame: int) -> np.ndarray:
    """Colour the map of one frame; all frames of a point share one scale, so a lost point looks dark.

    Squared, because half of the range is above the median and would all look bright.
    """
    low, high = float(cosines.min()), float(cosines.max())
    side = TILE * SCALE
    smooth = cv2.resize(cosines[frame].astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    colours = _colours(np.square((smooth - low) / max(high - low, 1e-9)))
    grey = picture.mean(-1, keepdims=True)
    return np.clip(0.8 * colours + 0.25 * grey, 0, 255).astype(np.uint8)


def _colours(values: np.ndarray) -> np.ndarray:
    """Map `[h, w]` in [0, 1] from dark to bright RGB."""
    level = (values.clip(0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def _enlarged(picture: np.ndarray) -> np.ndarray:
    side = TILE * SCALE
    large = cv2.resize(picture.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return (large.clip(0, 1) * 255).round().astype(np.uint8)


def _place(corner: tuple[int, int], share: np.ndarray) -> tuple[float, float]:
    x, y = np.asarray(share, np.float64).clip(0, 1) * TILE
    return (corner[0] + float(x)) * SCALE, (corner[1] + float(y)) * SCALE


def _hue(index: int, count: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(index / count, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _disc(draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
    draw.circle(centre, (radius + 1) * SCALE, fill=(0, 0, 0))
    draw.circle(centre, radius * SCALE, fill=colour)


def _ring(draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
    draw.circle(centre, (radius + 0.7) * SCALE, outline=(0, 0, 0), width=SCALE)
    draw.circle(centre, radius * SCALE, outline=colour, width=round(1.6 * SCALE))


def _text(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], words: str, size: int, colour: tuple[int, int, int]
) -> None:
    draw.text((corner[0] * SCALE, corner[1] * SCALE), words, fill=colour, font=ImageFont.load_default(size * SCALE))
