"""Stable Diffusion's autoencoder in LDM layout (`first_stage_model.`) and in diffusers'."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from animate4d.models.layouts.layout import Layout

PREFIX = "first_stage_model."
SCALING = 0.18215
"""Factor from autoencoder output to latents of unit variance (Stable Diffusion)."""

SHORTCUT = ("conv_shortcut", "nin_shortcut")
ATTENTION = (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"))
BLOCK = re.compile(r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.(resnets\.(\d+)|downsamplers\.0|upsamplers\.0)\.(.+)")


def ldm_name(name: str, levels: int) -> str:
    """Return LDM's name of an autoencoder tensor; LDM numbers the decoder's levels from the finest."""
    block = BLOCK.fullmatch(name)
    if block:
        side, level, kind, index, rest = block[1], int(block[2]), block[3], block[4], block[5]
        level = levels - 1 - level if side == "decoder.up" else level
        member = f"block.{index}" if index else kind.split("samplers")[0] + "sample"
        return f"{side}.{level}.{member}.{rest}".replace(*SHORTCUT)
    name = name.replace("conv_norm_out", "norm_out")
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    if "mid_block.attentions.0." in name:
        stem, _, rest = name.partition("mid_block.attentions.0.")
        for ours, theirs in ATTENTION:
            if rest.startswith(f"{ours}."):
                return f"{stem}mid.attn_1.{theirs}.{rest.removeprefix(f'{ours}.')}"
    return name


def table(names: Collection[str]) -> dict[str, str]:
    """Return `{diffusers' name: LDM's name}`."""
    levels = len({name.split(".")[2] for name in names if name.startswith("decoder.up_blocks.")})
    return {name: PREFIX + ldm_name(name, levels) for name in names}


LDM = Layout(
    name="autoencoder-ldm",
    title="autoencoder, LDM layout",
    option="vae",
    table=table,
    signature=(r"^first_stage_model\.",),
    ignored=((r"^(?!first_stage_model\.)", "of other parts"), (r"\.loss\.", "of the autoencoder's training loss")),
    pointwise=r"\.mid\.attn_1\.(q|k|v|proj_out)\.weight$",
)


def autoencoder_config(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the diffusers config of an autoencoder from the shapes in its LDM checkpoint."""
    levels = sorted(
        {int(found[1]) for name in tensors if (found := re.match(rf"{PREFIX}encoder\.down\.(\d+)\.", name))}
    )
    channels = [tensors[f"{PREFIX}encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in levels]
    layers = len({name.split(".")[5] for name in tensors if name.startswith(f"{PREFIX}encoder.down.0.block.")})
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": tensors[f"{PREFIX}post_quant_conv.weight"].shape[0],
        "layers_per_block": layers,
        "norm_num_groups": 32,
        "sample_size": 256,
        "scaling_factor": SCALING,
    }
