"""Starting values of tensors that no published part provides, as the papers start them.

to_q_i2v copies the layer's own query, to_out_i2v is zero (paper 002: the branch is silent), blends are one half, the
spatial branch is drawn as PyTorch draws linear layers. Motion modules without AnimateDiff's weights leave by a zero
projection, or they would destroy the base at the first step.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping

import torch
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from torch import nn

from animate4d.core.errors import ModelError


def fresh_tensor(network: nn.Module, name: str, provided: Mapping[str, torch.Tensor], seed: int) -> torch.Tensor:
    """Return the starting value of one tensor, in float32; the same for the same name and seed.

    Args:
        network: the network on the meta device, which says what kind of layer the tensor is in.
        name: of a parameter or buffer.
        provided: what published parts give.
        seed: of the random ones.

    Raises:
        ModelError: nothing says how this tensor starts.
    """
    path, _, kind = name.rpartition(".")
    layer = network.get_submodule(path)
    shape = tuple(getattr(layer, kind).shape)
    if ".to_q_i2v." in name:
        return provided[name.replace("processor.to_q_i2v", "to_q")].float()
    if ".to_out_i2v." in name or kind == "mix_factor" or name.endswith((".proj_out.weight", ".proj_out.bias")):
        return torch.zeros(shape)
    if isinstance(layer, SinusoidalPositionalEmbedding):
        return SinusoidalPositionalEmbedding(shape[2], max_seq_length=shape[1]).get_buffer("pe")
    if not isinstance(layer, nn.Linear | nn.Conv2d | nn.LayerNorm | nn.GroupNorm):
        raise ModelError(f"no weights for {name}, and no rule how it starts")
    drawn = copy.deepcopy(layer).to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also note a stack trace for GPUs not yet in use: half of an import's time.
        torch.default_generator.manual_seed(seed + zlib.crc32(path.encode()))
        drawn.reset_parameters()
    return drawn.get_parameter(kind).detach()
