"""The spatiotemporal motion module: attention along time blended with attention over the views of one time step.

Extends AnimateDiff's motion module (diffusers' `AnimateDiffTransformer3D`) as Animate3D does: two branches with their
own projections, one learned blend per attention that starts at one half.
"""

from __future__ import annotations

import math

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from animate4d.models.attention import join_heads, split_heads


def sine_encoding_2d(height: int, width: int, channels: int, device: torch.device | None = None) -> torch.Tensor:
    """Return the `[height * width, channels]` DETR-style encoding: half the channels for y, then half for x.

    Rows and columns count from 1 and are scaled so that the last one is 2 pi; feature i has frequency
    10000^(-2 floor(i / 2) / (channels / 2)), sine where i is even and cosine where it is odd.
    """
    half = channels // 2
    index = torch.arange(half, device=device, dtype=torch.float32)
    frequency = 10000 ** (-2 * torch.div(index, 2, rounding_mode="floor") / half)

    def encode(count: int) -> torch.Tensor:
        position = torch.arange(1, count + 1, device=device, dtype=torch.float32) / (count + 1e-6) * (2 * math.pi)
        angle = position[:, None] * frequency
        return torch.where(index.long() % 2 == 0, angle.sin(), angle.cos())

    rows = encode(height)[:, None].expand(height, width, half)
    columns = encode(width)[None, :].expand(height, width, half)
    return torch.cat((rows, columns), dim=-1).reshape(height * width, channels)


