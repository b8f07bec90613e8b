"""Settings of the two weight jobs: published files into a model folder, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from animate4d.core.errors import ConfigError

PAPER_PRESETS = ("paper", "paper_sd21")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportWeightsConfig:
    """Join weight files people have into one model folder, and prove that it holds them.

    Everything is read from local paths; pickled files are read without running code.
    """

    out: Path
    """Model folder to write; it appears when it is complete and verified."""

    base: Path | None = None
    """MVDream: sd-v1.5-4view.pt, or a diffusers pipeline folder (its vae, text_encoder and tokenizer are then taken
    too). May be left out only where --animate3d holds a whole network."""

    motion: Path | None = None
    """AnimateDiff v2: mm_sd_v15_v2.ckpt, or the folder or file of the diffusers adapter."""

    ip_adapter: Path | None = None
    """ip-adapter_sd15 (.safetensors or .bin); without it the model has no image tokens."""

    animate3d: Path | None = None
    """animate3d_motion_modules.ckpt, or a checkpoint of Animate3D's trainer; replaces --motion."""

    vae: Path | None = None
    """Folder of Stable Diffusion's AutoencoderKL; unset: from --base."""

    text_encoder: Path | None = None
    """Folder that holds text_encoder and tokenizer (a Stable Diffusion folder); unset: from --base."""

    tokenizer: Path | None = None
    """Folder of CLIP's tokenizer, where the text encoder comes out of a .pt file, which has none."""

    image_encoder: Path | None = None
    """Folder of the CLIP ViT-H vision model (models/image_encoder of IP-Adapter); needed with --ip-adapter."""

    scheduler: Path | None = None
    """Accepted and ignored: Animate3D samples with AnimateDiff's linear betas, MVDream's folder says otherwise."""

    preset: str = "paper"
    """Size of the model: paper (SD-1.5) or paper_sd21 (SD-2.1 base)."""

    model_config: Path | None = None
    """JSON of another size, as config.json of a model folder, instead of --preset."""

    precision: Literal["full", "half"] = "full"
    """Store weights as float32 (exact) or float16 (half the size)."""

    parts: Literal["copy", "refer"] = "copy"
    """Copy the frozen autoencoder and encoders into the model folder, so that it can be moved, or refer to where they
    are now."""

    seed: int = 0
    """Seed of the tensors that no file provides."""

    forward: bool = True
    """Also run one short forward pass of the finished folder, where memory allows."""

    overwrite: bool = False
    """Replace a folder that is already at --out."""

    def __post_init__(self) -> None:
        if self.base is None and self.animate3d is None:
            raise ConfigError("--base is not set: give MVDream's weights (sd-v1.5-4view.pt or a diffusers folder)")
        if self.model_config is None and self.preset not in PAPER_PRESETS:
            raise ConfigError(f"--preset is {self.preset!r}: published weights fit {' or '.join(PAPER_PRESETS)}")


LayoutName = Literal[
    "animate3d",
    "animate3d-full",
    "animatediff",
    "animatediff-original",
    "mvdream-ldm",
    "mvdream-diffusers",
    "ip-adapter",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportWeightsConfig:
    """Write the weights of a model folder as a file other people's code reads."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model folder, or models:/mv-vdm@champion."""

    layout: LayoutName
    """Whose names and shapes to write."""

    out: Path
    """File to write: .safetensors, or .ckpt, .pt, .bin for a PyTorch file. Without an ending, a diffusers folder with
    config.json (layouts animatediff and mvdream-diffusers)."""

    tracking_uri: str | None = None
    """MLflow store to look `models:/` names up in."""

    overwrite: bool = False
    """Replace what is already at --out."""
