"""The warp head: moves frame 0 by a backward flow and a visibility gate instead of painting pixels.

flow(p) points from pixel p of a frame to where its surface point is in frame 0 of the same view, in half-image units
(pixels divided by half the image side). Pictures are centred (grey background = 0), so a closed gate shows background.
"""

from __future__ import annotations

import torch
from torch.nn.functional import grid_sample, interpolate, pixel_shuffle

GATE_START = 3.0
"""Added to gate logits: an untrained gate is sigmoid(3) = 0.95 open."""


def split_head(output: torch.Tensor, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn network output `[..., 3 * cells^2, h, w]` into flow `[..., 2, H, W]` and gate logits `[..., 1, H, W]`."""
    maps = pixel_shuffle(output, cells)
    return maps[..., :2, :, :], maps[..., 2:, :, :] + GATE_START


def pixel_grid(size: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return the `[size, size, 2]` xy centres of pixels in [-1, 1] (pixel edges at -1 and 1)."""
    centre = (torch.arange(size, device=device, dtype=dtype) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    return torch.stack((x, y), dim=-1)


def enlarge(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Resize `[N, C, h, w]` maps bilinearly to `size` (half-pixel centres)."""
    if maps.shape[-1] == size:
        return maps
    return interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)


def warp_first_frame(first: torch.Tensor, flow: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Return gate * first(p + flow(p)); outside the picture frame 0 is background (0).

    Args:
        first: `[N, C, S, S]` centred frame 0 (colours or coverage); one per row of `flow`.
        flow: `[N, 2, h, w]` half-image units; h may be smaller than S.
        gate: `[N, 1, h, w]` in [0, 1].
    """
    size = first.shape[-1]
    grid = pixel_grid(size, flow.device, flow.dtype) + enlarge(flow, size).permute(0, 2, 3, 1)
    moved = grid_sample(first, grid.to(first.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved * enlarge(gate, size).to(first.dtype)
