"""Loss terms as pure functions: the two tracking losses of paper 001 and the terms of the warp head.

Maps and points follow one convention: pixel centres at half-integers, so pixel x is x * w / W cells from the left edge
of a map of w cells and 2 x / W - 1 in normalised coordinates, whatever the map's size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch.nn.functional import (
    avg_pool2d,
    binary_cross_entropy_with_logits,
    grid_sample,
    huber_loss,
    max_pool2d,
    normalize,
)

TEMPERATURE = 0.07
"""Soft-argmax temperature; colder ones lose the gradient when the peak is wrong (measured on shifted random maps)."""

HUBER_DELTA = 1 / 32
"""In normalised coordinates; the paper gives none."""

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(function: Callable[Concatenate[torch.Tensor, P], R]) -> Callable[Concatenate[torch.Tensor, P], R]:
    """Make a function of a feature map compute in float32 under autocast too.

    bf16 knows cosines to 0.004: divided by the temperature, that moves a soft-argmax by a cell.
    """

    @wraps(function)
    def exact(features: torch.Tensor, *args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast(features.device.type, enabled=False):
            return function(features.float(), *args, **kwargs)

    return exact


def weighted_points(
    tracks: torch.Tensor, visible: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring tracks to normalised coordinates and drop points that no feature can stand for.

    Args:
        tracks: `[B, V, T, P, 2]` xy, pixels of H x W, centres at half-integers.
        visible: `[B, V, T, P]` in [0, 1].
        mask: `[B, V, T, 1, H, W]` coverage of the object.

    Returns:
        xy in [-1, 1] (picture edges) and `visible`, zero where a point is outside its frame or beside the object in it
        (a pixel's width of tolerance).
    """
    height, width = mask.shape[-2:]
    points = tracks * tracks.new_tensor([2 / width, 2 / height]) - 1
    inside = (points.abs() <= 1).all(-1) & (sample_descriptors(mask, points)[..., 0] > 0)
    return points, visible * inside


