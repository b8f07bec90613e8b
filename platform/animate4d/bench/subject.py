"""What is measured: a network of a preset's sizes with random weights, and inputs of the right shapes.

Nothing is read or downloaded. Pretrained parts that stay frozen and run once per clip (text and image encoder) are
replaced by tables; the autoencoder of codec "kl" has its real sizes and is there only to be measured. Training takes
latents that were encoded before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from animate4d.core.cameras import Rig
from animate4d.data.batch import TrainingBatch
from animate4d.models.codec import KLCodec, make_codec
from animate4d.models.config import MVVDMConfig
from animate4d.models.mv_vdm import MVVDM, make_scheduler
from animate4d.models.sampler import Subjects
from animate4d.models.text import TextStates, make_text_encoder
from animate4d.models.unet import MultiViewUNetMotionModel

TRACKED_POINTS = 8
"""Points per view in a training batch (paper 001)."""

FLOW_SCALE = 0.1
"""Motions of a few pixels, as a trained network predicts them."""

CAPTION = "a red bird flapping its wings"


class TableText(nn.Module):
    """Stands in for CLIP's text model: one random state for the empty caption, one for all others."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(2, tokens, dim))

    def forward(self, captions: Sequence[str]) -> TextStates:
        """Look the captions up."""
        states = self.get_buffer("table")[[int(bool(caption)) for caption in captions]]
        return TextStates(states, states.mean(1))


class TableImage(nn.Module):
    """Stands in for the image encoder: the same random embedding for every picture."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("embedding", torch.randn(dim))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Return `[..., e]` for pictures `[..., 3, H, W]`."""
        return self.get_buffer("embedding").expand(*frames.shape[:-3], -1)


