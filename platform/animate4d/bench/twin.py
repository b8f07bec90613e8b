"""The network once more, as one would first write it with diffusers: the bench's yardstick, and a check of the maths.

diffusers' own blocks run with their own forward passes: ResNet blocks, spatial transformers, AnimateDiff's motion
modules with their positional encoding, text attention with IP-Adapter's processor. What diffusers does not have is
added where it offers a place for it, as attention processors that are told views, frames and map sizes beforehand.
Text and image tokens are repeated for every frame, as `UNetMotionModel` asks for. Everything uses fused attention, as
diffusers does by default; nothing is made slower than that. Inference only.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from functools import cache

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection, SinusoidalPositionalEmbedding, TimestepEmbedding
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D, UNetMotionModel
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from animate4d.models.config import MVVDMConfig
from animate4d.models.mv_vdm import MVVDM, make_scheduler
from animate4d.models.sampler import Subjects
from animate4d.models.text import TextStates
from animate4d.models.warp import split_head


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """Attend among tokens `[s, l, c]`."""
    split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value)]
    return scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


@cache
def map_encoding(cells: int, channels: int) -> list[list[float]]:
    """Return the `[cells^2][channels]` sine encoding of a square map, number by number (DETR: y first, then x)."""
    rows = []
    for y, x in itertools.product(range(1, cells + 1), repeat=2):
        row = []
        for place in (y, x):
            for feature in range(channels // 2):
                angle = place / (cells + 1e-6) * 2 * math.pi / 10000 ** (2 * (feature // 2) / (channels // 2))
                row.append(math.sin(angle) if feature % 2 == 0 else math.cos(angle))
        rows.append(row)
    return rows


class PlainMultiView(nn.Module):
    """Processor of a spatial transformer's self-attention: all views of a frame, then MV2V with copied keys."""

    def __init__(self, channels: int, views: int, frames: int) -> None:
        super().__init__()
        self.views, self.frames = views, frames
        self.to_q_i2v = nn.Linear(channels, channels, bias=False)
        self.to_out_i2v = nn.Linear(channels, channels)

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend; `hidden_states` is `[(b n f), l, c]`."""
        views, frames, length = self.views, self.frames, hidden_states.shape[1]
        tokens = hidden_states.unflatten(0, (-1, views, frames)).transpose(1, 2).flatten(0, 1).flatten(1, 2)
        query, key, value = attn.to_q(tokens), attn.to_k(tokens), attn.to_v(tokens)
        first_key, first_value = (
            x.unflatten(0, (-1, frames))[:, :1].repeat(1, frames, 1, 1).flatten(0, 1) for x in (key, value)
        )
        seen = attend(query, key, value, attn.heads)
        asked = attend(self.to_q_i2v(tokens), first_key, first_value, attn.heads)
        mixed = attn.to_out[1](attn.to_out[0](seen + self.to_out_i2v(asked)))
        apart = mixed.unflatten(1, (views, length)).unflatten(0, (-1, frames))
        return apart.transpose(1, 2).flatten(0, 2)


class PlainSpatioTemporal(nn.Module):
    """Processor of a motion module's attention: the temporal and the spatial branch, blended."""

    def __init__(self, channels: int, views: int, cells: int, max_frames: int) -> None:
        super().__init__()
        self.views, self.cells = views, cells
        self.to_q_sp, self.to_k_sp, self.to_v_sp = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.to_out_sp = nn.Linear(channels, channels)
        self.mix_factor = nn.Parameter(torch.zeros(1))
        self.time_pos_embed = SinusoidalPositionalEmbedding(channels, max_seq_length=max_frames)
        self.register_buffer("positions", torch.tensor(map_encoding(cells, channels)), persistent=False)

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend; `hidden_states` is `[(b n h w), f, c]`."""
        timed = self.time_pos_embed(hidden_states)
        temporal = attend(attn.to_q(timed), attn.to_k(timed), attn.to_v(timed), attn.heads)
        temporal = attn.to_out[1](attn.to_out[0](temporal))
        length = self.cells**2
        grid = hidden_states.unflatten(0, (-1, self.views, length)).permute(0, 3, 1, 2, 4)  # b f n l c
        tokens = (grid + self.get_buffer("positions")).flatten(2, 3).flatten(0, 1)
        spatial = self.to_out_sp(attend(self.to_q_sp(tokens), self.to_k_sp(tokens), self.to_v_sp(tokens), attn.heads))
        spatial = spatial.unflatten(1, (self.views, length)).unflatten(0, (-1, hidden_states.shape[1]))
        spatial = spatial.permute(0, 2, 3, 1, 4).flatten(0, 2)
        share = self.mix_factor.sigmoid()
        return share * spatial + (1 - share) * temporal


class PlainUNet(UNetMotionModel):
    """The denoiser out of diffusers' blocks, with the same weights as ours under diffusers' names."""

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
            num_attention_heads=config.level_heads,
            motion_max_seq_length=config.max_frames,
            motion_num_attention_heads=config.temporal_heads,
        )
        self.ours = config
        self._conditions(config)
        if config.io_kernel == 1:
            self.conv_in = nn.Conv2d(in_channels, config.block_channels[0], 1)
            self.conv_out = nn.Conv2d(config.block_channels[0], out_channels, 1)
        sizes = [-(-config.latent_size // 2**level) for level in range(len(config.block_channels))]
        levels = zip(
            (*self.down_blocks, self.mid_block, *self.up_blocks),
            (*sizes, sizes[-1], *reversed(sizes)),
            (*config.spatial_levels, config.spatial_levels[-1], *reversed(config.spatial_levels)),
            strict=True,
        )
        for block, cells, spatial in levels:
            if config.resnet_scale_shift:
                for resnet in block.resnets:
                    resnet.time_embedding_norm = "scale_shift"
                    resnet.time_emb_proj = nn.Linear(resnet.time_emb_proj.in_features, 2 * resnet.out_channels)
            if hasattr(block, "attentions"):
                block.attentions = nn.ModuleList(self._spatial_transformer(stock) for stock in block.attentions)
            for module in block.motion_modules:
                self._equip_motion(module, cells, spatial=spatial)

    def _conditions(self, config: MVVDMConfig) -> None:
        width = config.block_channels[0] * 4
        self.camera_embedding = TimestepEmbedding(16, width)
        if config.image_tokens:
            self.image_projection = ImageProjection(config.image_embed_dim, config.text_dim, config.image_tokens)
        if config.position_map:
            self.position_map = nn.Parameter(torch.zeros(1, config.block_channels[0], *[config.latent_size] * 2))
        if config.frame_conditions:
            self.frame_embedding = nn.Embedding(config.max_frames, width)
            self.text_embedding = TimestepEmbedding(config.text_dim, width)
            self.condition_mix = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
            )

    def _spatial_transformer(self, stock: Transformer2DModel) -> Transformer2DModel:
        config, channels = self.ours, stock.config.in_channels
        module = Transformer2DModel(
            stock.config.num_attention_heads,
            channels // stock.config.num_attention_heads,
            in_channels=channels,
            norm_num_groups=config.norm_groups,
            cross_attention_dim=config.text_dim,
            use_linear_projection=config.linear_projection,
        )
        block = module.transformer_blocks[0]
        block.attn1.set_processor(PlainMultiView(channels, config.views, config.frames))
        if config.image_tokens:
            processor = IPAdapterAttnProcessor2_0(channels, config.text_dim, num_tokens=(config.image_tokens,))
            block.attn2.set_processor(processor)
        if config.ff_mult != 4:
            block.ff = FeedForward(channels, mult=config.ff_mult, activation_fn="geglu")
        return module

    def _equip_motion(self, module: AnimateDiffTransformer3D, cells: int, *, spatial: bool) -> None:
        config, channels, block = self.ours, module.in_channels, module.transformer_blocks[0]
        if config.motion_attentions == 1:
            block.norm2 = block.attn2 = None
        if config.motion_ff_mult != 4:
            block.ff = FeedForward(channels, mult=config.motion_ff_mult, activation_fn="geglu")
        if not spatial:
            return
        block.pos_embed = None  # the temporal branch adds it, the spatial one has its own
        for attention in (block.attn1, block.attn2):
            if attention is not None:
                attention.set_processor(PlainSpatioTemporal(channels, config.views, cells, config.max_frames))

    def load_ours(self, network: nn.Module) -> PlainUNet:
        """Share the weights of our network, which must have the same configuration; other layouts are copied."""
        own = self.state_dict()
        weights = {plain_name(name, own): value.contiguous() for name, value in network.state_dict().items()}
        self.load_state_dict(weights, assign=True)
        return self

    def forward(  # type: ignore[override]
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        *,
        camera: torch.Tensor,
        frame_index: torch.Tensor,
        pooled_text: torch.Tensor,
        image_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict `[b, n, f, c', h, w]`; arguments as in our network, `frame_index` counting from 0."""
        config = self.ours
        samples, views, frames = sample.shape[:3]
        numbers = camera.clone()
        numbers[..., :3, 3] /= camera[..., :3, 3].norm(dim=-1, keepdim=True) + 1e-8
        embedding = self.time_embedding(self.time_proj(timestep).to(sample.dtype))[:, None, None]
        embedding = embedding + self.camera_embedding(numbers.flatten(-2).to(sample.dtype))[:, :, None]
        if config.frame_conditions:
            embedding = embedding + self.text_embedding(pooled_text)[:, None, None]
            embedding = embedding + self.frame_embedding(frame_index)[:, None]
            embedding = embedding + self.condition_mix(embedding)
        embedding = embedding.expand(samples, views, frames, -1).flatten(0, 2)
        text = encoder_hidden_states.repeat_interleave(views * frames, dim=0)
        context: torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]] = text
        if config.image_tokens:
            assert image_embeds is not None
            tokens = self.image_projection(image_embeds.flatten(0, 1)).repeat_interleave(frames, dim=0)
            context = (text, [tokens])

        hidden = self.conv_in(sample.flatten(0, 2))
        if config.position_map:
            hidden = hidden + self.position_map
        skips: tuple[torch.Tensor, ...] = (hidden,)
        for block in self.down_blocks:
            extra = {"encoder_hidden_states": context} if hasattr(block, "attentions") else {}
            hidden, outputs = block(hidden_states=hidden, temb=embedding, num_frames=frames, **extra)
            skips += outputs
        hidden = self.mid_block(hidden, embedding, encoder_hidden_states=context, num_frames=frames)
        for block in self.up_blocks:
            taken, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
            extra = {"encoder_hidden_states": context} if hasattr(block, "attentions") else {}
            hidden = block(
                hidden_states=hidden,
                temb=embedding,
                res_hidden_states_tuple=taken,
                upsample_size=skips[-1].shape[-2:] if skips else None,
                num_frames=frames,
                **extra,
            )
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return hidden.unflatten(0, (samples, views, frames))


