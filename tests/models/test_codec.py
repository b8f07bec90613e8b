from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from animate4d.core.errors import ModelError
from animate4d.models.codec import KLCodec, PixelUnshuffleCodec, make_codec
from animate4d.models.config import paper


def test_pixel_codec_is_lossless_and_grey_is_zero():
    codec = PixelUnshuffleCodec(4)
    video = torch.randn(2, 3, 2, 3, 8, 8)
    latents = codec.encode(video)
    assert latents.shape == (2, 3, 2, 48, 2, 2)
    assert torch.equal(codec.decode(latents), video)
    assert not codec.encode(torch.zeros(1, 3, 8, 8)).any()


def test_a_cell_holds_its_own_pixels():
    video = torch.zeros(3, 8, 8)
    video[:, 4:, :4] = 1.0
    latents = PixelUnshuffleCodec(4).encode(video[None])[0]
    assert latents[:, 1, 0].min() == 1
    assert latents.sum() == 48


def test_missing_autoencoder_is_named(tmp_path: Path):
    with pytest.raises(ModelError, match="codec_path is not set"):
        make_codec(paper())
    with pytest.raises(ModelError, match="autoencoder not found at"):
        make_codec(replace(paper(), codec_path=str(tmp_path)))


def test_kl_codec_keeps_leading_axes_and_scales(tmp_path: Path):
    from diffusers import AutoencoderKL

    tiny = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=8,
    )
    tiny.save_pretrained(tmp_path)
    codec = KLCodec(tmp_path)
    latents = codec.encode(torch.randn(1, 2, 3, 3, 8, 8))
    assert latents.shape == (1, 2, 3, 4, 4, 4)
    assert codec.decode(latents).shape == (1, 2, 3, 3, 8, 8)
    assert not any(parameter.requires_grad for parameter in codec.parameters())
