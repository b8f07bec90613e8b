"""Latent codecs: video frames in [-1, 1] (grey background = 0) to latents and back, behind one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from animate4d.core.errors import ModelError
from animate4d.models.config import MVVDMConfig


class Codec(Protocol):
    """Frames `[..., 3, H, W]` in [-1, 1] to latents `[..., c, h, w]` and back."""

    def encode(self, frames: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return latents; a codec that samples them draws from `generator`."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return frames."""


class PixelUnshuffleCodec(nn.Module):
    """Lossless space-to-depth: each cell holds its `factor` x `factor` pixels; grey background is exactly zero."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def encode(self, frames: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return latents `[..., 3 * factor^2, H / factor, W / factor]`."""
        return pixel_unshuffle(frames, self.factor)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the exact frames."""
        return pixel_shuffle(latents, self.factor)


class KLCodec(nn.Module):
    """Stable Diffusion's autoencoder, frozen. Latents are sampled from the posterior, as in MVDream and Animate3D.

    It works in the type it was given, and passes gradients to whoever asks for them (score distillation does).
    """

    chunk = 8
    """Images encoded or decoded at once: memory is bounded whatever the clip. One of 256 px needs about 0.3 GB."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        if not (folder / "config.json").is_file():
            raise ModelError(
                f"autoencoder not found at {folder}: expected a diffusers AutoencoderKL folder "
                "(published as folder vae of stable-diffusion-v1-5)"
            )
        self.vae = AutoencoderKL.from_pretrained(folder, local_files_only=True).requires_grad_(False)

    def encode(self, frames: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return scaled samples of the posterior; one draw for all images, so that the chunk decides nothing."""
        parts = frames.flatten(0, -4).to(self.vae.dtype).split(self.chunk)
        moments = torch.cat([self.vae.encode(part).latent_dist.parameters for part in parts])
        latents = DiagonalGaussianDistribution(moments).sample(generator)
        return (latents * self.vae.config.scaling_factor).unflatten(0, frames.shape[:-3])

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return frames in about [-1, 1]."""
        parts = (latents.flatten(0, -4).to(self.vae.dtype) / self.vae.config.scaling_factor).split(self.chunk)
        frames = torch.cat([self.vae.decode(part).sample for part in parts])
        return frames.unflatten(0, latents.shape[:-3])


def make_codec(config: MVVDMConfig) -> nn.Module:
    """Build the codec a configuration names.

    Raises:
        ModelError: the autoencoder's folder is missing.
    """
    if config.codec == "pixels":
        return PixelUnshuffleCodec(config.codec_factor)
    if config.codec_path is None:
        raise ModelError("model.codec_path is not set: codec kl needs the local folder of an AutoencoderKL")
    return KLCodec(Path(config.codec_path))
