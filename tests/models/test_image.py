from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from animate4d.core.errors import ModelError
from animate4d.models.image import clip_pixels, make_image_encoder
from animate4d.models.mv_vdm import MVVDM


def test_grey_becomes_clips_known_mean():
    pixels = clip_pixels(torch.full((1, 3, 8, 8), 127 / 127.5 - 1), 16)
    assert pixels.shape == (1, 3, 16, 16)
    assert pixels.mean().item() == pytest.approx(0.180, abs=2e-3)


def test_missing_image_encoder_is_named(tiny, tmp_path: Path):
    assert make_image_encoder(tiny) is None
    with pytest.raises(ModelError, match="image_path is not set"):
        make_image_encoder(replace(tiny, image_tokens=2))
    with pytest.raises(ModelError, match="image encoder not found"):
        make_image_encoder(replace(tiny, image_tokens=2, image_path=str(tmp_path)))


def test_image_prompt_reaches_the_model(tiny, shake, tmp_path: Path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
        projection_dim=12,
    )  # fmt: skip
    CLIPVisionModelWithProjection(vision).save_pretrained(tmp_path / "vision")
    config = replace(tiny, image_tokens=2, image_embed_dim=12, image_path=str(tmp_path / "vision"))
    model = MVVDM(config).eval()
    shake(model.unet)
    frames = torch.rand(1, 2, 3, 16, 16) * 2 - 1
    embeds = model.embed_image(frames)
    assert embeds.shape == (1, 2, 12)
    flows = [
        model(
            torch.zeros(1, 2, 3, 48, 4, 4),
            torch.tensor([999]),
            camera=torch.eye(4).expand(1, 2, 4, 4),
            text=["walk"],
            frame_index=torch.arange(3)[None],
            first_frame=torch.zeros(1, 2, 48, 4, 4),
            image_embeds=image,
        ).flow
        for image in (embeds, torch.zeros_like(embeds))
    ]
    assert (flows[0] - flows[1]).abs().max() > 1e-4
    model.save_pretrained(tmp_path / "m", {})
    loaded = MVVDM.from_pretrained(tmp_path / "m")
    torch.testing.assert_close(loaded.embed_image(frames), embeds)
