"""Attention over views, frame 0, text and images, run on the weights of diffusers' `Attention`.

Rows of the batch axis are always ordered (sample b, frame f, view n), n fastest: all views of one time step lie side by
side, so attention over views and attention to text need no copy of their tokens. The modules here sit where diffusers
keeps an attention's processor, which decides the names of their weights; view and frame counts come with the call.
"""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

GRID_LIMIT = 65_535
"""Sequences a fused CUDA kernel takes at once; level 0 of eight guided objects at the published size has more."""


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, *, limit: int = GRID_LIMIT
) -> torch.Tensor:
    """Return softmax(q k^T / sqrt(C / heads)) v for tokens `[S, L, C]` and keys and values `[S, K, C]`, head by head.

    Fused everywhere. Measured on one AVX-512 core in float32 against two matrix products and a softmax, forward and
    backward take 0.5 to 1.0 of their time at every size of `smoke` and `paper`; 0.7 to 0.96 for sequences of 4 or 8
    frames, 0.5 to 0.8 for those of 16. (In bfloat16 a CPU's fused backward pass is slower, five times for 16 frames;
    training on a CPU runs in float32.)

    Args:
        query: `[S, L, C]`; any strides.
        key: `[S, K, C]`.
        value: `[S, K, C]`.
        heads: divides C.
        limit: sequences per call of the kernel.
    """
    query, key, value = (tokens.unflatten(-1, (heads, -1)).transpose(1, 2) for tokens in (query, key, value))
    if len(query) <= limit:
        seen = scaled_dot_product_attention(query, key, value)
    else:
        parts = zip(query.split(limit), key.split(limit), value.split(limit), strict=True)
        seen = torch.cat([scaled_dot_product_attention(*part) for part in parts])
    return seen.transpose(1, 2).flatten(2)


class MultiViewAttention(nn.Module):
    """Self-attention over the views of one time step, plus the MV2V branch that asks frame 0 of all views.

    out = W_O(A + W'_O A'): A is attention among the tokens of one time step; A' uses its own query W'_Q and the keys
    and values just computed at frame 0 of the same sample. W'_O starts at zero, so the branch is silent until trained.
    The nested form is the released network's (paper 002 eq. 2 adds W'_O A' outside of W_O). Without `mv2v`, W_O A.
    """

    def __init__(self, channels: int, *, mv2v: bool = True) -> None:
        super().__init__()
        self.mv2v = mv2v
        if mv2v:
            self.to_q_i2v = nn.Linear(channels, channels, bias=False)
            self.to_out_i2v = nn.Linear(channels, channels)

    def start_from(self, attention: Attention) -> None:
        """Copy the layer's own query into the branch and silence its output."""
        if not self.mv2v:
            return
        with torch.no_grad():
            self.to_q_i2v.weight.copy_(attention.to_q.weight)
            self.to_out_i2v.weight.zero_()
            self.to_out_i2v.bias.zero_()

    def forward(self, attn: Attention, tokens: torch.Tensor, frames: int) -> torch.Tensor:
        """Attend; `tokens` is `[(b f), (n l), c]`, the result too."""
        query, key, value = attn.to_q(tokens), attn.to_k(tokens), attn.to_v(tokens)
        seen = attend(query, key, value, attn.heads)
        if self.mv2v:
            # One attention of all frames' queries against frame 0's keys: no key is copied for the frames that ask.
            first_key, first_value = (states.unflatten(0, (-1, frames))[:, 0] for states in (key, value))
            asked = self.to_q_i2v(tokens).unflatten(0, (-1, frames)).flatten(1, 2)
            condition = attend(asked, first_key, first_value, attn.heads)
            seen = seen + self.to_out_i2v(condition).view_as(seen)
        return attn.to_out[0](seen)


class TextImageAttention(nn.Module):
    """Cross-attention to text and, with their own keys and values, to image tokens where there are any.

    The image part is IP-Adapter's at scale 1: a view's tokens are those of its own frame 0, at every frame.
    """

    def __init__(self, channels: int, context_channels: int, image_tokens: int) -> None:
        super().__init__()
        if image_tokens:
            self.to_k_ip = nn.Linear(context_channels, channels, bias=False)
            self.to_v_ip = nn.Linear(context_channels, channels, bias=False)

    def forward(
        self, attn: Attention, tokens: torch.Tensor, text: torch.Tensor, image: torch.Tensor | None
    ) -> torch.Tensor:
        """Attend from `[(b f n), l, c]` to text `[b, L, d]` and image tokens `[b, n, t, d]`.

        Text keys and values are computed once per sample and shared by its frames and views.
        """
        query = attn.to_q(tokens)
        by_sample = query.unflatten(0, (len(text), -1)).flatten(1, 2)
        seen = attend(by_sample, attn.to_k(text), attn.to_v(text), attn.heads).view_as(query)
        if image is not None:
            samples, views = image.shape[:2]
            key, value = (
                states[:, None].expand(-1, len(tokens) // (samples * views), -1, -1, -1).flatten(0, 2)
                for states in (self.to_k_ip(image), self.to_v_ip(image))
            )
            seen = seen + attend(query, key, value, attn.heads)
        return attn.to_out[0](seen)
