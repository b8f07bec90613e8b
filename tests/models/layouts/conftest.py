"""Small networks with the published structure, and writers of the foreign files people have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from animate4d.models.config import MVVDMConfig, paper
from animate4d.models.joining import empty_network, shapes_of
from animate4d.models.layouts import autoencoder, clip_text
from animate4d.models.layouts.known import layout_named
from animate4d.models.layouts.layout import to_foreign

TINY = {
    "preset": "tiny-paper",
    "image_size": 64,
    "frames": 4,
    "block_channels": (16, 32, 64, 64),
    "heads": 4,
    "norm_groups": 8,
    "text_dim": 64,
    "image_embed_dim": 20,
}


@pytest.fixture(scope="session")
def tiny() -> MVVDMConfig:
    """The published structure, all 1614 tensors of it, with few channels."""
    return replace(paper(), **TINY)


@pytest.fixture(scope="session")
def shapes(tiny: MVVDMConfig) -> dict[str, tuple[int, ...]]:
    return shapes_of(empty_network(tiny))


@pytest.fixture(scope="session")
def full_shapes() -> dict[str, tuple[int, ...]]:
    """The 1614 tensors of the papers' size."""
    return shapes_of(empty_network(paper()))


@pytest.fixture(scope="session")
def weights(tiny: MVVDMConfig, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A random value for every tensor; the two time encodings of a block are alike, as they are in life."""
    generator = torch.Generator().manual_seed(7)
    found = {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}
    for name in shapes:
        if name.endswith("attn2.time_pos_embed.pe"):
            found[name] = found[name.replace("attn2", "attn1")]
    return found


def foreign(layout: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a model's tensors as a file of another project holds them."""
    return {name: value.contiguous() for name, value in to_foreign(layout_named(layout), weights).items()}


def randomise(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory) -> Path:
    """A folder like stable-diffusion-v1-5's: vae, text_encoder, tokenizer, scheduler; and an image encoder."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = tmp_path_factory.mktemp("sd")
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=256,
    )
    randomise(vae, 1).save_pretrained(folder / "vae")
    tokens = {"<|startoftext|>": 0, "<|endoftext|>": 1} | {f"{c}</w>": i + 2 for i, c in enumerate("abcdefgh")}
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(tokens))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    text = CLIPTextConfig(
        vocab_size=12, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1,
        bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=64,
    )  # fmt: skip
    randomise(CLIPTextModel(text), 2).save_pretrained(folder / "text_encoder")
    image = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
        projection_dim=20,
    )  # fmt: skip
    randomise(CLIPVisionModelWithProjection(image), 3).save_pretrained(folder / "image_encoder")
    DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="session")
def files(tmp_path_factory, tiny, weights, stable_diffusion) -> SimpleNamespace:
    """One file per published layout, with the tiny network's weights, packed as their authors pack them."""
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("files")
    found = SimpleNamespace(folder=folder, config=folder / "tiny.json")
    found.config.write_text(json.dumps(tiny.to_json()))

    ldm = foreign("mvdream-ldm", weights)
    vae = load_file(stable_diffusion / "vae" / "diffusion_pytorch_model.safetensors")
    ldm |= dict(to_foreign(autoencoder.LDM, vae))
    text = load_file(stable_diffusion / "text_encoder" / "model.safetensors")
    ldm |= dict(to_foreign(clip_text.LDM, text))
    ldm["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    ldm |= {"betas": torch.zeros(1000), "posterior_mean_coef2": torch.zeros(1000)}
    found.ldm = folder / "sd-v1.5-4view.pt"
    torch.save(ldm, found.ldm)

    found.pipeline = folder / "mvdream-sd1.5-diffusers"
    (found.pipeline / "unet").mkdir(parents=True)
    torch.save(foreign("mvdream-diffusers", weights), found.pipeline / "unet" / "diffusion_pytorch_model.bin")
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        (found.pipeline / part).symlink_to(stable_diffusion / part)

    apart = foreign("mvdream-camera-apart", weights)
    camera = {name.removeprefix("camera_proj."): apart.pop(name) for name in list(apart) if "camera_proj" in name}
    found.apart = folder / "mvdream-sd21-diffusers"
    for part, tensors in (("unet", apart), ("camera_proj", camera)):
        (found.apart / part).mkdir(parents=True)
        save_file(tensors, found.apart / part / "diffusion_pytorch_model.safetensors")

    found.bare = folder / "mvdream-bare"
    (found.bare / "unet").mkdir(parents=True)
    save_file(foreign("mvdream-bare-ldm", weights), found.bare / "unet" / "diffusion_pytorch_model.safetensors")

    found.wrapped = folder / "wrapped.safetensors"
    save_file(foreign("mvdream-wrapped-ldm", weights), found.wrapped)

    found.motion = folder / "motion-adapter"
    found.motion.mkdir()
    save_file(foreign("animatediff", weights), found.motion / "diffusion_pytorch_model.safetensors")
    found.motion_original = folder / "mm_sd_v15_v2.ckpt"
    torch.save(foreign("animatediff-original", weights), found.motion_original)

    image = foreign("ip-adapter", weights)
    found.image = folder / "ip-adapter_sd15.safetensors"
    save_file(image, found.image)
    found.image_pickle = folder / "ip-adapter_sd15.bin"
    nested: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in image.items():
        part, _, inner = name.partition(".")
        nested[part][inner] = value
    torch.save(nested, found.image_pickle)

    trained = foreign("animate3d", weights)
    found.animate3d = folder / "animate3d_motion_modules.ckpt"
    torch.save(trained, found.animate3d)
    found.animate3d_run = folder / "checkpoint.ckpt"
    whole = {f"module.{name}": value for name, value in foreign("animate3d-full", weights).items()}
    torch.save(
        {"epoch": 3, "global_step": 9, "state_dict": whole, "optimizer": {"state": {}}, "lr_scheduler": {}},
        found.animate3d_run,
    )
    return found
