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


@pytest.fixture
def autoencoder(tmp_path: Path) -> KLCodec:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=8,
    ).save_pretrained(tmp_path)
    return KLCodec(tmp_path)


def test_kl_codec_keeps_leading_axes_and_scales(autoencoder: KLCodec):
    frames = torch.randn(1, 2, 3, 3, 8, 12)
    latents = autoencoder.encode(frames, torch.Generator().manual_seed(3))
    assert latents.shape == (1, 2, 3, 4, 4, 6)
    moments = autoencoder.vae.encode(frames.flatten(0, 2)).latent_dist
    noise = torch.randn(moments.mean.shape, generator=torch.Generator().manual_seed(3))
    expected = (moments.mean + moments.std * noise) * autoencoder.vae.config.scaling_factor
    torch.testing.assert_close(latents.flatten(0, 2), expected, atol=1e-6, rtol=1e-5)
    decoded = autoencoder.decode(latents)
    assert decoded.shape == frames.shape
    alone = autoencoder.vae.decode(latents[0, 1, 2][None] / autoencoder.vae.config.scaling_factor).sample[0]
    torch.testing.assert_close(decoded[0, 1, 2], alone, atol=1e-6, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in autoencoder.parameters())


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_chunk_of_images_decides_nothing_but_memory(autoencoder: KLCodec, chunk: int):
    frames, sizes = torch.randn(2, 5, 3, 8, 8), []
    whole = autoencoder.encode(frames, torch.Generator().manual_seed(3))
    pictures = autoencoder.decode(whole)
    autoencoder.chunk = chunk
    autoencoder.vae.encoder.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    autoencoder.vae.decoder.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    torch.testing.assert_close(
        autoencoder.encode(frames, torch.Generator().manual_seed(3)), whole, atol=1e-6, rtol=1e-5
    )
    torch.testing.assert_close(autoencoder.decode(whole), pictures, atol=1e-6, rtol=1e-5)
    assert max(sizes) == min(chunk, 10)
    assert sum(sizes) == 20


def test_kl_codec_works_in_its_own_type_and_passes_gradients(autoencoder: KLCodec):
    frames = torch.randn(2, 3, 8, 8, requires_grad=True)
    autoencoder.encode(frames).sum().backward()
    assert frames.grad is not None
    assert frames.grad.abs().max() > 0
    autoencoder.to(torch.bfloat16)
    latents = autoencoder.encode(frames.detach())
    assert latents.dtype == torch.bfloat16
    assert not latents.requires_grad
    assert autoencoder.decode(latents.float()).dtype == torch.bfloat16
