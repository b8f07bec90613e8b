"""What a fit looks like from where no view of the video was, beside the truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from animate4d.bench.fourd_clips import MotionClip
from animate4d.fourd.film import film_splats
from animate4d.fourd.fit import FitResult
from animate4d.io.images import contact_sheet
from animate4d.pipeline.truth import UNSEEN
from animate4d.views.clip import render_poses

TILE = 192
"""Pixels of one picture."""

COLUMNS = 6


def draw_fit(clip: MotionClip, fit: FitResult, row: dict[str, Any]) -> np.ndarray:
    """Draw the true poses above the fitted splats, from the unseen side where they differ most.

    Args:
        clip: the truth.
        fit: what was found.
        row: scores, for the caption.

    Returns:
        `[height, width, 3]` uint8.
    """
    frames = np.linspace(0, len(clip.times) - 1, COLUMNS).round().astype(int)
    true = render_poses(clip.mesh, clip.vertices[frames], clip.times[frames], UNSEEN, TILE)
    splats = fit.splat_motion(clip.mesh.vertices)
    part = {
        name: values[frames]
        for name in ("means", "quats", "scales", "sh")
        if (values := getattr(splats, name)) is not None
    }
    drawn = film_splats(fit.splats, replace(splats, **part), true.camera_to_world, true.intrinsics, TILE)
    shown = true.on_grey()
    view = int(np.abs(drawn - shown).mean((1, 2, 3, 4)).argmax())
    ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3f}"
    caption = f"{clip.name}: ratio {ratio}, {row['psnr_unseen']:.1f} dB; azimuth {UNSEEN[0].azimuths_deg[view]:g}"
    text = f"{caption}, frames {', '.join(map(str, frames))}; above true, below fitted"
    rows = [np.round(255 * pictures[view]).astype(np.uint8) for pictures in (shown, drawn)]
    return contact_sheet([(text, list(rows[0])), ("", list(rows[1]))])