@in_float32
def sample_descriptors(features: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Read feature vectors bilinearly.

    Args:
        features: `[..., C, h, w]`.
        points: `[..., P, 2]` xy in [-1, 1] (picture edges).

    Returns:
        `[..., P, C]` float32.
    """
    lead = features.shape[:-3]
    flat = features.flatten(0, -4)
    grid = points.flatten(0, -3)[:, :, None].float().clamp(-1, 1)
    sampled = grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[..., 0].transpose(1, 2).unflatten(0, lead)


@in_float32
def correspondence_loss(features: torch.Tensor, points: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Pull descriptors of one track together in adjacent frames (paper 001 eq. 4).

    Args:
        features: `[B, V, T, C, h, w]` tapped diffusion features.
        points: `[B, V, T, P, 2]` tracks, xy in [-1, 1].
        visible: `[B, V, T, P]` in [0, 1].

    Returns:
        mean of 1 - cosine over adjacent pairs, weighted by the product of both visibilities; exactly 0 without any
        visible pair.
    """
    descriptors = normalize(sample_descriptors(features, points), dim=-1, eps=1e-6)
    cosine = (descriptors[:, :, 1:] * descriptors[:, :, :-1]).sum(-1)
    weight = visible[:, :, 1:] * visible[:, :, :-1]
    return ((1 - cosine) * weight).sum() / weight.sum().clamp_min(1.0)


@in_float32
def soft_argmax(features: torch.Tensor, points: torch.Tensor, *, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Find frame 0's points in every frame by the softmax-weighted mean of the cosine map.

    Features are centred by frame 0's mean over cells first: network features share a large common part that would
    flatten the softmax.

    Args:
        features: `[B, V, T, C, h, w]`.
        points: `[B, V, P, 2]` points in frame 0, xy in [-1, 1].
        temperature: of the softmax.

    Returns:
        `[B, V, T, P, 2]` xy in [-1, 1].
    """
    height, width = features.shape[-2:]
    maps = features - features[:, :, :1].mean(dim=(-1, -2), keepdim=True)
    query = normalize(sample_descriptors(maps[:, :, 0], points), dim=-1, eps=1e-6)
    cells = normalize(maps, dim=3, eps=1e-6).flatten(-2)
    weight = (torch.einsum("bvpc,bvtcl->bvtpl", query, cells) / temperature).softmax(-1)
    x = (torch.arange(width, device=maps.device) + 0.5) * (2 / width) - 1
    y = (torch.arange(height, device=maps.device) + 0.5) * (2 / height) - 1
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return weight @ torch.stack((columns, rows), dim=-1).flatten(0, 1)


@in_float32
def position_loss(
    features: torch.Tensor,
    points: torch.Tensor,
    visible: torch.Tensor,
    *,
    temperature: float = TEMPERATURE,
    delta: float = HUBER_DELTA,
) -> torch.Tensor:
    """Ask that frame 0's descriptor is found where the track says (paper 001 eq. 5).

    Args:
        features: `[B, V, T, C, h, w]` tapped diffusion features.
        points: `[B, V, T, P, 2]` tracks, xy in [-1, 1]; frame 0 holds the queries.
        visible: `[B, V, T, P]` in [0, 1].
        temperature: of the soft-argmax.
        delta: of PyTorch's `huber_loss`, which scales with it.

    Returns:
        Huber distance summed over x and y, averaged over frames after the first with weight visible; exactly 0 without
        any.
    """
    found = soft_argmax(features, points[:, :, 0], temperature=temperature)[:, :, 1:]
    distance = huber_loss(found, points[:, :, 1:].float(), delta=delta, reduction="none").sum(-1)
    weight = visible[:, :, 1:] * visible[:, :, :1]
    return (distance * weight).sum() / weight.sum().clamp_min(1.0)


def noise_loss(predicted: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Mean squared error on the noise of frames after the first (paper 001 eq. 3), tensors `[B, V, T, c, h, w]`."""
    return (predicted[:, :, 1:] - noise[:, :, 1:]).square().mean()


def object_cells(mask: torch.Tensor, cells: int) -> torch.Tensor:
    """Mark the latent cells the object touches in a frame or touched in frame 0.

    Args:
        mask: `[B, V, T, 1, H, W]` coverage.
        cells: side of the latent map.

    Returns:
        `[B, V, T, 1, cells, cells]` of zeros and ones.
    """
    window = mask.shape[-1] // cells
    touched = avg_pool2d(mask.flatten(0, 2), window).unflatten(0, mask.shape[:3]) > 0
    return (touched | touched[:, :, :1]).to(mask.dtype)


def latent_loss(
    predicted: torch.Tensor, target: torch.Tensor, cells: torch.Tensor, *, object_weight: float
) -> torch.Tensor:
    """Squared error on clean latents `[B, V, T, c, h, w]` after frame 0, weighted 1 + object_weight on marked cells."""
    squared = (predicted[:, :, 1:] - target[:, :, 1:]).square()
    return (squared * (1 + object_weight * cells[:, :, 1:])).mean()


def coarse_loss(predicted: torch.Tensor, target: torch.Tensor, *, window: int = 4) -> torch.Tensor:
    """Squared error of `window` x `window` pixel means of frames `[B, V, T, 3, H, W]` after the first.

    It tells where the object is, not what its texture is.
    """
    difference = (predicted[:, :, 1:] - target[:, :, 1:]).flatten(0, 2)
    return avg_pool2d(difference, window).square().mean()


FLOW_FLOOR = 0.05
"""Half images added to a mean motion before dividing by it: 1.6 of 64 pixels; smaller errors are hardly seen."""


def flow_loss(flow: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """L1 distance of backward flows inside the object, after frame 0, as a share of the clip's mean motion.

    Without the division, clips that spin or jump would drown those that sway or breathe. No motion predicted gives
    about 0.5 to 0.8.

    Args:
        flow: predicted, `[B, V, T, 2, h, w]` in half-image units.
        target: exact.
        weight: `[B, V, T, 1, h, w]` in [0, 1]: 1 where the frame shows the object (less where frame 0 does not show
            that point).
    """
    inside = weight[:, :, 1:]
    size = inside.flatten(1).sum(1).clamp_min(1.0)

    def clip_mean(flows: torch.Tensor) -> torch.Tensor:
        return (flows.abs().sum(3, keepdim=True) * inside).flatten(1).sum(1) / size

    return (clip_mean(flow[:, :, 1:] - target[:, :, 1:]) / (clip_mean(target[:, :, 1:]) + FLOW_FLOOR)).mean()


def gate_loss(gate: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of gate logits `[B, V, T, 1, h, w]` against coverage `[B, V, T, 1, H, W]`, after the first frame.

    The target is the object grown by one sample of the gate's map: the gate removes what is left at the old place; the
    edge itself comes from the moved picture, at its resolution.
    """
    coverage = max_pool2d(mask[:, :, 1:].flatten(0, 2), mask.shape[-1] // gate.shape[-1])
    grown = max_pool2d(coverage, 3, stride=1, padding=1)
    return binary_cross_entropy_with_logits(gate[:, :, 1:].flatten(0, 2), grown.to(gate.dtype))
