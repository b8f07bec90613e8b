"""What makes diffusers' blocks ours: attention over views and to frame 0, spatiotemporal modules; how they start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention import FeedForward
from torch import nn

from animate4d.models.attention import MultiViewAttention, TextImageAttention
from animate4d.models.config import MVVDMConfig
from animate4d.models.spatiotemporal import SpatioTemporalTransformer

if TYPE_CHECKING:
    from animate4d.models.unet import MultiViewUNetMotionModel

NOISY_SHARE, FIRST_FRAME_GAIN = 0.1, 8.0
"""Factors on the first convolution's start, which make frame 0 about five times louder than the noise."""


def equip(block: Any, config: MVVDMConfig, *, spatial: bool) -> None:
    """Replace a block's stock parts by ours; `spatial` says whether its motion modules have a spatial branch."""
    for resnet in block.resnets if config.resnet_scale_shift else ():
        resnet.time_embedding_norm = "scale_shift"
        resnet.time_emb_proj = nn.Linear(resnet.time_emb_proj.in_features, 2 * resnet.out_channels)
    for attention in getattr(block, "attentions", ()):
        channels = attention.in_channels
        for layer in attention.transformer_blocks:
            layer.attn1.set_processor(MultiViewAttention(channels, mv2v=config.mv2v))
            layer.attn1.processor.start_from(layer.attn1)
            layer.attn2.set_processor(TextImageAttention(channels, config.text_dim, config.image_tokens))
            if config.ff_mult != 4:
                layer.ff = FeedForward(channels, mult=config.ff_mult, activation_fn="geglu")
    block.motion_modules = nn.ModuleList(
        SpatioTemporalTransformer(
            stock.in_channels,
            heads=config.temporal_heads,
            norm_groups=config.norm_groups,
            max_frames=config.max_frames,
            attentions=config.motion_attentions,
            ff_mult=config.motion_ff_mult,
            spatial=spatial,
            blend=config.blend,
        )
        for stock in block.motion_modules
    )


def start_from_scratch(network: MultiViewUNetMotionModel) -> None:
    """Make every residual layer and the output begin at zero, so that an untrained network passes frame 0 through.

    Only for training without pretrained weights: diffusers' own start is random motion modules.
    """
    last: list[Any] = [network.conv_out]
    for block in network.blocks():
        last += [resnet.conv2 for resnet in block.resnets]
        last += [motion.proj_out for motion in block.motion_modules]
    for layer in last:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    if network.network.concat_first_frame:
        # Frame 0 is mostly background, noisy latents have unit variance: unscaled, they would drown it tenfold.
        with torch.no_grad():
            noisy, first = network.conv_in.weight.chunk(2, dim=1)
            noisy.mul_(NOISY_SHARE)
            first.mul_(FIRST_FRAME_GAIN)
    if network.network.position_map:
        nn.init.normal_(network.position_map, std=0.3)
    if network.network.frame_conditions:
        nn.init.normal_(network.frame_embedding.weight, std=0.5)
