"""The same weights through diffusers' own loaders and through ours give the same tensors."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.loaders.single_file_utils import (
    convert_animatediff_checkpoint_to_diffusers,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)

from animate4d.models.exporting import adapter_config, unet_config
from animate4d.models.layouts import autoencoder
from animate4d.models.layouts.known import layout_named
from animate4d.models.layouts.layout import to_foreign


def theirs(layout: str, weights) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in to_foreign(layout_named(layout), weights).items()}


@pytest.fixture(scope="module")
def plain_unet(tiny, weights) -> UNet2DConditionModel:
    settings = {key: value for key, value in unet_config(tiny).items() if key != "camera_embedding_dim"}
    unet = UNet2DConditionModel.from_config(settings | {"_class_name": "UNet2DConditionModel"})
    base = {name: value for name, value in theirs("mvdream-diffusers", weights).items() if "camera" not in name}
    unet.load_state_dict(base, strict=True)
    return unet


def test_diffusers_converter_agrees_on_the_ldm_unet(tiny, weights):
    converted = convert_ldm_unet_checkpoint(theirs("mvdream-ldm", weights), unet_config(tiny))
    assert len(converted) == 686
    assert all(torch.equal(value, weights[name]) for name, value in converted.items())


def test_diffusers_classes_agree_on_unet_and_motion_adapter(tiny, weights, plain_unet):
    adapter = MotionAdapter.from_config(adapter_config(tiny))
    adapter.load_state_dict(theirs("animatediff", weights), strict=True)
    motion = UNetMotionModel.from_unet2d(plain_unet, adapter)
    # In 0.42.1 the motion modules keep the U-Net's group count, so every tensor has its place.
    state = motion.state_dict()
    shared = {name: value for name, value in state.items() if not name.endswith("pos_embed.pe")}
    assert len(shared) == 686 + 546
    assert all(torch.equal(value, weights[name]) for name, value in shared.items())


def test_diffusers_converter_agrees_on_the_original_motion_checkpoint(weights):
    converted = convert_animatediff_checkpoint_to_diffusers(theirs("animatediff-original", weights))
    assert len(converted) == 546
    assert all(torch.equal(value, weights[name]) for name, value in converted.items())


@pytest.mark.parametrize("video", [False, True])
def test_diffusers_loader_agrees_on_the_order_of_the_image_adapter(tiny, weights, plain_unet, video):
    unet = UNetMotionModel.from_unet2d(plain_unet) if video else plain_unet
    nested: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in theirs("ip-adapter", weights).items():
        part, _, inner = name.partition(".")
        nested[part][inner] = value
    unet._load_ip_adapter_weights(nested, low_cpu_mem_usage=False)
    found = {name: value for name, value in unet.state_dict().items() if "_ip." in name or "encoder_hid_proj" in name}
    assert len(found) == 36
    full = theirs("animate3d-full", weights)  # diffusers' names are the ones Animate3D's checkpoints have
    assert all(torch.equal(value, full[name]) for name, value in found.items())


def test_diffusers_converter_agrees_on_the_autoencoder(stable_diffusion):
    vae = AutoencoderKL.from_pretrained(stable_diffusion / "vae")
    state = vae.state_dict()
    ldm = dict(to_foreign(autoencoder.LDM, state))
    assert ldm["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (32, 32, 1, 1)
    converted = convert_ldm_vae_checkpoint(ldm, vae.config)
    found = {name: converted[name].reshape(value.shape) for name, value in state.items()}
    assert len(converted) == len(state)
    assert all(torch.equal(value, state[name]) for name, value in found.items())
