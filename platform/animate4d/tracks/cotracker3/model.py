"""The network: features once per clip, then all tracks of the clip refined together, a few times.

Positions inside are cells of stride 4 counted from the centre of the first one, as the checkpoints expect; `Estimate`
speaks pixels of the frames that were given, counted from the centre of the first pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from animate4d.tracks.cotracker3.config import FREQUENCIES, CoTracker3Config
from animate4d.tracks.cotracker3.correlation import CorrelationReader, FeatureMaps, correlate, pyramid, query_looks
from animate4d.tracks.cotracker3.encoder import STRIDE, FeatureEncoder, unit_length
from animate4d.tracks.cotracker3.transformer import TrackTransformer

MOTION_SCALE = (512 / STRIDE, 384 / STRIDE)
"""What motion is divided by before it is encoded: a constant of the weights, whatever size the frames have."""

SLICE_TRACKS, SLICE_TRACKS_GPU = 64, 512
"""Tracks computed at once by default: 64 hold 100 MB of neighbourhoods at 48 frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Tracks of N points through B clips of T frames.

    Attributes:
        xy: `[B, T, N, 2]` float32 pixels, (0, 0) is the centre of the first one.
        visibility: `[B, T, N]` float32 probability that the point is in sight.
        confidence: `[B, T, N]` float32 probability that the position is good.
    """

    xy: Tensor
    visibility: Tensor
    confidence: Tensor


class State(NamedTuple):
    """What refinement works on: positions `[B, N, T, 2]` in cells, logits `[B, N, T, 2]` (visible, confident)."""

    cells: Tensor
    logits: Tensor

    def estimate(self) -> Estimate:
        """Return pixels and probabilities."""
        visibility, confidence = self.logits.sigmoid().transpose(1, 2).unbind(-1)
        return Estimate(xy=self.cells.transpose(1, 2) * STRIDE, visibility=visibility, confidence=confidence)


@dataclass(frozen=True, slots=True)
class Queries:
    """Points to follow.

    Attributes:
        frames: `[B, N]` int64.
        cells: `[B, N, 2]` float32.
        looks: per level `[B, N, 49, C]`.
    """

    frames: Tensor
    cells: Tensor
    looks: list[Tensor]


class CoTracker3(nn.Module):
    """CoTracker3 for inference; its state dict is the released one, key by key.

    Args:
        config: sizes and layout.
        slice_tracks: tracks computed at once; bounds memory and changes no number. Default 64 on CPUs, 512 elsewhere.
    """

    time_emb: Tensor

    def __init__(self, config: CoTracker3Config, *, slice_tracks: int | None = None) -> None:
        super().__init__()
        self.config = config
        self._slice_tracks = slice_tracks
        self.fnet = FeatureEncoder(config)
        self.corr_mlp = CorrelationReader(config)
        self.updateformer = TrackTransformer(config)
        self.register_buffer("time_emb", time_table(config.window, config.token))

    @property
    def slice_tracks(self) -> int:
        """Tracks computed at once."""
        return self._slice_tracks or (SLICE_TRACKS if self.time_emb.device.type == "cpu" else SLICE_TRACKS_GPU)

    @torch.inference_mode()
    def encode(
        self,
        video: Tensor,
        *,
        size: tuple[int, int] | None = None,
        dtype: torch.dtype = torch.float32,
        frames_at_once: int | None = None,
    ) -> FeatureMaps:
        """Compute the features of clips.

        Args:
            video: `[B, T, 3, H, W]` RGB in 0..255, any dtype; H and W at least 32.
            size: height and width to stretch frames to first, corners on corners as the released weights expect.
            dtype: of the features that are kept.
            frames_at_once: bounds memory and changes no number; default 1 on CPUs, where it is also the fastest
                because results stay in cache, and 16 elsewhere.
        """
        clips, frames = video.shape[:2]
        step = frames_at_once or (1 if video.device.type == "cpu" else 16)
        features = []
        for images in video.flatten(0, 1).split(step):
            images = images.float()
            if size is not None:
                images = F.interpolate(images, size, mode="bilinear", align_corners=True)
            scaled = 2 * (images / 255) - 1
            found = self.fnet(scaled.contiguous(memory_format=torch.channels_last))
            features.append(unit_length(found.permute(0, 2, 3, 1).float()).to(dtype))
        return pyramid(torch.cat(features).unflatten(0, (clips, frames)), self.config.levels)

    @torch.inference_mode()
    def forward(
        self, video: Tensor | FeatureMaps, queries: Tensor, *, valid: Tensor | None = None, iterations: int = 6
    ) -> Estimate:
        """Track points through whole clips.

        Tracks are refined jointly, so a point's track depends a little on the other points of its clip; clips of one
        batch do not influence one another.

        Args:
            video: `[B, T, 3, H, W]` as for `encode`, or what `encode` returned.
            queries: `[B, N, 3]` float32: frame number, x and y in pixels from the centre of the first one.
            valid: `[B, N]` bool; the others are padding that no point sees. None: all are.
            iterations: refinements.
        """
        maps = video if isinstance(video, FeatureMaps) else self.encode(video)
        asked = self.ask(maps, queries)
        state = start_state(asked, maps.frames)
        return self.refine(maps, asked, state, absent_points(valid), iterations).estimate()

    def ask(self, maps: FeatureMaps, queries: Tensor) -> Queries:
        """Look at the queries `[B, N, 3]` in their frames.

        Raises:
            ValueError: a query's frame is not among those of the maps.
        """
        frames, cells = queries[..., 0].long(), queries[..., 1:].float() / STRIDE
        if frames.numel() and not 0 <= int(frames.min()) <= int(frames.max()) < maps.frames:
            raise ValueError(f"query frames {int(frames.min())}..{int(frames.max())} of a clip of {maps.frames} frames")
        return Queries(frames, cells, query_looks(maps, frames, cells, self.config.radius))

    def refine(self, maps: FeatureMaps, asked: Queries, state: State, absent: Tensor | None, iterations: int) -> State:
        """Improve the tracks of all points in all frames of the maps."""
        cells, logits = state
        if not cells.shape[1]:  # attention to no point at all is not defined
            return state
        times = resized_rows(self.time_emb, maps.frames)
        for _ in range(iterations):
            tokens = self.embed(maps, asked, cells, logits, times)
            move, change = self.updateformer(tokens, absent, self.slice_tracks)
            cells, logits = cells + move.float(), logits + change.float()
        return State(cells, logits)

    def embed(self, maps: FeatureMaps, asked: Queries, cells: Tensor, logits: Tensor, times: Tensor) -> Tensor:
        """Return the tokens `[B, N, T, hidden]` of the current estimates."""
        motion = encoded_motion(cells)
        embedded = []
        step = max(1, self.slice_tracks // maps.clips)
        for first in range(0, cells.shape[1], step):
            part = slice(first, first + step)
            read = [
                self.corr_mlp(correlate(features, look[:, part], cells[:, part] / 2**level, self.config.radius))
                for level, (features, look) in enumerate(zip(maps.levels, asked.looks, strict=True))
            ]
            token = torch.cat([logits[:, part], *read, motion[:, part]], dim=-1)
            embedded.append(self.updateformer.input_transform(token + times).float())
        return torch.cat(embedded, dim=1)


def start_state(asked: Queries, frames: int) -> State:
    """Return standing tracks of which nothing is known."""
    cells = asked.cells[:, :, None].expand(-1, -1, frames, -1)
    return State(cells, torch.zeros_like(cells))


def absent_points(valid: Tensor | None) -> Tensor | None:
    """Return which of `[B, N]` points are padding, None if there are none."""
    return None if valid is None or bool(valid.all()) else ~valid


def encoded_motion(cells: Tensor) -> Tensor:
    """Encode how far `[B, N, T, 2]` tracks are from their next and their previous position, as `[B, N, T, 84]`."""
    step = cells[:, :, 1:] - cells[:, :, :-1]
    to_next, to_previous = F.pad(-step, (0, 0, 0, 1)), F.pad(step, (0, 0, 1, 0))
    scale = torch.tensor(MOTION_SCALE, device=cells.device)
    motion = torch.cat([to_next / scale, to_previous / scale], dim=-1)
    octaves = 2.0 ** torch.arange(FREQUENCIES, device=cells.device)
    phase = (octaves[:, None] * motion[..., None, :]).flatten(-2)
    return torch.cat([motion, phase.sin(), (phase + math.pi / 2).sin()], dim=-1)


def time_table(rows: int, width: int) -> Tensor:
    """Return `[1, rows, width]` sines, then cosines, of the row number at falling frequencies."""
    frequencies = 10_000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = torch.arange(rows, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()[None]


def resized_rows(table: Tensor, rows: int) -> Tensor:
    """Interpolate a `[1, R, width]` table to `[1, rows, width]`."""
    if table.shape[1] == rows:
        return table
    return F.interpolate(table.transpose(1, 2), rows, mode="linear", align_corners=False).transpose(1, 2)
