"""The denoiser: diffusers' `UNetMotionModel` with views, cameras, MV2V, spatiotemporal modules and a feature tap.

Subclassing keeps parameter names (and so pretrained weights) of diffusers; the forward pass is our own, because
conditions differ per view and per frame, blocks must know the view count, and features are returned rather than hooked
(a hook fires twice under checkpointing).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import ImageProjection, TimestepEmbedding
from diffusers.models.unets.unet_motion_model import UNetMotionModel
from torch import nn
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from animate4d.core.errors import ConfigError
from animate4d.models.attention import MultiViewAttention, TextImageAttention
from animate4d.models.config import MVVDMConfig
from animate4d.models.spatiotemporal import SpatioTemporalTransformer
from animate4d.models.taps import check_taps, list_taps

if TYPE_CHECKING:
    from animate4d.models.step_cache import StepCache

CAMERA_NUMBERS = 16
"""A camera is its 4x4 camera-to-world matrix, row-major."""

NOISY_SHARE, FIRST_FRAME_GAIN = 0.1, 8.0
"""Factors on the first convolution's start, which make frame 0 about five times louder than the noise."""


def camera_numbers(camera_to_world: torch.Tensor) -> torch.Tensor:
    """Flatten `[..., 4, 4]` camera-to-world matrices to 16 numbers with the translation scaled to length one (MVDream).

    Distance and field of view are thereby unknown to the network.
    """
    matrix = camera_to_world.clone()
    position = matrix[..., :3, 3]
    matrix[..., :3, 3] = position / (position.norm(dim=-1, keepdim=True) + 1e-8)
    return matrix.flatten(-2)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the layers of one forward pass share.

    Attributes:
        views: view count n.
        frame_index: `[b, f]` int64.
        embedding: `[(b n f), d]` time, camera and, if configured, frame and text.
        context: `[b, L, d]` text states, image tokens of all views behind them.
        taps: places whose features are wanted.
    """

    views: int
    frame_index: torch.Tensor
    embedding: torch.Tensor
    context: torch.Tensor
    taps: frozenset[str]


class MultiViewUNetMotionModel(UNetMotionModel):
    """A video U-Net over `n` views x `f` frames."""

    def __init__(self, config: MVVDMConfig, *, in_channels: int, out_channels: int) -> None:
        kinds = ["CrossAttn" if attends else "" for attends in config.attention_levels]
        super().__init__(
            sample_size=config.latent_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=tuple(f"{kind}DownBlockMotion" for kind in kinds),
            up_block_types=tuple(f"{kind}UpBlockMotion" for kind in reversed(kinds)),
            block_out_channels=config.block_channels,
            layers_per_block=config.layers_per_block,
            norm_num_groups=config.norm_groups,
            cross_attention_dim=config.text_dim,
            num_attention_heads=config.heads,
            use_linear_projection=config.linear_projection,
            motion_max_seq_length=config.max_frames,
            motion_num_attention_heads=config.temporal_heads,
        )
        self.network = config
        self.checkpoint_layers = False
        first, condition_dim = config.block_channels[0], config.block_channels[0] * 4
        self.camera_embedding = TimestepEmbedding(CAMERA_NUMBERS, condition_dim)
        if config.image_tokens:
            self.image_projection = ImageProjection(config.image_embed_dim, config.text_dim, config.image_tokens)
        if config.io_kernel == 1:
            self.conv_in = nn.Conv2d(in_channels, first, 1)
            self.conv_out = nn.Conv2d(first, out_channels, 1)
        if config.position_map:
            self.position_map = nn.Parameter(torch.zeros(1, first, config.latent_size, config.latent_size))
        if config.frame_conditions:
            self.frame_embedding = nn.Embedding(config.max_frames, condition_dim)
            self.text_embedding = TimestepEmbedding(config.text_dim, condition_dim)
            self.condition_mix = nn.Sequential(
                nn.LayerNorm(condition_dim),
                nn.Linear(condition_dim, condition_dim),
                nn.SiLU(),
                nn.Linear(condition_dim, condition_dim),
            )
        spatial = config.spatial_levels
        blocks = self.named_blocks()
        for (_, block), branches in zip(blocks, (*spatial, spatial[-1], *reversed(spatial)), strict=True):
            self._equip(block, spatial=branches)
        self.tap_names = tuple(list_taps(blocks))
        try:
            check_taps((config.tap,), self.tap_names)
        except ConfigError as error:
            raise ConfigError(f"model.tap: {error}") from error

    def named_blocks(self) -> list[tuple[str, nn.Module]]:
        """Return the blocks in the order they are passed, with their names."""
        down = [(f"down_blocks.{index}", block) for index, block in enumerate(self.down_blocks)]
        up = [(f"up_blocks.{index}", block) for index, block in enumerate(self.up_blocks)]
        return [*down, ("mid_block", self.mid_block), *up]

    def _equip(self, block: nn.Module, *, spatial: bool) -> None:
        """Replace a block's stock parts by ours."""
        config = self.network
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

    def start_from_scratch(self) -> None:
        """Make every residual layer and the output begin at zero, so that an untrained network passes frame 0 through.

        Only for training without pretrained weights: diffusers' own start is random motion modules.
        """
        for _, block in self.named_blocks():
            for resnet in block.resnets:
                nn.init.zeros_(resnet.conv2.weight)
                nn.init.zeros_(resnet.conv2.bias)
            for motion in block.motion_modules:
                nn.init.zeros_(motion.proj_out.weight)
                nn.init.zeros_(motion.proj_out.bias)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)
        if self.network.concat_first_frame:
            # Frame 0 is mostly background, noisy latents have unit variance: unscaled, they would drown it tenfold.
            with torch.no_grad():
                noisy, first = self.conv_in.weight.chunk(2, dim=1)
                noisy.mul_(NOISY_SHARE)
                first.mul_(FIRST_FRAME_GAIN)
        if self.network.position_map:
            nn.init.normal_(self.position_map, std=0.3)
        if self.network.frame_conditions:
            nn.init.normal_(self.frame_embedding.weight, std=0.5)

    def freeze_base(self) -> None:
        """Train MV2V and motion modules only (papers 001 and 002)."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_("i2v." in name or "motion_modules." in name)

    def forward(  # type: ignore[override]
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        *,
        camera: torch.Tensor,
        frame_index: torch.Tensor,
        pooled_text: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        taps: Iterable[str] = (),
        cache: StepCache | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Run the network.

        Args:
            sample: `[b, n, f, c, h, w]`, any height and width.
            timestep: `[b]`, shared by a sample's views and frames.
            encoder_hidden_states: `[b, L, d]` text states.
            camera: `[b, n, 4, 4]` camera-to-world.
            frame_index: `[b, f]` int64.
            pooled_text: `[b, d]`, needed by `frame_conditions`.
            image_embeds: `[b, n, e]`, needed when the network has image tokens.
            taps: names out of `tap_names` whose features to return.
            cache: keeps deep features between sampling steps; where it is to be read, the deep layers do not run.

        Returns:
            output `[b, n, f, c', h, w]` and features `[b, n, f, C, h', w']` by tap.

        Raises:
            ConfigError: a tap is unknown.
        """
        wanted = check_taps(taps, self.tap_names)
        samples, views, frames = sample.shape[:3]
        context = encoder_hidden_states
        if self.network.image_tokens:
            assert image_embeds is not None
            tokens = self.image_projection(image_embeds.flatten(0, 1)).view(samples, -1, context.shape[-1])
            context = torch.cat((context, tokens.to(context.dtype)), dim=1)
        embedding = self._embed(timestep, camera, frame_index, pooled_text)
        shared = Conditions(views, frame_index, embedding, context, wanted)
        hidden = self.conv_in(sample.flatten(0, 2))
        if self.network.position_map:
            hidden = hidden + self._position_map(*hidden.shape[-2:])
        features: dict[str, torch.Tensor] = {}
        shortcut = cache is not None and cache.reuse
        skips = self._encode(hidden, shared, features, limit=cache.layers if cache is not None and shortcut else None)
        deep = None if shortcut else self._through_middle(skips[-1], shared, features)
        hidden = self._decode(deep, skips, shared, features, cache)
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        rows = (samples, views, frames)
        return hidden.unflatten(0, rows), {tap: features[tap].unflatten(0, rows) for tap in features}

    def _encode(
        self, hidden: torch.Tensor, shared: Conditions, features: dict[str, torch.Tensor], limit: int | None
    ) -> list[torch.Tensor]:
        """Run the encoder; return its skips, or as many of the first ones as `limit` says and no layer beyond."""
        skips = [hidden]
        for number, block in enumerate(self.down_blocks):
            for index in range(len(block.resnets)):
                if len(skips) == limit:
                    return skips
                hidden, found = self._layer(f"down_blocks.{number}", block, index, hidden, shared)
                features.update(found)
                skips.append(hidden)
            for downsampler in block.downsamplers or ():
                if len(skips) == limit:
                    return skips
                hidden = downsampler(hidden)
                skips.append(hidden)
            if f"down_blocks.{number}" in shared.taps:
                features[f"down_blocks.{number}"] = hidden
        return skips

    def _through_middle(
        self, hidden: torch.Tensor, shared: Conditions, features: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        for index in range(len(self.mid_block.resnets)):
            hidden, found = self._layer("mid_block", self.mid_block, index, hidden, shared)
            features.update(found)
        if "mid_block" in shared.taps:
            features["mid_block"] = hidden
        return hidden

    def _decode(
        self,
        hidden: torch.Tensor | None,
        skips: list[torch.Tensor],
        shared: Conditions,
        features: dict[str, torch.Tensor],
        cache: StepCache | None,
    ) -> torch.Tensor:
        """Run the decoder; without `hidden`, only the layers after the one that `cache` kept the input of."""
        left = sum(len(block.resnets) for block in self.up_blocks)
        for number, block in enumerate(self.up_blocks):
            for index in range(len(block.resnets)):
                if cache is not None and left == cache.layers:
                    hidden = cache.exchange(hidden)
                left -= 1
                if hidden is None:
                    continue
                joined = torch.cat((hidden, skips.pop()), dim=1)
                hidden, found = self._layer(f"up_blocks.{number}", block, index, joined, shared)
                features.update(found)
            if hidden is None:
                continue
            for upsampler in block.upsamplers or ():
                hidden = upsampler(hidden, skips[-1].shape[-2:])
            if f"up_blocks.{number}" in shared.taps:
                features[f"up_blocks.{number}"] = hidden
        assert hidden is not None
        return hidden

    def _position_map(self, height: int, width: int) -> torch.Tensor:
        if self.position_map.shape[-2:] == (height, width):
            return self.position_map
        return interpolate(self.position_map, size=(height, width), mode="bilinear", align_corners=False)

    def _embed(
        self,
        timestep: torch.Tensor,
        camera: torch.Tensor,
        frame_index: torch.Tensor,
        pooled_text: torch.Tensor | None,
    ) -> torch.Tensor:
        samples, views = camera.shape[:2]
        frames = frame_index.shape[1]
        dtype = self.conv_in.weight.dtype
        time = self.time_embedding(self.time_proj(timestep).to(dtype))[:, None, None]
        view = self.camera_embedding(camera_numbers(camera).to(dtype))[:, :, None]
        embedding = (time + view).expand(samples, views, frames, -1)
        if self.network.frame_conditions:
            assert pooled_text is not None
            embedding = embedding + self.text_embedding(pooled_text)[:, None, None]
            embedding = embedding + self.frame_embedding(frame_index)[:, None]
            embedding = embedding + self.condition_mix(embedding)
        return embedding.flatten(0, 2)

    def _layer(
        self, name: str, block: nn.Module, index: int, hidden: torch.Tensor, shared: Conditions
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if self.checkpoint_layers and torch.is_grad_enabled():
            return checkpoint(self._layer_now, name, block, index, hidden, shared, use_reentrant=False)
        return self._layer_now(name, block, index, hidden, shared)

    def _layer_now(
        self, name: str, block: nn.Module, index: int, hidden: torch.Tensor, shared: Conditions
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Run ResNet block, attention and motion module `index`; in the middle block the ResNet block comes last."""
        found: dict[str, torch.Tensor] = {}

        def tap(kind: str, number: int, value: torch.Tensor, branch: str = "") -> None:
            if (place := f"{name}.{kind}.{number}{branch}") in shared.taps:
                found[place] = value

        last = name == "mid_block"
        if not last or index == 0:
            hidden = block.resnets[index](hidden, shared.embedding)
            tap("resnets", index, hidden)
            if last:
                return hidden, found
        layer = index - 1 if last else index
        if hasattr(block, "attentions"):
            sizes = {"views": shared.views, "frames": shared.frame_index.shape[1]}
            hidden = block.attentions[layer](
                hidden, encoder_hidden_states=shared.context, cross_attention_kwargs=sizes, return_dict=False
            )[0]
            tap("attentions", layer, hidden)
        rows, _, height, width = hidden.shape
        hidden, temporal, spatial = block.motion_modules[layer].with_branches(hidden, shared.views, shared.frame_index)
        for branch, value in ((".temporal", temporal), (".spatial", spatial)):
            if f"{name}.motion_modules.{layer}{branch}" in shared.taps:
                tap("motion_modules", layer, value.transpose(-1, -2).reshape(rows, -1, height, width), branch)
        tap("motion_modules", layer, hidden)
        if last:
            hidden = block.resnets[index](hidden, shared.embedding)
            tap("resnets", index, hidden)
        return hidden, found
