"""FreeInit (arXiv 2312.07537): noise for another round of sampling that keeps the slow part of the clip before.

The frequencies are those of the noised frames `[F, h, w]` (frame 0, the condition, is not among them).
"""

from __future__ import annotations

from functools import lru_cache

import torch

from animate4d.models.sampler_config import FreeInitConfig

AXES = (2, 4, 5)
"""Frames, height and width of `[B, V, F, c, h, w]`."""


def renewed_noise(noised: torch.Tensor, fresh: torch.Tensor, config: FreeInitConfig) -> torch.Tensor:
    """Mix the low frequencies of a re-noised clip with the high ones of fresh noise.

    Args:
        noised: `[B, V, F, c, h, w]` the clip of the round before, noised to the last timestep with the first round's
            noise.
        fresh: Gaussian noise of the same shape.
        config: which filter.

    Returns:
        float32, the same shape.
    """
    frames, _, height, width = noised.shape[2:]
    low = low_pass(frames, height, width, config).to(noised.device)[:, None]
    kept = torch.fft.fftn(noised.float(), dim=AXES) * low
    added = torch.fft.fftn(fresh.float(), dim=AXES) * (1 - low)
    return torch.fft.ifftn(kept + added, dim=AXES).real


@lru_cache(maxsize=8)
def low_pass(frames: int, height: int, width: int, config: FreeInitConfig) -> torch.Tensor:
    """Return the share `[frames, height, width]` of each frequency that is kept, in the order of `torch.fft`.

    With d^2 the squared distance from frequency 0, each axis in shares of its highest frequency and frames scaled by
    spatial_stop / temporal_stop: butterworth 1 / (1 + (d^2 / s^2)^order), gaussian exp(-d^2 / (2 s^2)), ideal
    d^2 <= 2 s; box keeps what lies below the stop frequency on every axis. A stop frequency of 0 keeps nothing.
    """
    spatial, temporal = config.spatial_stop, config.temporal_stop
    if spatial == 0 or temporal == 0:
        return torch.zeros(frames, height, width)
    # Frequency 0 lies between two bins of this grid where a size is odd, as in the published filter.
    along = [torch.arange(size, dtype=torch.float64) * (2 / size) - 1 for size in (frames, height, width)]
    distance = (
        (along[0] * (spatial / temporal)).square()[:, None, None] + along[1].square()[:, None] + along[2].square()
    )
    if config.filter == "butterworth":
        share = 1 / (1 + (distance / spatial**2) ** config.order)
    elif config.filter == "gaussian":
        share = torch.exp(distance / (-2 * spatial**2))
    elif config.filter == "ideal":
        share = (distance <= 2 * spatial).double()
    else:
        inside = [axis.abs() < stop for axis, stop in zip(along, (temporal, spatial, spatial), strict=True)]
        share = (inside[0][:, None, None] & inside[1][:, None] & inside[2]).double()
    return torch.fft.ifftshift(share).float()
