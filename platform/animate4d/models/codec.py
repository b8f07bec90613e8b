"""Latent codecs: video frames in [-1, 1] (grey background = 0) to latents and back, behind one interface."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Protocol

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from torch.utils.checkpoint import checkpoint

from animate4d.core.errors import ConfigError, ModelError
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

    It works in the type it was given, and passes gradients to whoever asks for them (score distillation does); each
    chunk is then encoded a second time on the way back, so that only one chunk's activations are ever held.
    """

    chunk = 8
    """Images encoded or decoded at once. One of 256 px takes 0.16 GB to encode and 0.26 GB to decode in float32."""

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
        latents = self._posterior(frames).sample(generator)
        return (latents * self.vae.config.scaling_factor).unflatten(0, frames.shape[:-3])

    def moments(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation of what `encode` draws."""
        posterior = self._posterior(frames)
        mean, std = (value * self.vae.config.scaling_factor for value in (posterior.mean, posterior.std))
        return mean.unflatten(0, frames.shape[:-3]), std.unflatten(0, frames.shape[:-3])

    def _posterior(self, frames: torch.Tensor) -> DiagonalGaussianDistribution:
        parts = frames.flatten(0, -4).to(self.vae.dtype).split(self.chunk)
        if frames.requires_grad and torch.is_grad_enabled():
            moments = [checkpoint(self._moments_of, part, use_reentrant=False) for part in parts]
        else:
            moments = [self._moments_of(part) for part in parts]
        return DiagonalGaussianDistribution(torch.cat(moments))

    def _moments_of(self, images: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(images).latent_dist.parameters

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return frames in about [-1, 1]."""
        parts = (latents.flatten(0, -4).to(self.vae.dtype) / self.vae.config.scaling_factor).split(self.chunk)
        frames = torch.cat([self.vae.decode(part).sample for part in parts])
        return frames.unflatten(0, latents.shape[:-3])


def codec_id(codec: nn.Module) -> str:
    """Return kind, version and hash of a codec: what latents kept on disk depend on.

    The version is raised when the same weights would give other latents. Costs a second for SD's 84 M parameters.

    Raises:
        ConfigError: the codec is lossless and cheap, so that nothing is worth keeping.
    """
    if not isinstance(codec, KLCodec):
        raise ConfigError("latents: this model's codec is lossless and only moves pixels around: leave --latents out")
    # Only what the weights do not say: newer libraries add settings that change nothing.
    settings = [codec.vae.config[name] for name in ("scaling_factor", "norm_num_groups", "act_fn")]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name, value in sorted(codec.vae.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return f"kl/1-{digest.hexdigest()[:12]}"


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