class SpatioTemporalAttention(Attention):
    """Two branches: out = s * spatial + (1 - s) * temporal, s = sigmoid(mix_factor), 0.5 at the start.

    The inherited projections serve the temporal branch (AnimateDiff's weights fit); `*_sp` serve the spatial branch,
    which attends over all views and positions of one time step. Without it, AnimateDiff's attention remains. `blend`
    says who owns the mix factor: this attention ("attention"), the module around it ("module") or nobody ("fixed").
    """

    def __init__(
        self, channels: int, heads: int, max_frames: int, *, spatial: bool = True, blend: str = "attention"
    ) -> None:
        super().__init__(query_dim=channels, heads=heads, dim_head=channels // heads, bias=False)
        self.time_pos_embed = SinusoidalPositionalEmbedding(channels, max_seq_length=max_frames)
        self.spatial = spatial
        if not spatial:
            return
        self.to_q_sp = nn.Linear(channels, channels, bias=False)
        self.to_k_sp = nn.Linear(channels, channels, bias=False)
        self.to_v_sp = nn.Linear(channels, channels, bias=False)
        self.to_out_sp = nn.Linear(channels, channels)
        self.mix_factor = nn.Parameter(torch.zeros(1)) if blend == "attention" else None

    def forward(  # type: ignore[override]
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        frame_index: torch.Tensor,
        mix_factor: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend along time and over space.

        Args:
            tokens: `[b, n, f, l, c]` normalised.
            positions: `[l, c]` spatial encoding.
            frame_index: `[b, f]` int64, which frame of the clip each one is.
            mix_factor: `[1]`, that of the module around, if it owns it.
        """
        temporal, spatial = self.branches(tokens, positions, frame_index)
        return self.mix(temporal, spatial, mix_factor)

    def branches(
        self, tokens: torch.Tensor, positions: torch.Tensor, frame_index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the temporal and, if there is one, the spatial branch, each behind its output projection."""
        temporal = self._over_time(tokens, frame_index)
        return temporal, self._over_space(tokens + positions) if self.spatial else None

    def mix(
        self, temporal: torch.Tensor, spatial: torch.Tensor | None, mix_factor: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Blend what `branches` returned."""
        if spatial is None:
            return temporal
        factor = self.mix_factor if mix_factor is None else mix_factor
        share = 0.5 if factor is None else factor.sigmoid()
        return share * spatial + (1 - share) * temporal

    def _over_space(self, tokens: torch.Tensor) -> torch.Tensor:
        samples, views, frames, length, channels = tokens.shape
        together = tokens.transpose(1, 2).reshape(samples * frames, views * length, channels)
        query, key, value = (
            split_heads(project(together), self.heads) for project in (self.to_q_sp, self.to_k_sp, self.to_v_sp)
        )
        seen = self.to_out_sp(join_heads(scaled_dot_product_attention(query, key, value)))
        return seen.view(samples, frames, views, length, channels).transpose(1, 2)

    def _over_time(self, tokens: torch.Tensor, frame_index: torch.Tensor) -> torch.Tensor:
        samples, views, frames, length, channels = tokens.shape
        encoding = self.time_pos_embed.pe[0][frame_index].to(tokens.dtype)
        timed = (tokens + encoding[:, None, :, None]).transpose(2, 3).reshape(-1, frames, channels)
        query, key, value = (split_heads(project(timed), self.heads) for project in (self.to_q, self.to_k, self.to_v))
        # Thousands of sequences of a few frames: plain matrix products beat the fused kernel's per-sequence overhead.
        weights = (query @ key.transpose(-1, -2) * self.scale).softmax(-1)
        seen = self.to_out[0](join_heads(weights @ value))
        return seen.view(samples, views, length, frames, channels).transpose(2, 3)


class SpatioTemporalBlock(nn.Module):
    """Pre-norm transformer block of one or two spatiotemporal attentions and a GEGLU feed-forward layer."""

    def __init__(
        self,
        channels: int,
        heads: int,
        max_frames: int,
        *,
        attentions: int,
        ff_mult: int,
        spatial: bool,
        blend: str = "attention",
    ) -> None:
        super().__init__()

        def attention() -> SpatioTemporalAttention:
            return SpatioTemporalAttention(channels, heads, max_frames, spatial=spatial, blend=blend)

        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = attention()
        self.norm2 = nn.LayerNorm(channels) if attentions == 2 else None
        self.attn2 = attention() if attentions == 2 else None
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, mult=ff_mult, activation_fn="geglu")
        self.mix_factor = nn.Parameter(torch.zeros(1)) if blend == "module" and spatial else None

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, frame_index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Map `[b, n, f, l, c]` to the same shape; beside it the last attention's temporal and spatial branch."""
        temporal, spatial = self.attn1.branches(self.norm1(tokens), positions, frame_index)
        tokens = tokens + self.attn1.mix(temporal, spatial, self.mix_factor)
        if self.attn2 is not None and self.norm2 is not None:
            temporal, spatial = self.attn2.branches(self.norm2(tokens), positions, frame_index)
            tokens = tokens + self.attn2.mix(temporal, spatial, self.mix_factor)
        return tokens + self.ff(self.norm3(tokens)), temporal, spatial


class SpatioTemporalTransformer(AnimateDiffTransformer3D):
    """A motion module: group norm over one view's whole clip, one spatiotemporal block, residual."""

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        norm_groups: int,
        max_frames: int,
        attentions: int,
        ff_mult: int,
        spatial: bool,
        blend: str = "attention",
    ) -> None:
        super().__init__(
            num_attention_heads=heads,
            attention_head_dim=channels // heads,
            in_channels=channels,
            num_layers=0,
            norm_num_groups=norm_groups,
        )
        self.spatial = spatial
        self.transformer_blocks.append(
            SpatioTemporalBlock(
                channels, heads, max_frames, attentions=attentions, ff_mult=ff_mult, spatial=spatial, blend=blend
            )
        )

    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, views: int, frame_index: torch.Tensor
    ) -> torch.Tensor:
        """Mix `[(b n f), c, h, w]` features over time, views and positions; `frame_index` is `[b, f]`."""
        return self.with_branches(hidden_states, views, frame_index)[0]

    def with_branches(
        self, hidden_states: torch.Tensor, views: int, frame_index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return `forward`'s result and the last attention's temporal and spatial branch `[b, n, f, h w, c]`."""
        samples, frames = frame_index.shape
        rows, channels, height, width = hidden_states.shape
        clip = hidden_states.view(samples * views, frames, channels, height * width)
        normed = self.norm(clip.transpose(1, 2))
        tokens = self.proj_in(normed.permute(0, 2, 3, 1)).view(samples, views, frames, height * width, channels)
        positions = sine_encoding_2d(height, width, channels, tokens.device).to(tokens.dtype)
        tokens, temporal, spatial = self.transformer_blocks[0](tokens, positions, frame_index)
        mixed = self.proj_out(tokens).view(rows, height * width, channels).transpose(1, 2)
        return hidden_states + mixed.reshape(rows, channels, height, width), temporal, spatial