class RandomKLCodec(KLCodec):
    """Stable Diffusion's autoencoder with random weights."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        from diffusers import AutoencoderKL

        vae: Any = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        self.vae = vae.requires_grad_(False)


class RandomMVVDM(MVVDM):
    """An MV-VDM with random weights that says something: no output starts at zero, as a fresh model's do."""

    def __init__(self, config: MVVDMConfig, *, autoencoder: bool = False) -> None:
        nn.Module.__init__(self)
        self.config = config
        codec: Any = make_codec(config) if config.codec == "pixels" else None
        self.codec = RandomKLCodec() if autoencoder else codec
        words = config.text == "words"
        self.text = make_text_encoder(config) if words else TableText(config.text_slots, config.text_dim)
        self.image = TableImage(config.image_embed_dim) if config.image_tokens else None
        self.unet = MultiViewUNetMotionModel(
            config, in_channels=config.input_channels, out_channels=config.output_channels
        )
        if config.train_adapters_only:
            self.unet.freeze_base()

    def loosen(self, seed: int) -> RandomMVVDM:
        """Give weights that start at zero some noise; flows stay small, or rounding would decide where they point."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.unet.parameters():
                if not weight.any():
                    fan_in = weight[0].numel() if weight.dim() > 1 else 100
                    weight.copy_(torch.randn(weight.shape, generator=generator) / fan_in**0.5)
            if self.config.head == "warp":
                self.unet.conv_out.weight.mul_(FLOW_SCALE)
        return self


def resized(config: MVVDMConfig, *, views: int | None, frames: int | None, image_size: int | None) -> MVVDMConfig:
    """Return the configuration with other sizes; the warp head's maps keep their share of the picture."""
    size = image_size or config.image_size
    return replace(
        config,
        views=views or config.views,
        frames=frames or config.frames,
        image_size=size,
        flow_size=max(1, config.flow_size * size // config.image_size),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A model in evaluation mode on its device, and the seed of its inputs."""

    model: RandomMVVDM
    device: torch.device
    dtype: torch.dtype
    seed: int

    def draw(self, *shape: int, salt: int = 0) -> torch.Tensor:
        """Return normal numbers, the same for the same shape and salt on every device."""
        if self.device.type == "meta":
            return torch.empty(shape, device="meta", dtype=self.dtype)
        generator = torch.Generator().manual_seed(self.seed * 1009 + salt)
        return torch.randn(shape, generator=generator).to(self.device, self.dtype)

    def cameras(self, samples: int) -> torch.Tensor:
        """Return `[b, n, 4, 4]` cameras around the object."""
        matrices = torch.tensor(Rig.even(self.model.config.views).camera_to_world(), dtype=torch.float32)
        return matrices.to(self.device).expand(samples, -1, -1, -1)

    def forward_inputs(self, samples: int) -> dict[str, Any]:
        """Return the arguments of `MVVDM.forward` for so many samples."""
        config = self.model.config
        cell = (config.latent_channels, config.latent_size, config.latent_size)
        latents = self.draw(samples, config.views, config.frames, *cell)
        image = self.draw(samples, config.views, config.image_embed_dim, salt=1) if config.image_tokens else None
        text = self.draw(samples, config.text_slots, config.text_dim, salt=2)
        return {
            "latents_noisy": latents,
            "timesteps": torch.full((samples,), 500, device=self.device),
            "camera": self.cameras(samples),
            "text": TextStates(text, text.mean(1)),
            "frame_index": torch.arange(config.frames, device=self.device).expand(samples, -1),
            "first_frame": latents[:, :, 0],
            "image_embeds": image,
        }

    def sampling_inputs(self) -> Subjects:
        """Return what one clip is sampled from, as `Sampler.prepare` would."""
        given = self.forward_inputs(1)
        empty = self.draw(*given["text"].states.shape, salt=3)
        return Subjects(
            first_frame=given["first_frame"].float(),
            camera=given["camera"],
            frame_index=given["frame_index"],
            text=given["text"],
            negative=TextStates(empty, empty.mean(1)),
            image_embeds=given["image_embeds"],
            seeds=[self.seed],
        )

    def training_batch(self, clips: int, frames: int) -> TrainingBatch:
        """Return a batch of noise pictures with a round object and straight tracks, on the CPU or on meta."""
        config = self.model.config
        generator = torch.Generator().manual_seed(self.seed)
        views, size, cells = config.views, config.image_size, config.flow_size
        lead = (clips, views, frames)

        def inside(side: int) -> torch.Tensor:
            centre = (torch.arange(side) + 0.5) * (2 / side) - 1
            disc = (centre[:, None] ** 2 + centre[None] ** 2 < 0.5).float()
            return disc.expand(*lead, 1, side, side).contiguous()

        start = size * (0.3 + 0.4 * torch.rand(clips, views, 1, TRACKED_POINTS, 2, generator=generator))
        drift = torch.arange(frames).view(1, 1, -1, 1, 1) * (0.01 * size)
        warp = config.head == "warp"
        batch = TrainingBatch(
            video=torch.rand(*lead, 3, size, size, generator=generator) * 2 - 1,
            mask=inside(size),
            camera=self.cameras(clips).cpu() if self.device.type != "meta" else self.cameras(clips),
            frame_index=torch.arange(frames).expand(clips, -1).contiguous(),
            captions=[CAPTION] * clips,
            tracks=start + drift,
            visible=torch.ones(*lead, TRACKED_POINTS),
            flow=0.1 * torch.randn(*lead, 2, cells, cells, generator=generator) if warp else None,
            flow_mask=inside(cells) if warp else None,
            sample_ids=[f"bench/{number}" for number in range(clips)],
            latents=None
            if config.codec == "pixels"
            else torch.randn(*lead, config.latent_channels, *[config.latent_size] * 2, generator=generator),
        )
        return batch.to("meta") if self.device.type == "meta" else batch


def make_subject(
    config: MVVDMConfig, device: torch.device, dtype: torch.dtype, seed: int, *, autoencoder: bool = False
) -> Subject:
    """Build a model for inference, with weights in `dtype`."""
    model = random_model(config, device, seed, autoencoder=autoencoder).to(dtype).eval()
    return Subject(model=model, device=device, dtype=dtype, seed=seed)


def random_model(config: MVVDMConfig, device: torch.device, seed: int, *, autoencoder: bool = False) -> RandomMVVDM:
    """Build a model in fp32 on its device, the same for the same seed and device; on meta it has no content."""
    torch.manual_seed(seed)
    with device:
        model = RandomMVVDM(config, autoencoder=autoencoder).to(device)
    model.scheduler = make_scheduler(config)  # its tensors stay on the CPU
    return model if device.type == "meta" else model.loosen(seed)
