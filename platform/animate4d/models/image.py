"""The image encoder behind image-prompt tokens: frame 0 of every view to one embedding per view."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import interpolate

from animate4d.core.errors import ModelError
from animate4d.models.config import MVVDMConfig

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Colour statistics CLIP was trained with; a grey of 127/255 becomes 0.180 on average."""


class CLIPImageEncoder(nn.Module):
    """CLIP's vision tower with projection, frozen (IP-Adapter uses OpenCLIP ViT-H/14, embeddings of 1024)."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import CLIPVisionModelWithProjection

        if not (folder / "config.json").is_file():
            raise ModelError(
                f"image encoder not found at {folder}: expected a CLIP vision model with projection "
                "(published as models/image_encoder of IP-Adapter)"
            )
        self.model = CLIPVisionModelWithProjection.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        ).requires_grad_(False)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Turn `[..., 3, H, W]` frames in [-1, 1] into embeddings `[..., e]`."""
        pixels = clip_pixels(frames.flatten(0, -4), int(str(self.model.config.image_size)))
        with torch.no_grad():
            embeds = self.model(pixels.to(self.model.dtype)).image_embeds
        return embeds.unflatten(0, frames.shape[:-3])


def clip_pixels(frames: torch.Tensor, size: int) -> torch.Tensor:
    """Resize `[N, 3, H, W]` frames in [-1, 1] and normalise them as CLIP expects."""
    mean, std = (torch.tensor(values, device=frames.device).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    resized = interpolate(frames.float(), size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    return ((resized / 2 + 0.5).clamp(0, 1) - mean) / std


def make_image_encoder(config: MVVDMConfig) -> nn.Module | None:
    """Build the image encoder of a network with image tokens, or None for one without.

    Raises:
        ModelError: the encoder's folder is missing.
    """
    if not config.image_tokens:
        return None
    if config.image_path is None:
        raise ModelError("model.image_path is not set: image tokens need the local folder of a CLIP vision model")
    return CLIPImageEncoder(Path(config.image_path))
