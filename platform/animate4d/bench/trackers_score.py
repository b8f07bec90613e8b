"""How good tracks are against exact ones: the measures of TAP-Vid (arXiv 2211.03726), and those of a label maker.

TAP-Vid counts pixels of a 256 px picture and looks at every truly visible point after its query frame, also where the
tracker has given up. A label maker uses only what a tracker believes in: how much that is, and how far off it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from animate4d.core.tracks import Tracks
from animate4d.metrics.points import position_error, share_within

REFERENCE_PX = 256
THRESHOLDS_PX = (1, 2, 4, 8, 16)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackScore:
    """Scores of one clip; NaN where nothing counts.

    Attributes:
        error_px: mean distance over truly visible points, pixels of a picture of 256.
        within: share of them within 1, 2, 4, 8 and 16 pixels, averaged (delta-average, a mean of PCK).
        occlusion: share of all points and frames where seen or hidden is told right.
        jaccard: average Jaccard: right and believed over all that is true or believed.
        kept: share of truly visible points that the tracker believes in.
        kept_error_px: mean distance of those.
        false: share of believed points that are truly hidden.
    """

    error_px: float
    within: float
    occlusion: float
    jaccard: float
    kept: float
    kept_error_px: float
    false: float


def score_tracks(found: Tracks, true: Tracks, size: int) -> TrackScore:
    """Score tracks of a clip of `size` pixels; points are those visible in frame 0, frames those after it."""
    real = true.visible[:, :1] > 0
    xy, true_xy = (tracks.xy[:, 1:] * (REFERENCE_PX / size) for tracks in (found, true))
    seen = ((true.visible[:, 1:] > 0) & real).astype(np.float64)
    believed = ((found.visible[:, 1:] > 0) & real).astype(np.float64)
    points = float(real.sum()) * xy.shape[1]
    both = seen * believed
    close = np.linalg.norm(xy.astype(np.float64) - true_xy, axis=-1)
    right = [float((both * (close <= threshold)).sum()) for threshold in THRESHOLDS_PX]
    return TrackScore(
        error_px=position_error(xy, true_xy, seen),
        within=float(np.mean([share_within(xy, true_xy, seen, threshold) for threshold in THRESHOLDS_PX])),
        occlusion=share(points - float(np.abs(seen - believed).sum()), points),
        # Wrong and believed counts against it twice: as a point missed, and as one made up.
        jaccard=float(np.mean([share(hit, seen.sum() + believed.sum() - hit) for hit in right])),
        kept=share(both.sum(), seen.sum()),
        kept_error_px=position_error(xy, true_xy, both),
        false=share((believed - both).sum(), believed.sum()),
    )


def mean_score(scores: list[TrackScore]) -> dict[str, float]:
    """Average over clips, each counting the same; clips where a measure is undefined do not count for it."""
    names = list(asdict(scores[0]))
    columns = {name: np.array([getattr(score, name) for score in scores]) for name in names}
    return {
        name: float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
        for name, values in columns.items()
    }


def share(part: float, whole: float) -> float:
    """Return part / whole, NaN for nothing of nothing."""
    return float(part / whole) if whole else float("nan")
