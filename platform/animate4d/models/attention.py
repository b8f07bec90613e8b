"""Attention over views, frame 0, text and images, as processors on diffusers' `Attention`.

Rows of the batch axis are always ordered (sample b, view n, frame f), f fastest. Every processor takes the view and
frame counts as keyword arguments, so no size is baked into a module.
"""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


def split_heads(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """Turn `[S, L, C]` into `[S, heads, L, C / heads]`."""
    sequences, length, channels = tokens.shape
    return tokens.view(sequences, length, heads, channels // heads).transpose(1, 2)


def join_heads(tokens: torch.Tensor) -> torch.Tensor:
    """Turn `[S, heads, L, D]` back into `[S, L, heads * D]`."""
    return tokens.transpose(1, 2).flatten(2)


def views_together(tokens: torch.Tensor, views: int, frames: int) -> torch.Tensor:
    """Regroup `[(b n f), l, c]` so that all views of one time step form one sequence: `[(b f), (n l), c]`."""
    rows, length, channels = tokens.shape
    grouped = tokens.view(rows // (views * frames), views, frames, length, channels).transpose(1, 2)
    return grouped.reshape(-1, views * length, channels)


def views_apart(tokens: torch.Tensor, views: int, frames: int) -> torch.Tensor:
    """Undo `views_together`."""
    rows, length, channels = tokens.shape
    grouped = tokens.view(rows // frames, frames, views, length // views, channels).transpose(1, 2)
    return grouped.reshape(-1, length // views, channels)


class MultiViewAttention(nn.Module):
    """Self-attention over the views of one time step, plus the MV2V branch that asks frame 0 of all views.

    out = W_O(A + W'_O A'): A is attention among the tokens of one time step; A' uses its own query W'_Q and the keys
    and values just computed at frame 0 of the same sample. W'_O starts at zero, so the branch is silent until trained.
    The nested form is the released network's (paper 002 eq. 2 adds W'_O A' outside of W_O).
    """

    def __init__(self, channels: int, *, mv2v: bool = True) -> None:
        super().__init__()
        self.mv2v = mv2v
        if not mv2v:
            return
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

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        views: int = 1,
        frames: int = 1,
    ) -> torch.Tensor:
        """Attend; `hidden_states` is `[(b n f), l, c]`, the result too."""
        tokens = views_together(hidden_states, views, frames)
        key, value = attn.to_k(tokens), attn.to_v(tokens)
        query = split_heads(attn.to_q(tokens), attn.heads)
        seen = scaled_dot_product_attention(query, split_heads(key, attn.heads), split_heads(value, attn.heads))
        if not self.mv2v:
            return views_apart(attn.to_out[1](attn.to_out[0](join_heads(seen))), views, frames)
        # One attention of all frames' queries against frame 0's keys stores those keys once instead of once per frame.
        samples, length = tokens.shape[0] // frames, tokens.shape[1]
        first_key, first_value = (x.view(samples, frames, length, -1)[:, 0] for x in (key, value))
        asked = split_heads(self.to_q_i2v(tokens).view(samples, frames * length, -1), attn.heads)
        condition = scaled_dot_product_attention(
            asked, split_heads(first_key, attn.heads), split_heads(first_value, attn.heads)
        )
        mixed = join_heads(seen) + self.to_out_i2v(join_heads(condition)).view(samples * frames, length, -1)
        return views_apart(attn.to_out[1](attn.to_out[0](mixed)), views, frames)


class TextImageAttention(nn.Module):
    """Cross-attention to text and, with their own keys and values, to image tokens where there are any.

    The image part is IP-Adapter's at scale 1.
    """

    def __init__(self, channels: int, context_channels: int, image_tokens: int) -> None:
        super().__init__()
        self.image_tokens = image_tokens
        if image_tokens:
            self.to_k_ip = nn.Linear(context_channels, channels, bias=False)
            self.to_v_ip = nn.Linear(context_channels, channels, bias=False)

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        views: int = 1,
        frames: int = 1,
    ) -> torch.Tensor:
        """Attend from `[(b n f), l, c]` to context states `[b, text (+ n * image tokens), d]`.

        The context comes once per sample: keys and values are computed once and shared by its views and frames.
        """
        assert encoder_hidden_states is not None
        samples = encoder_hidden_states.shape[0]
        rows, length, channels = hidden_states.shape
        image_length = self.image_tokens * views
        text = encoder_hidden_states[:, : encoder_hidden_states.shape[1] - image_length]
        query = split_heads(attn.to_q(hidden_states).view(samples, -1, channels), attn.heads)
        seen = join_heads(
            scaled_dot_product_attention(
                query, split_heads(attn.to_k(text), attn.heads), split_heads(attn.to_v(text), attn.heads)
            )
        ).view(rows, length, channels)
        if image_length:
            image = encoder_hidden_states[:, -image_length:].reshape(samples * views, self.image_tokens, -1)
            query = split_heads(join_heads(query).view(samples * views, -1, channels), attn.heads)
            key, value = split_heads(self.to_k_ip(image), attn.heads), split_heads(self.to_v_ip(image), attn.heads)
            seen = seen + join_heads(scaled_dot_product_attention(query, key, value)).view(rows, length, channels)
        return attn.to_out[1](attn.to_out[0](seen))