RENAMED = (
    (r"(attn\d)\.(to_[qkv]_sp|to_out_sp|mix_factor|time_pos_embed)", r"\1.processor.\2"),
    (r"attn\d\.time_pos_embed", "pos_embed"),
    (r"(to_[kv]_ip)\.", r"\1.0."),
)
"""Where diffusers' places for the same tensors differ from ours; the first name that exists is taken."""


def plain_name(name: str, own: Mapping[str, object]) -> str:
    """Return a tensor's name in the plain network, given its name in ours and the plain network's names."""
    names = (name, *(re.sub(pattern, plain, name) for pattern, plain in RENAMED))
    return next(candidate for candidate in names if candidate in own)


class PlainModel:
    """The whole model and its sampling around the plain network: two passes per guided step, frame 0 put back after."""

    def __init__(self, model: MVVDM) -> None:
        """Share the weights of a model in evaluation mode."""
        config = model.config
        weight = model.unet.conv_in.weight
        with weight.device:
            unet = PlainUNet(
                config, in_channels=model.unet.conv_in.in_channels, out_channels=model.unet.conv_out.out_channels
            )
        nn.Module.to(unet, weight.device, weight.dtype)  # diffusers' own `to` warns of changing the type
        self.model, self.unet = model, unet.load_ours(model.unet).eval()

    @torch.no_grad()
    def forward(
        self,
        latents_noisy: torch.Tensor,
        timesteps: torch.Tensor,
        *,
        camera: torch.Tensor,
        text: TextStates,
        frame_index: torch.Tensor,
        first_frame: torch.Tensor,
        image_embeds: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the network's output `[b, n, f, c', h, w]`; arguments as in `MVVDM.forward`."""
        sample = latents_noisy
        if self.model.config.concat_first_frame:
            repeated = first_frame[:, :, None].repeat(1, 1, sample.shape[2], 1, 1, 1)
            sample = torch.cat((sample, repeated), dim=3)
        return self.unet(
            sample,
            timesteps,
            text.states,
            camera=camera,
            frame_index=frame_index,
            pooled_text=text.pooled,
            image_embeds=image_embeds,
        )

    def predicted(self, output: torch.Tensor, first_frame: torch.Tensor) -> torch.Tensor:
        """Return what the scheduler takes: the output itself, or frame 0 moved by it."""
        if self.model.config.head != "warp":
            return output
        flow, gate = split_head(output, self.model.config.flow_cells)
        return self.model.moved_latents(first_frame, flow, gate)

    @torch.no_grad()
    def sample(self, subjects: Subjects, noise: torch.Tensor, *, steps: int, guidance: float) -> torch.Tensor:
        """Return guided latents `[b, n, f, c, h, w]`; `noise` is `[b, n, f - 1, c, h, w]`."""
        scheduler = make_scheduler(self.model.config)
        scheduler.set_timesteps(steps)
        first = subjects.first_frame
        image = subjects.image_embeds
        assert subjects.negative is not None
        halves = [(subjects.text, image), (subjects.negative, None if image is None else torch.zeros_like(image))]
        latents = torch.cat((first[:, :, None], noise.to(first)), dim=2)
        dtype = self.unet.conv_in.weight.dtype
        for timestep in scheduler.timesteps:
            said, unsaid = (
                self.forward(
                    latents.to(dtype),
                    torch.full((len(first),), int(timestep), device=first.device),
                    camera=subjects.camera,
                    text=text,
                    frame_index=subjects.frame_index,
                    first_frame=first.to(dtype),
                    image_embeds=image,
                )
                for text, image in halves
            )
            output = unsaid + guidance * (said - unsaid)
            prediction = self.predicted(output, first.to(dtype)).float()
            latents = scheduler.step(prediction, timestep, latents).prev_sample
            latents[:, :, 0] = first
        return latents
