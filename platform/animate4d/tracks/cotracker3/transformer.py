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
    """Multi-head attention between `[B, N, T, hidden]` tokens: over the frames of a track, or the tracks of a frame.

    All work stays in this one layout; the heads' sequences are views of it.
    """

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.to_q = nn.Linear(config.hidden, config.hidden)
        self.to_kv = nn.Linear(config.hidden, 2 * config.hidden)
        self.to_out = nn.Linear(config.hidden, config.hidden)

    def over_time(self, tokens: Tensor) -> Tensor:
        """Let the frames of each track read one another."""
        query, key, value = (heads.flatten(0, 1).transpose(1, 2) for heads in self.project(tokens, tokens))
        read = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(read.transpose(1, 2).flatten(2).view(tokens.shape))

    def over_tracks(self, tokens: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """Let the tracks of each frame read those of a context `[B, K, T, hidden]`; bias `[B, K]` adds to scores."""
        projected = self.project(tokens, context)
        found = []
        for clip in range(len(tokens)):
            query, key, value = (heads[clip].permute(1, 2, 0, 3) for heads in projected)
            added = None if bias is None else bias[clip, None, None, None].to(query.dtype)
            read = F.scaled_dot_product_attention(query, key, value, attn_mask=added)
            found.append(read.permute(2, 0, 1, 3).flatten(2))
        return self.to_out(torch.stack(found))

    def project(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values `[B, N, T, heads, hidden / heads]`."""
        query = self.to_q(tokens).unflatten(-1, (self.heads, -1))
        key, value = self.to_kv(context).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return query, key, value


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
    """Tokens read one another.

    Blocks change `[B, N, T, hidden]` tokens in place; copies would be a tenth of the time.
    """

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.mlp = FeedForward(config)

    def forward(self, tokens: Tensor, *, over_time: bool) -> None:
        """Update every track from its other frames, or else every frame's tracks from one another."""
        normal = plain_norm(tokens)
        tokens += self.attn.over_time(normal) if over_time else self.attn.over_tracks(normal, normal)
        tokens += self.mlp(plain_norm(tokens))


class CrossBlock(nn.Module):
    """Tokens read the tokens of other tracks in the same frame, in place."""

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        self.norm_context = nn.LayerNorm(config.hidden)
        self.cross_attn = Attention(config)
        self.mlp = FeedForward(config)

    def forward(self, tokens: Tensor, context: Tensor, bias: Tensor | None = None) -> None:
        """Update `[B, N, T, hidden]` tokens from `[B, K, T, hidden]`; bias `[B, K]` as for `Attention`."""
        tokens += self.cross_attn.over_tracks(plain_norm(tokens), self.norm_context(context), bias)
        tokens += self.mlp(plain_norm(tokens))


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
        clips, _, frames = points.shape[:3]
        bias = None if absent is None else absent.to(points.dtype) * NEVER
        virtual = self.virual_tracks.repeat(clips, 1, frames, 1)
        for time_block, read_points, among, read_virtual in zip(
            self.time_blocks,
            self.space_virtual2point_blocks,
            self.space_virtual_blocks,
            self.space_point2virtual_blocks,
            strict=True,
        ):
            for part in (*points.flatten(0, 1).split(slice_tracks), *virtual.flatten(0, 1).split(slice_tracks)):
                time_block(part[None], over_time=True)
            read_points(virtual, points, bias)
            among(virtual, over_time=False)
            for part in points.split(max(1, slice_tracks // clips), dim=1):
                read_virtual(part, virtual)
        return self.flow_head(points), self.vis_conf_head(points)


def plain_norm(tokens: Tensor) -> Tensor:
    """Normalise over the last axis, without parameters."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=NORM_EPS)
