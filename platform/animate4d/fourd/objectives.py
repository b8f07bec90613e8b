"""What a moving object is compared by: pictures and masks (papers 001 eq. 10, 002 eq. 7) and smoothness over time."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from animate4d.core.clip import GREY
from animate4d.fourd.photometric import Pictures


def reconstruction(drawn: Tensor, target: Tensor) -> Tensor:
    """Return `[F]`: mean squared error of colours on grey plus mean squared error of coverage.

    The released code's form of the papers' loss: two terms with one weight, the drawn colours not cut by the mask.

    Args:
        drawn: `[F, V, 4, H, W]` premultiplied rgb and coverage.
        target: the same of the video.
    """
    # on grey both sides: p + (1 - a) / 2, so the difference is that of p less half that of a
    difference = drawn - target
    colour = difference[:, :, :3] - GREY * difference[:, :, 3:]
    return colour.square().mean((1, 2, 3, 4)) + difference[:, :, 3].square().mean((1, 2, 3))


def binary(pictures: Pictures) -> Pictures:
    """Return the video with its masks cut at one half; colours of what stays are not dimmed by the old edge."""
    alpha = pictures.frames[:, :, 3:]
    kept = (alpha > 0.5).to(alpha.dtype)
    colour = pictures.frames[:, :, :3] / alpha.clamp(min=0.5) * kept
    return replace(pictures, frames=torch.cat([colour, kept], 2))


def jerk(positions: Tensor) -> Tensor:
    """Return the mean squared second difference over time of positions `[T, N, 3]`; zero for less than three frames."""
    if len(positions) < 3:
        return positions.new_zeros(())
    return positions.diff(n=2, dim=0).square().sum(-1).mean()
