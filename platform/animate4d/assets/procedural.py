"""Generate animated, articulated, coloured objects as skinned GLBs: the project's own training data and test models.

Everything follows from the seed. Files are read back by the common reader like everybody else's.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from animate4d.assets.creatures import CREATURES
from animate4d.assets.figure_glb import Paint, write_figure
from animate4d.assets.figures import Figure
from animate4d.assets.paint import PALETTE, PATTERNS
from animate4d.assets.props import PROPS
from animate4d.assets.rigging import caption_of, draw_clips, figure_of_prop
from animate4d.assets.verbs import WHOLE_BODY_VERBS, spine_of
from animate4d.core.errors import ConfigError
from animate4d.core.hashing import slug
from animate4d.io.atomic import write_text

FAMILIES = (*CREATURES, *PROPS)
"""Families with limbs first, then props that only whole-body verbs can move."""


def generate_objects(
    out: Path,
    *,
    count: int,
    seed: int = 0,
    families: Sequence[str] | None = None,
    clips_per_object: int | None = None,
) -> list[Path]:
    """Write `count` animated GLBs and `captions.csv` (file,clip,caption) into a folder.

    Object k depends on the seed and k alone, so a larger count only adds files.

    Args:
        out: folder; created when missing.
        count: number of objects; families take turns.
        seed: of everything drawn.
        families: names from FAMILIES; all when None.
        clips_per_object: at most so many clips, own verbs first; every verb once when None. More than the number of
            verbs gives some verbs with several strengths.

    Returns:
        Paths in order.

    Raises:
        ConfigError: for an unknown family or a count below 1.
    """
    chosen = FAMILIES if families is None else tuple(families)
    unknown = sorted(set(chosen) - set(FAMILIES))
    if unknown or not chosen:
        raise ConfigError(f"families: unknown {', '.join(unknown) or 'empty list'}; choose from {', '.join(FAMILIES)}")
    if count < 1 or (clips_per_object is not None and clips_per_object < 1):
        raise ConfigError(f"count is {count}, clips_per_object is {clips_per_object}: both must be at least 1")
    out.mkdir(parents=True, exist_ok=True)
    paths, rows = [], []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        family = chosen[index % len(chosen)]
        figure = _figure(family, rng)
        color, pattern, paint = _paint(figure, rng)
        clips = draw_clips(figure, spine_of(figure.vertices()), WHOLE_BODY_VERBS, rng, clips_per_object)
        path = out / f"{family}-{seed}-{index:05d}-{slug(f'{color} {figure.noun}')}.glb"
        write_figure(path, figure, paint, clips, rng)
        subject = " ".join(word for word in (color, PATTERNS[pattern], figure.noun) if word)
        rows += [(path.name, clip.name, caption_of(subject, clip.name)) for clip in clips]
        paths.append(path)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("file", "clip", "caption"))
    writer.writerows(rows)
    write_text(out / "captions.csv", table.getvalue())
    return paths


def _figure(family: str, rng: np.random.Generator) -> Figure:
    return CREATURES[family](rng) if family in CREATURES else figure_of_prop(PROPS[family](rng))


def _paint(figure: Figure, rng: np.random.Generator) -> tuple[str, str, Paint]:
    """Draw colours and a pattern; returns the words captions use beside the paint."""
    color = figure.colors.get("main", str(rng.choice(list(PALETTE))))
    accent = str(rng.choice([name for name in PALETTE if name != color]))
    pattern = str(rng.choice(list(PATTERNS), p=(0.28, 0.22, 0.18, 0.14, 0.18)))
    unit = spine_of(figure.vertices()).unit
    tints = [np.clip(np.array(PALETTE[name]) + rng.normal(0, 0.03, 3), 0.03, 0.97) for name in (color, accent)]
    paint = Paint(
        main=tuple(tints[0].tolist()),
        accent=tuple(tints[1].tolist()),
        pattern=pattern,
        grain=unit * rng.uniform(0.22, 0.4),
        textured=bool(rng.random() < (0.5 if pattern == "gradient" else 0.75)),
    )
    return color, pattern, paint
