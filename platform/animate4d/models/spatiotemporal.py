"""The spatiotemporal motion module: attention along time blended with attention over the views of one time step.

Extends AnimateDiff's motion module (diffusers' `AnimateDiffTransformer3D`) as Animate3D does: two branches with their
own projections, a blend that starts at one half. Tokens are `[b, f, n, l, c]`: samples, frames, views, map cells.
"""

from __future__ import annotations

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from animate4d.models.attention import attend


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
        self.chunk = 0
        """Sequences attended at once; 0 takes all."""
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
        positions: torch.Tensor | None,
        frame_index: torch.Tensor,
        mix_factor: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Attend along time and over space.

        Args:
            tokens: `[b, f, n, l, c]` normalised.
            positions: `[l, c]` spatial encoding; None without a spatial branch.
            frame_index: `[b, f]` int64, which frame of the clip each one is.
            mix_factor: `[1]`, that of the module around, if it owns it.

        Returns:
            the blend, the temporal branch and the spatial branch, each `[b, f, n, l, c]` behind its own projection.
        """
        temporal = self._over_time(tokens, frame_index)
        if not self.spatial:
            return temporal, temporal, None
        assert positions is not None
        spatial = self._over_space(tokens + positions)
        factor = self.mix_factor if mix_factor is None else mix_factor
        share = 0.5 if factor is None else factor.sigmoid()
        return share * spatial + (1 - share) * temporal, temporal, spatial

    def _over_space(self, tokens: torch.Tensor) -> torch.Tensor:
        together = tokens.flatten(2, 3).flatten(0, 1)
        query, key, value = self.to_q_sp(together), self.to_k_sp(together), self.to_v_sp(together)
        return self.to_out_sp(attend(query, key, value, self.heads)).view_as(tokens)

    def _over_time(self, tokens: torch.Tensor, frame_index: torch.Tensor) -> torch.Tensor:
        samples, frames, views, length, channels = tokens.shape
        encoding = self.time_pos_embed.pe[0][frame_index].to(tokens.dtype)
        timed = tokens + encoding[:, :, None, None]
        sequences = timed.permute(0, 2, 3, 1, 4).reshape(-1, frames, channels)
        parts = sequences.split(self.chunk) if self.chunk else (sequences,)
        seen = [self._along(part) for part in parts]
        together = seen[0] if len(seen) == 1 else torch.cat(seen)
        return together.view(samples, views, length, frames, channels).permute(0, 3, 1, 2, 4)

    def _along(self, sequences: torch.Tensor) -> torch.Tensor:
        query, key, value = self.to_q(sequences), self.to_k(sequences), self.to_v(sequences)
        return self.to_out[0](attend(query, key, value, self.heads))


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
        self, tokens: torch.Tensor, positions: torch.Tensor | None, frame_index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Map `[b, f, n, l, c]` to the same shape; beside it the last attention's temporal and spatial branch."""
        mixed, temporal, spatial = self.attn1(self.norm1(tokens), positions, frame_index, self.mix_factor)
        tokens = tokens + mixed
        if self.attn2 is not None and self.norm2 is not None:
            mixed, temporal, spatial = self.attn2(self.norm2(tokens), positions, frame_index, self.mix_factor)
            tokens = tokens + mixed
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
        self, hidden: torch.Tensor, frame_index: torch.Tensor, positions: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Mix features over time, views and positions.

        Args:
            hidden: `[(b f n), c, h, w]`.
            frame_index: `[b, f]` int64.
            positions: `[h w, c]` spatial encoding; None without a spatial branch.

        Returns:
            the mixed features, and the last attention's temporal and spatial branch as tokens `[b, f, n, h w, c]`.
        """
        samples, frames = frame_index.shape
        rows, _, *size = hidden.shape
        clip = hidden.flatten(2).view(samples, frames, rows // (samples * frames), -1, size[0] * size[1])
        normed = self.norm(clip.permute(0, 2, 3, 1, 4).flatten(0, 1))
        tokens = self.proj_in(normed.unflatten(0, (samples, -1)).permute(0, 3, 1, 4, 2))
        tokens, temporal, spatial = self.transformer_blocks[0](tokens, positions, frame_index)
        mixed = self.proj_out(tokens).flatten(0, 2).transpose(1, 2).unflatten(2, size)
        return hidden + mixed, temporal, spatial
