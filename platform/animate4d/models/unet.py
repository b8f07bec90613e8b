"""The denoiser: diffusers' `UNetMotionModel` with views, cameras, MV2V, spatiotemporal modules and feature taps.

Subclassing keeps parameter names (and so pretrained weights) of diffusers; the forward pass is our own, because
conditions differ per view and per frame, blocks must know the view count, and features are returned rather than hooked
(a hook fires twice under checkpointing). Inside, rows are ordered (sample, frame, view), see `models.attention`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.embeddings import ImageProjection, TimestepEmbedding
from diffusers.models.unets.unet_motion_model import UNetMotionModel
from torch import nn
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from animate4d.core.errors import ConfigError
from animate4d.models.conditions import CAMERA_NUMBERS, Conditions, camera_numbers, level_positions
from animate4d.models.config import MVVDMConfig
from animate4d.models.equipment import equip
from animate4d.models.spatial import attend_in_space
from animate4d.models.spatiotemporal import SpatioTemporalAttention
from animate4d.models.taps import BRANCHES, check_taps
from animate4d.models.walk import Stop, kept_stops, plan_walk, stops_until

if TYPE_CHECKING:
    from animate4d.models.step_cache import StepCache


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
            temporal_transformer_layers_per_block=0,
            temporal_transformer_layers_per_mid_block=0,
            motion_max_seq_length=config.max_frames,
            motion_num_attention_heads=config.temporal_heads,
        )
        self.network = config
        self.checkpoint_layers = False
        self.memory_format = torch.contiguous_format
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
        branches = (*spatial, spatial[-1], *reversed(spatial))
        for block, branch in zip(self.blocks(), branches, strict=True):
            equip(block, config, spatial=branch)
        self.stops = plan_walk(config)
        self.tap_names = tuple(tap for stop in self.stops for tap in stop.taps)
        try:
            check_taps((config.tap,), self.tap_names)
        except ConfigError as error:
            raise ConfigError(f"model.tap: {error}") from error

    def blocks(self) -> list[Any]:
        """Return encoder blocks, middle block and decoder blocks in the order they run."""
        return [*self.down_blocks, self.mid_block, *self.up_blocks]

    def set_memory_format(self, memory_format: torch.memory_format) -> None:
        """Lay out convolution weights and feature maps as `torch.contiguous_format` or `torch.channels_last`."""
        self.memory_format = memory_format
        nn.Module.to(self, memory_format=memory_format)

    @staticmethod
    def is_adapter(name: str) -> bool:
        """Say whether a tensor belongs to MV2V or a motion module, by its name: those train, the base is frozen."""
        return "_i2v." in name or "motion_modules." in name

    def freeze_base(self) -> None:
        """Train MV2V and motion modules only (papers 001 and 002)."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.is_adapter(name))

    def set_temporal_chunk(self, sequences: int) -> None:
        """Let attention along time take at most this many sequences at once; 0 takes all."""
        for module in self.modules():
            if isinstance(module, SpatioTemporalAttention):
                module.chunk = sequences

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
        hidden, shared = self._enter(
            sample, timestep, encoder_hidden_states, camera, frame_index, pooled_text, image_embeds, wanted
        )
        stops = self.stops if cache is None or not cache.reuse else kept_stops(self.stops, cache.layers)
        hidden, features = self._walk(stops, hidden, shared, cache)
        output = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return _leave(output, shared), {tap: _leave(feature, shared) for tap, feature in features.items()}

    def read(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        *,
        camera: torch.Tensor,
        frame_index: torch.Tensor,
        taps: Iterable[str],
        pooled_text: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the features at `taps` only; layers behind the last of them do not run. Arguments as in `forward`."""
        wanted = check_taps(taps, self.tap_names)
        hidden, shared = self._enter(
            sample, timestep, encoder_hidden_states, camera, frame_index, pooled_text, image_embeds, wanted
        )
        _, features = self._walk(stops_until(self.stops, wanted), hidden, shared, None)
        return {tap: _leave(feature, shared) for tap, feature in features.items()}

    def _enter(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        camera: torch.Tensor,
        frame_index: torch.Tensor,
        pooled_text: torch.Tensor | None,
        image_embeds: torch.Tensor | None,
        taps: frozenset[str],
    ) -> tuple[torch.Tensor, Conditions]:
        """Return the first feature map `[(b f n), c, h, w]` and the conditions, in the type of the weights."""
        config, dtype = self.network, self.conv_in.weight.dtype
        samples, views = camera.shape[:2]
        image = None
        if config.image_tokens:
            assert image_embeds is not None
            image = self.image_projection(image_embeds.flatten(0, 1).to(dtype)).unflatten(0, (samples, views))
        hidden = self.conv_in(sample.transpose(1, 2).flatten(0, 2).to(dtype, memory_format=self.memory_format))
        if config.position_map:
            hidden = hidden + self._position_map(*hidden.shape[-2:])
        return hidden, Conditions(
            frame_index=frame_index,
            views=views,
            embedding=self._embed(timestep, camera, frame_index, pooled_text),
            text=text.to(dtype),
            image=image,
            positions=level_positions(
                hidden.shape[-2],
                hidden.shape[-1],
                config.block_channels,
                config.spatial_levels,
                like=self.conv_in.weight,
            ),
            taps=taps,
        )

    def _walk(
        self, stops: Sequence[Stop], hidden: torch.Tensor, shared: Conditions, cache: StepCache | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        skips, features = [hidden], {}
        for stop in stops:
            block = self.get_submodule(stop.block)
            if stop.layer is not None:
                if stop.stage == "up":
                    if cache is not None and stop.skip == cache.layers - 1:
                        hidden = cache.exchange(hidden)
                    hidden = torch.cat((hidden, skips.pop()), dim=1)
                hidden, found = self._layer(block, stop, hidden, shared)
                features.update(found)
            elif stop.stage == "up":
                hidden = block.upsamplers[0](hidden, skips[-1].shape[-2:])
            else:
                hidden = block.downsamplers[0](hidden)
            if stop.stage == "down":
                skips.append(hidden)
            if stop.block in stop.taps and stop.block in shared.taps:
                features[stop.block] = hidden
        return hidden, features

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
        view = self.camera_embedding(camera_numbers(camera).to(dtype))[:, None]
        embedding = (time + view).expand(samples, frames, views, -1)
        if self.network.frame_conditions:
            assert pooled_text is not None
            embedding = embedding + self.text_embedding(pooled_text.to(dtype))[:, None, None]
            embedding = embedding + self.frame_embedding(frame_index)[:, :, None]
            embedding = embedding + self.condition_mix(embedding)
        return embedding.flatten(0, 2)

    def _layer(
        self, block: nn.Module, stop: Stop, hidden: torch.Tensor, shared: Conditions
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if self.checkpoint_layers and torch.is_grad_enabled():
            # Nothing in a layer draws random numbers, so there is no state of theirs to keep.
            return checkpoint(
                self._layer_now, block, stop, hidden, shared, use_reentrant=False, preserve_rng_state=False
            )
        return self._layer_now(block, stop, hidden, shared)

    def _layer_now(
        self, block: nn.Module, stop: Stop, hidden: torch.Tensor, shared: Conditions
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Run ResNet block, attention and motion module; in the middle block the ResNet block comes last."""
        assert stop.layer is not None
        found: dict[str, torch.Tensor] = {}

        def note(place: str, value: torch.Tensor) -> None:
            if f"{stop.block}.{place}" in shared.taps:
                found[f"{stop.block}.{place}"] = value

        middle = stop.stage == "mid"
        number = stop.layer - 1 if middle else stop.layer
        if number < 0 or not middle:
            hidden = block.resnets[stop.layer](hidden, shared.embedding)
            note(f"resnets.{stop.layer}", hidden)
        if number < 0:
            return hidden, found
        if hasattr(block, "attentions"):
            hidden = attend_in_space(block.attentions[number], hidden, shared)
            note(f"attentions.{number}", hidden)
        size = hidden.shape[-2:]
        hidden, *branches = block.motion_modules[number](hidden, shared.frame_index, shared.positions[stop.level])
        for kind, branch in zip(BRANCHES, branches, strict=True):
            if f"{stop.block}.motion_modules.{number}.{kind}" in shared.taps:
                note(f"motion_modules.{number}.{kind}", branch.flatten(0, 2).transpose(1, 2).unflatten(2, size))
        note(f"motion_modules.{number}", hidden)
        if middle:
            hidden = block.resnets[stop.layer](hidden, shared.embedding)
            note(f"resnets.{stop.layer}", hidden)
        return hidden, found


def _leave(rows: torch.Tensor, shared: Conditions) -> torch.Tensor:
    """Turn `[(b f n), ...]` into `[b, n, f, ...]`."""
    samples, frames = shared.frame_index.shape
    return rows.unflatten(0, (samples, frames, shared.views)).transpose(1, 2).contiguous()
