"""What a point looks like, and how much its surroundings look like that in every frame.

Neighbourhoods sit on a grid of whole cells around a fractional position, so all their samples share one fraction: a
patch one cell wider is read without interpolation, correlated, and the correlations are interpolated. That reads a
third of what 49 bilinear samples would, and gives the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from animate4d.tracks.cotracker3.config import CoTracker3Config


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """Features of B clips of T frames, computed once for any number of queries.

    Attributes:
        levels: `[B, T, h, w, C]` each, every level half the size of the one before.
    """

    levels: tuple[Tensor, ...]

    @property
    def clips(self) -> int:
        """B."""
        return self.levels[0].shape[0]

    @property
    def frames(self) -> int:
        """T."""
        return self.levels[0].shape[1]

    def between(self, start: int, stop: int) -> FeatureMaps:
        """Return the maps of some frames, without copying."""
        return FeatureMaps(tuple(level[:, start:stop] for level in self.levels))

    def followed_by(self, later: FeatureMaps) -> FeatureMaps:
        """Return the maps of these frames and then of later ones."""
        return FeatureMaps(tuple(torch.cat(pair, dim=1) for pair in zip(self.levels, later.levels, strict=True)))

    def held_to(self, frames: int) -> FeatureMaps:
        """Repeat the last frame until there are `frames` of them."""
        missing = frames - self.frames
        held = FeatureMaps(tuple(level[:, -1:].expand(-1, missing, -1, -1, -1) for level in self.levels))
        return self.followed_by(held)


def pyramid(features: Tensor, levels: int) -> FeatureMaps:
    """Halve `[B, T, h, w, C]` features `levels` - 1 times; the averages keep their length, whatever it is."""
    maps = [features]
    for _ in range(levels - 1):
        clips, frames = features.shape[:2]
        halved = F.avg_pool2d(maps[-1].flatten(0, 1).permute(0, 3, 1, 2), 2)
        maps.append(halved.permute(0, 2, 3, 1).contiguous().unflatten(0, (clips, frames)))
    return FeatureMaps(tuple(maps))


class CorrelationReader(nn.Module):
    """Reduces the 49 x 49 products of two neighbourhoods to a few numbers. Attribute names are the checkpoints'."""

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.neighbourhood**2, config.correlation_hidden)
        self.fc2 = nn.Linear(config.correlation_hidden, config.correlation)

    def forward(self, products: Tensor) -> Tensor:
        """Map `[..., 2401]` to `[..., correlation]`."""
        return self.fc2(F.gelu(self.fc1(products)))


def query_looks(maps: FeatureMaps, frames: Tensor, xy: Tensor, radius: int) -> list[Tensor]:
    """Sample what each query looks like in its own frame.

    Args:
        maps: of B clips.
        frames: `[B, N]` int64 frame of each query.
        xy: `[B, N, 2]` cells of level 0.
        radius: of the neighbourhood.

    Returns:
        Per level `[B, N, 49, C]`; the neighbourhood's x offset is the slow index.
    """
    looks = []
    for level, features in enumerate(maps.levels):
        patches, fraction = read_patches(features, frames[..., None], xy[:, :, None] / 2**level, radius)
        side = 2 * radius + 2
        grid = interpolated(patches.float().unflatten(3, (side, side)), fraction).to(features.dtype)
        looks.append(grid.flatten(3, 4)[:, :, 0])
    return looks


def correlate(features: Tensor, look: Tensor, xy: Tensor, radius: int) -> Tensor:
    """Multiply the surroundings of points in all frames with what the points look like.

    Args:
        features: `[B, T, h, w, C]` one level.
        look: `[B, N, 49, C]` of that level.
        xy: `[B, N, T, 2]` estimates in cells of that level.
        radius: of the neighbourhoods.

    Returns:
        `[B, N, T, 2401]`: the cell around the estimate is the slow index, the cell around the query the fast one.
    """
    clips, points, frames = xy.shape[:3]
    steps = torch.arange(frames, device=xy.device).expand(clips, points, frames)
    patches, fraction = read_patches(features, steps, xy, radius)
    # One matrix product per point over all its frames.
    products = torch.matmul(patches.flatten(2, 3), look.transpose(2, 3)).float()
    side = 2 * radius + 2
    return interpolated(products.unflatten(2, (frames, side, side)), fraction).flatten(3)


def read_patches(features: Tensor, frames: Tensor, xy: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Read the whole cells around positions; cells off the map repeat its border.

    Args:
        features: `[B, T, h, w, C]`.
        frames: `[B, N, F]` int64 which map to read.
        xy: `[B, N, F, 2]` positions in cells.
        radius: r of the neighbourhoods to be interpolated later.

    Returns:
        Patches `[B, N, F, (2r+2)^2, C]`, x slow and y fast, and the fractions `[B, N, F, 2]` of the positions.
    """
    clips, total, height, width = features.shape[:4]
    whole = xy.floor()
    offsets = torch.arange(-radius, radius + 2, device=xy.device)
    # Far outside, all cells are border cells: bounding the position first keeps the integers small.
    column = (whole[..., 0, None].clamp(-width, 2 * width).long() + offsets).clamp(0, width - 1)
    row = (whole[..., 1, None].clamp(-height, 2 * height).long() + offsets).clamp(0, height - 1)
    clip = torch.arange(clips, device=xy.device)[:, None, None]
    start = (clip * total + frames) * (height * width)
    cells = start[..., None, None] + column[..., :, None] + row[..., None, :] * width
    return F.embedding(cells.flatten(3), features.reshape(-1, features.shape[-1])), xy - whole


def interpolated(values: Tensor, fraction: Tensor) -> Tensor:
    """Blend neighbours along two grid axes.

    Args:
        values: `[B, N, F, X, Y, K]`.
        fraction: `[B, N, F, 2]` in [0, 1): how far to the next cell in x and y.

    Returns:
        `[B, N, F, X - 1, Y - 1, K]`.
    """
    x, y = fraction[..., None, None, None, :].unbind(-1)
    values = torch.lerp(values[:, :, :, :-1], values[:, :, :, 1:], x)
    return torch.lerp(values[:, :, :, :, :-1], values[:, :, :, :, 1:], y)
