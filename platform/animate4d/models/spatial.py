"""A spatial transformer of the base network, run on diffusers' weights in our token order.

diffusers' `Transformer2DModel` holds the weights; running its parts ourselves keeps the tokens of all views of a time
step in one block of memory from entry to exit, and skips the bookkeeping of its general forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear

from animate4d.models.conditions import Conditions


def attend_in_space(module: Any, hidden: torch.Tensor, shared: Conditions) -> torch.Tensor:
    """Mix `[(b f n), c, h, w]` features over the views of each time step, with text and with image tokens.

    `module` is a `Transformer2DModel` whose attentions have the processors of `models.attention`.
    """
    frames = shared.frame_index.shape[1]
    tokens = pointwise(module.proj_in, module.norm(hidden).flatten(2).transpose(1, 2))
    for layer in module.transformer_blocks:
        together = layer.norm1(tokens).unflatten(0, (-1, shared.views)).flatten(1, 2)
        tokens = tokens + layer.attn1.processor(layer.attn1, together, frames).view_as(tokens)
        tokens = tokens + layer.attn2.processor(layer.attn2, layer.norm2(tokens), shared.text, shared.image)
        tokens = tokens + layer.ff(layer.norm3(tokens))
    return hidden + pointwise(module.proj_out, tokens).transpose(1, 2).unflatten(2, hidden.shape[2:])


def pointwise(layer: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Apply a linear layer or a 1x1 convolution to tokens `[..., c]`."""
    return linear(tokens, layer.weight.flatten(1), layer.bias)
