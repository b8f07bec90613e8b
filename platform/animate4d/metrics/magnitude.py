"""Diffusion4D's motion magnitude of a clip (paper 003 eq. 1), from the pictures themselves.

m(V) = 1/T sum_i ||I_i - Ibar_i||^2, where Ibar is the object held still under the same cameras. Our views stand still,
so Ibar_i is frame 0 of the same view. The paper gives neither value range nor normalisation; here values are in [0, 1],
on grey, and the mean over elements replaces the sum, so that m does not depend on the resolution (eq. 1 is m x 3 H W).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from animate4d.core.clip import GREY, MultiViewVideo


class Magnitude(NamedTuple):
    """Two readings of the same sum.

    Attributes:
        picture: mean over all elements; depends on how much of the picture the object covers.
        object: mean over elements where the object is or was in frame 0; comparable between objects of other sizes.
    """

    picture: float
    object: float


def motion_magnitude(video: MultiViewVideo) -> Magnitude:
    """Measure how much the pictures of a clip change; needs the memory of one view as floats."""
    total = inside = elements = region = 0.0
    for rgb, alpha in zip(video.rgb, video.alpha, strict=True):
        coverage = alpha[..., None].astype(np.float32) / 255.0
        view = (rgb.astype(np.float32) / 255.0 - GREY) * coverage
        squared = np.square(view - view[:1]).mean(-1)
        seen = (alpha > 0) | (alpha[:1] > 0)
        total += float(squared.sum(dtype=np.float64))
        inside += float(squared[seen].sum(dtype=np.float64))
        elements += squared.size
        region += int(seen.sum())
    return Magnitude(picture=total / max(elements, 1), object=inside / max(region, 1))
