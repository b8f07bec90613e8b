"""How near a fit comes to the truth, where the truth is known: vertices, and pictures from seen and unseen sides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from animate4d.core.cameras import Rig
from animate4d.core.clip import MultiViewVideo
from animate4d.core.mesh import Mesh
from animate4d.fourd.film import film_splats
from animate4d.fourd.fit import FitResult
from animate4d.metrics.motion import vertex_error
from animate4d.metrics.video import psnr
from animate4d.views.clip import render_poses

NO_MOTION = 0.001
"""Below this a ratio to the true motion says nothing: the fit is good to a tenth of a pixel at best."""

UNSEEN = (Rig.even(4, start_deg=45.0),)
"""Half-way between the four views of the video, at their elevation."""

EVALUATION = (
    Rig(azimuths_deg=(30.0, 120.0, 210.0, 300.0), elevation_deg=0.0),
    Rig(azimuths_deg=(315.0, 45.0, 135.0, 225.0), elevation_deg=30.0),
)
"""The released Animate3D evaluation cameras that are not the video's (visualize_testset_frame_16.yaml)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TruthScore:
    """Scores of one fit.

    Attributes:
        e_fit: mean vertex error after frame 0, share of the diameter.
        e_static: the same of not moving at all.
        ratio: e_fit / e_static; None where the truth stands still.
        psnr: dB over whole pictures of the splats, in the video's views.
        psnr_unseen: dB from the cameras asked for, by name.
    """

    e_fit: float
    e_static: float
    ratio: float | None
    psnr: float
    psnr_unseen: dict[str, float]


def score_fit(
    mesh: Mesh,
    fit: FitResult,
    true: np.ndarray,
    video: MultiViewVideo,
    unseen: Mapping[str, Sequence[Rig]],
    *,
    lamps: bool = False,
) -> TruthScore:
    """Score a fitted motion.

    Args:
        mesh: of N vertices.
        fit: what was found.
        true: `[T, N, 3]`.
        video: that was fitted; square pictures.
        unseen: rigs, from which the true poses are rendered for comparison, by name.
        lamps: whether each pose of the video was lit anew.
    """
    error = vertex_error(fit.motion.apply(mesh.vertices), true)
    splats, size = fit.splat_motion(mesh.vertices), video.rgb.shape[2]

    def likeness(shown: MultiViewVideo) -> float:
        drawn = film_splats(fit.splats, splats, shown.camera_to_world, shown.intrinsics, size)
        # identical pictures would be infinitely alike, which JSON cannot say
        return round(min(psnr(drawn, shown.on_grey()), 99.0), 3)

    return TruthScore(
        e_fit=round(error.fit, 6),
        e_static=round(error.static, 6),
        ratio=round(error.ratio, 4) if error.static >= NO_MOTION and math.isfinite(error.ratio) else None,
        psnr=likeness(video),
        psnr_unseen={
            name: likeness(render_poses(mesh, true, video.times, rigs, size, lamps=lamps))
            for name, rigs in unseen.items()
        },
    )
