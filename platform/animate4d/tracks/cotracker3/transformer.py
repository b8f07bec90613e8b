"""From tokens to corrections: attention over the time of each track, then among the tracks of each frame.

Tracks speak to one another through a few learned virtual tracks, so the cost grows with the number of tracks and not
with its square. Everything but one attention (virtual tracks reading all points) looks at one track at a time and is
computed in slices of tracks; slicing changes nothing but the memory it takes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from animate4d.tracks.cotracker3.config import CoTracker3Config

NORM_EPS = 1e-6
NEVER = -1e9
"""Added to the scores of absent points; finite, so that a frame in which all are absent has no NaN."""


class Attention(nn.Module):
    """Multi-head attention of `[M, L, hidden]` tokens to themselves or to a context."""

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.to_q = nn.Linear(config.hidden, config.hidden)
        self.to_kv = nn.Linear(config.hidden, 2 * config.hidden)
        self.to_out = nn.Linear(config.hidden, config.hidden)

    def forward(self, tokens: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return `[M, L, hidden]`; bias `[M, 1, 1, K]` is added to the scores of the K context tokens."""
        query = self.to_q(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.to_kv(context).unflatten(-1, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        read = F.scaled_dot_product_attention(
            query, key, value, attn_mask=None if bias is None else bias.to(query.dtype)
        )
        return self.to_out(read.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden, 4 * config.hidden)
        self.fc2 = nn.Linear(4 * config.hidden, config.hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return `[..., hidden]`."""
        return self.fc2(F.gelu(self.fc1(tokens), approximate="tanh"))


class SelfBlock(nn.Module):
    """Tokens read one another."""

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.mlp = FeedForward(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map `[M, L, hidden]` to the same shape."""
        normal = plain_norm(tokens)
        tokens = tokens + self.attn(normal, normal)
        return tokens + self.mlp(plain_norm(tokens))


class CrossBlock(nn.Module):
    """Tokens read a context."""

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.norm_context = nn.LayerNorm(config.hidden)
        self.cross_attn = Attention(config)
        self.mlp = FeedForward(config)

    def forward(self, tokens: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map `[M, L, hidden]` to the same shape, given `[M, K, hidden]`."""
        tokens = tokens + self.cross_attn(plain_norm(tokens), self.norm_context(context), bias)
        return tokens + self.mlp(plain_norm(tokens))


class TrackTransformer(nn.Module):
    """Tokens of points over time to corrections of their positions and logits. Attribute names are the checkpoints'."""

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.input_transform = nn.Linear(config.token, config.hidden)
        self.virual_tracks = nn.Parameter(torch.randn(1, config.virtual_tracks, 1, config.hidden))  # sic
        self.time_blocks = nn.ModuleList(SelfBlock(config) for _ in range(config.depth))
        self.space_virtual_blocks = nn.ModuleList(SelfBlock(config) for _ in range(config.depth))
        self.space_point2virtual_blocks = nn.ModuleList(CrossBlock(config) for _ in range(config.depth))
        self.space_virtual2point_blocks = nn.ModuleList(CrossBlock(config) for _ in range(config.depth))
        self.flow_head = nn.Linear(config.hidden, 2)
        self.vis_conf_head = nn.Linear(config.hidden, 2)

    def forward(self, points: Tensor, absent: Tensor | None, slice_tracks: int) -> tuple[Tensor, Tensor]:
        """Compute corrections.

        Args:
            points: `[B, N, T, hidden]` embedded tokens, overwritten.
            absent: `[B, N]` bool: these points are seen by no other; None where all are present.
            slice_tracks: tracks computed at once.

        Returns:
            Position corrections `[B, N, T, 2]` in cells and logit corrections `[B, N, T, 2]`.
        """
        clips, count, frames = points.shape[:3]
        bias = None
        if absent is not None:
            bias = absent.to(points.dtype).mul(NEVER)[:, None].expand(clips, frames, count).flatten(0, 1)[:, None, None]
        virtual = self.virual_tracks.to(points.dtype).expand(clips, -1, frames, -1)
        for over_time, read_points, among, read_virtual in zip(
            self.time_blocks,
            self.space_virtual2point_blocks,
            self.space_virtual_blocks,
            self.space_point2virtual_blocks,
            strict=True,
        ):
            for part in points.flatten(0, 1).split(slice_tracks):
                part.copy_(over_time(part))
            virtual = over_time(virtual.flatten(0, 1)).unflatten(0, (clips, -1))
            in_frames = virtual.transpose(1, 2).flatten(0, 1)
            in_frames = among(read_points(in_frames, points.transpose(1, 2).flatten(0, 1), bias))
            for part in points.split(max(1, slice_tracks // clips), dim=1):
                read = read_virtual(part.transpose(1, 2).flatten(0, 1), in_frames)
                part.copy_(read.unflatten(0, (clips, frames)).transpose(1, 2))
            virtual = in_frames.unflatten(0, (clips, frames)).transpose(1, 2)
        return self.flow_head(points), self.vis_conf_head(points)


def plain_norm(tokens: Tensor) -> Tensor:
    """Normalise over the last axis, without parameters."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=NORM_EPS)
