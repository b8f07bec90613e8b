"""The denoiser: diffusers' `UNetMotionModel` with views, cameras, MV2V, spatiotemporal modules and a feature tap.

Subclassing keeps parameter names (and so pretrained weights) of diffusers; the forward pass is our own, because
conditions differ per view and per frame, blocks must know the view count, and features are returned rather than hooked
(a hook fires twice under checkpointing).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import ImageProjection, TimestepEmbedding
from diffusers.models.unets.unet_motion_model import UNetMotionModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from animate4d.core.errors import ConfigError
from animate4d.models.attention import MultiViewAttention, TextImageAttention
from animate4d.models.config import MVVDMConfig
from animate4d.models.spatiotemporal import SpatioTemporalTransformer

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
    """

    views: int
    frame_index: torch.Tensor
    embedding: torch.Tensor
    context: torch.Tensor


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
            motion_max_seq_length=config.max_frames,
            motion_num_attention_heads=config.heads,
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
        for block, branches in zip(self._blocks(), (*spatial, spatial[-1], *reversed(spatial)), strict=True):
            self._equip(block, spatial=branches)
        tapped, _, module = config.tap.partition(".motion_modules.")
        self._tap_block = int(tapped.removeprefix("up_blocks.")) if tapped.removeprefix("up_blocks.").isdigit() else -1
        self._tap_layer = int(module) if module.isdigit() else None
        if not 0 <= self._tap_block < len(self.up_blocks) or (self._tap_layer or 0) > config.layers_per_block:
            raise ConfigError(f"model.tap is {config.tap!r}: expected up_blocks.I or up_blocks.I.motion_modules.J")

    def _blocks(self) -> list[nn.Module]:
        return [*self.down_blocks, self.mid_block, *self.up_blocks]

    def _equip(self, block: nn.Module, *, spatial: bool) -> None:
        """Replace a block's stock parts by ours."""
        config = self.network
        for resnet in block.resnets if config.resnet_scale_shift else ():
            resnet.time_embedding_norm = "scale_shift"
            resnet.time_emb_proj = nn.Linear(resnet.time_emb_proj.in_features, 2 * resnet.out_channels)
        for attention in getattr(block, "attentions", ()):
            channels = attention.in_channels
            for layer in attention.transformer_blocks:
                layer.attn1.set_processor(MultiViewAttention(channels))
                layer.attn1.processor.start_from(layer.attn1)
                layer.attn2.set_processor(TextImageAttention(channels, config.text_dim, config.image_tokens))
                if config.ff_mult != 4:
                    layer.ff = FeedForward(channels, mult=config.ff_mult, activation_fn="geglu")
        block.motion_modules = nn.ModuleList(
            SpatioTemporalTransformer(
                stock.in_channels,
                heads=config.heads,
                norm_groups=config.norm_groups,
                max_frames=config.max_frames,
                attentions=config.motion_attentions,
                ff_mult=config.motion_ff_mult,
                spatial=spatial,
            )
            for stock in block.motion_modules
        )

    def start_from_scratch(self) -> None:
        """Make every residual layer and the output begin at zero, so that an untrained network passes frame 0 through.

        Only for training without pretrained weights: diffusers' own start is random motion modules.
        """
        for block in self._blocks():
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
        return_features: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run the network.

        Args:
            sample: `[b, n, f, c, h, w]`.
            timestep: `[b]`, shared by a sample's views and frames.
            encoder_hidden_states: `[b, L, d]` text states.
            camera: `[b, n, 4, 4]` camera-to-world.
            frame_index: `[b, f]` int64.
            pooled_text: `[b, d]`, needed by `frame_conditions`.
            image_embeds: `[b, n, e]`, needed when the network has image tokens.
            return_features: whether to return the tapped features.

        Returns:
            output `[b, n, f, c', h, w]` and features `[b, n, f, C, h', w']` or None.
        """
        samples, views, frames = sample.shape[:3]
        rows = samples * views * frames
        context = encoder_hidden_states
        if self.network.image_tokens:
            assert image_embeds is not None
            tokens = self.image_projection(image_embeds.flatten(0, 1)).view(samples, -1, context.shape[-1])
            context = torch.cat((context, tokens.to(context.dtype)), dim=1)
        embedding = self._embed(timestep, camera, frame_index, pooled_text)
        shared = Conditions(views, frame_index, embedding, context)

        hidden = self.conv_in(sample.flatten(0, 2))
        if self.network.position_map:
            hidden = hidden + self.position_map
        skips = [hidden]
        for block in self.down_blocks:
            for index in range(len(block.resnets)):
                hidden = self._layer(block, index, hidden, shared)
                skips.append(hidden)
            for downsampler in block.downsamplers or ():
                hidden = downsampler(hidden)
                skips.append(hidden)
        hidden = self.mid_block.resnets[0](hidden, shared.embedding)
        for index in range(1, len(self.mid_block.resnets)):
            hidden = self._attend(self.mid_block, index - 1, hidden, shared)
            hidden = self.mid_block.resnets[index](hidden, shared.embedding)
        features = None
        for number, block in enumerate(self.up_blocks):
            for index in range(len(block.resnets)):
                hidden = self._layer(block, index, torch.cat((hidden, skips.pop()), dim=1), shared)
                if number == self._tap_block and index == self._tap_layer:
                    features = hidden
            for upsampler in block.upsamplers or ():
                hidden = upsampler(hidden, skips[-1].shape[-2:])
            if number == self._tap_block and self._tap_layer is None:
                features = hidden
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        assert hidden.shape[0] == rows
        shaped = hidden.unflatten(0, (samples, views, frames))
        if not return_features or features is None:
            return shaped, None
        return shaped, features.unflatten(0, (samples, views, frames))

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

    def _layer(self, block: nn.Module, index: int, hidden: torch.Tensor, shared: Conditions) -> torch.Tensor:
        if self.checkpoint_layers and torch.is_grad_enabled():
            return checkpoint(self._layer_now, block, index, hidden, shared, use_reentrant=False)
        return self._layer_now(block, index, hidden, shared)

    def _layer_now(self, block: nn.Module, index: int, hidden: torch.Tensor, shared: Conditions) -> torch.Tensor:
        return self._attend(block, index, block.resnets[index](hidden, shared.embedding), shared)

    def _attend(self, block: nn.Module, index: int, hidden: torch.Tensor, shared: Conditions) -> torch.Tensor:
        if hasattr(block, "attentions"):
            sizes = {"views": shared.views, "frames": shared.frame_index.shape[1]}
            hidden = block.attentions[index](
                hidden, encoder_hidden_states=shared.context, cross_attention_kwargs=sizes, return_dict=False
            )[0]
        return block.motion_modules[index](hidden, shared.views, shared.frame_index)
