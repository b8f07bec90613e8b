"""Follow points through feature maps: similarity of frame 0's descriptors with every cell, and positions read from it.

Positions here are shares of the picture, x right and y down, [0, 1] from edge to edge.
"""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from animate4d.pipeline.probe_config import MATCHES, Match
from animate4d.training.losses import TEMPERATURE, sample_descriptors

WINDOW = 2
"""Cells on each side of the best one that the "window" reading weighs; a full-map mean would be drawn to the middle by
every second, similar place."""


def similarity(features: torch.Tensor, queries: torch.Tensor, *, centred: bool) -> torch.Tensor:
    """Compare frame 0's descriptors with every cell of every frame.

    Args:
        features: `[V, T, C, h, w]`.
        queries: `[V, P, 2]` points in frame 0.
        centred: subtract from all frames of a view the mean over the cells of its frame 0, as the position loss does;
            otherwise the large part that all cells share decides nothing but hides the rest.

    Returns:
        cosines `[V, T, P, h, w]` float32.
    """
    maps = features.float()
    if centred:
        maps = maps - maps[:, :1].mean(dim=(-1, -2), keepdim=True)
    query = normalize(sample_descriptors(maps[:, 0], queries * 2 - 1), dim=-1, eps=1e-6)
    cells = normalize(maps, dim=2, eps=1e-6)
    return torch.einsum("vpc,vtchw->vtphw", query, cells)


def find_points(cosines: torch.Tensor) -> dict[Match, torch.Tensor]:
    """Read positions from similarity maps `[..., h, w]` in every way; each result is `[..., 2]`."""
    height, width = cosines.shape[-2:]
    best = cosines.flatten(-2).argmax(-1)
    row, column = best // width, best % width
    shift = torch.stack([_peak_shift(cosines, row, column, axis) for axis in ("x", "y")], dim=-1)
    cells = torch.stack([column, row], dim=-1) + 0.5
    size = cells.new_tensor([width, height])
    return dict(
        zip(MATCHES, (cells / size, (cells + shift) / size, _window_mean(cosines, row, column) / size), strict=True)
    )


def _peak_shift(cosines: torch.Tensor, row: torch.Tensor, column: torch.Tensor, axis: str) -> torch.Tensor:
    """Return how far the top of the parabola through a peak and its two neighbours is from it, in cells.

    A peak on the rim has one neighbour and stays where it is.
    """
    height, width = cosines.shape[-2:]
    place, size, step = (column, width, 1) if axis == "x" else (row, height, width)
    flat, best = cosines.flatten(-2), row * width + column
    inner = (place > 0) & (place < size - 1)
    before, peak, after = (
        flat.gather(-1, torch.where(inner, best + move, best)[..., None])[..., 0] for move in (-step, 0, step)
    )
    bend = 2 * peak - before - after
    shift = torch.where(bend > 1e-9, (after - before) / (2 * bend.clamp_min(1e-9)), torch.zeros_like(bend))
    return shift.clamp(-0.5, 0.5)


def _window_mean(cosines: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Return the softmax-weighted mean of the cells around the best one, in cells from the top left corner."""
    height, width = cosines.shape[-2:]
    rows = torch.arange(height, device=cosines.device)
    columns = torch.arange(width, device=cosines.device)
    near = (rows - row[..., None]).abs().le(WINDOW)[..., :, None] & (columns - column[..., None]).abs().le(WINDOW)[
        ..., None, :
    ]
    weight = (
        (cosines / TEMPERATURE).masked_fill(~near, -torch.inf).flatten(-2).softmax(-1).unflatten(-1, near.shape[-2:])
    )
    return torch.stack([(weight.sum(-2) * (columns + 0.5)).sum(-1), (weight.sum(-1) * (rows + 0.5)).sum(-1)], dim=-1)
