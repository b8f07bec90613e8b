"""The warp head: moves frame 0 by a backward flow and a visibility gate instead of painting pixels.

flow(p) points from pixel p of a frame to where its surface point is in frame 0 of the same view, in half-image units
(pixels divided by half the image's width or height). Pictures are centred (grey background = 0), so a closed gate shows
background.
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


def pixel_grid(height: int, width: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return the `[height, width, 2]` xy centres of pixels in [-1, 1] (pixel edges at -1 and 1)."""
    y, x = ((torch.arange(count, device=device, dtype=dtype) + 0.5) * (2 / count) - 1 for count in (height, width))
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)


def enlarge(maps: torch.Tensor, size: int | tuple[int, int]) -> torch.Tensor:
    """Resize `[N, C, h, w]` maps bilinearly to a height and width, or to a square (half-pixel centres)."""
    target = (size, size) if isinstance(size, int) else size
    if tuple(maps.shape[-2:]) == target:
        return maps
    return interpolate(maps, size=target, mode="bilinear", align_corners=False)


def warp_first_frame(first: torch.Tensor, flow: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Return gate * first(p + flow(p)); outside the picture frame 0 is background (0).

    Args:
        first: `[N, C, H, W]` centred frame 0 (colours or coverage); one per row of `flow`.
        flow: `[N, 2, h, w]` half-image units; may be coarser than `first`.
        gate: `[N, 1, h, w]` in [0, 1].
    """
    height, width = first.shape[-2:]
    moved_to = enlarge(flow, (height, width)).permute(0, 2, 3, 1)
    grid = pixel_grid(height, width, flow.device, flow.dtype) + moved_to
    moved = grid_sample(first, grid.to(first.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved * enlarge(gate, (height, width)).to(first.dtype)
