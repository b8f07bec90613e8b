"""The pretrained parts beside the network (autoencoder, text encoder, image encoder): found, checked, copied.

They are never trained, so a model folder either holds copies in its own sub-folders (and can be moved) or refers to
them by absolute paths.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from animate4d.core.errors import ModelError
from animate4d.io.atomic import write_json
from animate4d.models.config import MVVDMConfig
from animate4d.models.import_config import ImportWeightsConfig
from animate4d.models.layouts import autoencoder, clip_text
from animate4d.models.layouts.checkpoint import Checkpoint, read_checkpoint
from animate4d.models.layouts.layout import Layout, Renamed, match
from animate4d.models.tensor_file import total_bytes, write_tensors

TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenPart:
    """One pretrained part, ready to be copied.

    Attributes:
        option: the option it is given by.
        field: where the model's configuration keeps its path.
        folder: name of its folder in a model folder.
        file: name of its weight file.
        origin: where it comes from.
        config: content of its config.json.
        tensors: its weights, read when asked for.
        referable: whether `origin` itself can be referred to (a converted part cannot).
    """

    option: str
    field: str
    folder: str
    file: str
    origin: Path
    config: dict[str, Any]
    tensors: Mapping[str, torch.Tensor]
    referable: bool

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of its weights; position numbers are left out, newer libraries compute them."""
        return {
            name: tuple(value.shape)
            for name, value in self.tensors.items()
            if value.is_floating_point() and not name.endswith("position_ids")
        }

    def bytes(self, dtype: torch.dtype) -> int:
        """Return the room its weights take."""
        return total_bytes(self.shapes(), lambda name: dtype)

    def write(self, model_folder: Path, dtype: torch.dtype, progress: Callable[[int], None]) -> None:
        """Write config and weights into the model folder."""
        folder = model_folder / self.folder
        folder.mkdir()
        write_json(folder / "config.json", self.config)
        write_tensors(
            folder / self.file,
            self.tensors,
            self.shapes(),
            lambda name: dtype,
            progress,
            origin=lambda name: str(self.origin),
        )


def find_codec(config: ImportWeightsConfig, model: MVVDMConfig, base: Checkpoint | None) -> FrozenPart:
    """Return the autoencoder: --vae, else that of a pipeline folder, else that inside an LDM checkpoint.

    Raises:
        ModelError: there is none, or it does not fit the model.
    """
    named = {"option": "vae", "field": "codec_path", "folder": "vae", "file": "diffusion_pytorch_model.safetensors"}
    part = _from_folder(config.vae or _inside(config.base, "vae"), named)
    if part is None and base is not None and autoencoder.LDM.signs(list(base.tensors)):
        settings = autoencoder.autoencoder_config(base.tensors)
        part = _converted(autoencoder.LDM, base, settings, _autoencoder_shapes(settings), named)
    if part is None:
        raise ModelError(
            "no autoencoder: --base holds none; give --vae, the folder vae of stable-diffusion-v1-5 (AutoencoderKL)"
        )
    _require(part, "encoder.conv_in.weight", "an AutoencoderKL")
    channels = int(part.config.get("latent_channels", 4))
    factor = 2 ** (len(part.config.get("block_out_channels", ())) - 1)
    if (channels, factor) != (model.latent_channels, model.codec_factor):
        raise ModelError(
            f"{part.origin}: latents of {channels} channels at 1/{factor}, the model needs {model.latent_channels} at "
            f"1/{model.codec_factor}; give Stable Diffusion's autoencoder"
        )
    return part


def find_text_encoder(
    config: ImportWeightsConfig, model: MVVDMConfig, base: Checkpoint | None
) -> tuple[FrozenPart, Path]:
    """Return the text encoder and its tokenizer's folder: --text-encoder, else of a pipeline folder, else of --base.

    Raises:
        ModelError: there is none, it cannot be converted, or it does not fit the model.
    """
    named = {"option": "text-encoder", "field": "text_path", "folder": "text_encoder", "file": "model.safetensors"}
    home = config.text_encoder or (config.base if _inside(config.base, "text_encoder") else None)
    part = _from_folder(home / "text_encoder" if home else None, named)
    tokenizer = config.tokenizer or (home / "tokenizer" if home else None)
    if part is None and base is not None and clip_text.LDM.signs(list(base.tensors)):
        settings = clip_text.clip_text_config(base.tensors)
        part = _converted(clip_text.LDM, base, settings, _text_shapes(settings), named)
    if part is None:
        open_clip = base is not None and any(name.startswith(clip_text.OPEN_CLIP) for name in base.tensors)
        why = "SD-2.1's OpenCLIP text tower in --base is not converted" if open_clip else "--base holds none"
        raise ModelError(
            f"no text encoder: {why}; give --text-encoder, the Stable Diffusion folder with text_encoder and tokenizer"
        )
    if tokenizer is None:
        raise ModelError(f"{part.origin}: has no tokenizer; give --tokenizer, the folder tokenizer of stable-diffusion")
    _require(part, "embeddings.token_embedding.weight", "a CLIP text model", suffix=True)
    if part.config.get("hidden_size") != model.text_dim:
        raise ModelError(
            f"{part.origin}: text states are {part.config.get('hidden_size')} wide, the model needs {model.text_dim}; "
            "give the text encoder of the same Stable Diffusion as --base"
        )
    if not any((tokenizer / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise ModelError(f"{tokenizer}: no tokenizer here (vocab.json and merges.txt, or tokenizer.json)")
    return part, tokenizer


def find_image_encoder(config: ImportWeightsConfig, model: MVVDMConfig) -> FrozenPart | None:
    """Return the image encoder of a model with image tokens, or None for one without.

    Raises:
        ModelError: there is none, or it does not fit the model.
    """
    if not model.image_tokens:
        return None
    named = {"option": "image-encoder", "field": "image_path", "folder": "image_encoder", "file": "model.safetensors"}
    part = _from_folder(config.image_encoder, named)
    if part is None:
        raise ModelError("no image encoder: image tokens need --image-encoder, models/image_encoder of IP-Adapter")
    _require(part, "visual_projection.weight", "a CLIP vision model with projection")
    width = part.tensors["visual_projection.weight"].shape[0]
    if width != model.image_embed_dim:
        raise ModelError(
            f"{part.origin}: embeddings are {width} wide, IP-Adapter needs {model.image_embed_dim}; give its own "
            "image encoder (CLIP ViT-H/14)"
        )
    return part


def copy_tokenizer(source: Path, model_folder: Path) -> None:
    """Copy the files of a tokenizer that are known, and nothing else."""
    target = model_folder / "tokenizer"
    target.mkdir()
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _inside(base: Path | None, name: str) -> Path | None:
    return base / name if base is not None and (base / name).is_dir() else None


def _from_folder(folder: Path | None, named: dict[str, str]) -> FrozenPart | None:
    if folder is None:
        return None
    settings = folder / "config.json"
    if not settings.is_file():
        raise ModelError(f"{folder}: no config.json; --{named['option']} needs a folder as the library saved it")
    try:
        content = json.loads(settings.read_text())
    except ValueError as error:
        raise ModelError(f"{settings}: not valid JSON ({error}); download it again") from error
    tensors = read_checkpoint(folder).tensors
    return FrozenPart(**named, origin=folder, config=content, tensors=tensors, referable=True)


def _converted(
    layout: Layout,
    base: Checkpoint,
    settings: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    named: dict[str, str],
) -> FrozenPart:
    tensors, report = match(layout, shapes, base)
    if not report.fits:
        raise ModelError(report.summary())
    return FrozenPart(**named, origin=base.path, config=settings, tensors=tensors, referable=False)


def _autoencoder_shapes(settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        model = AutoencoderKL.from_config(settings)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def _text_shapes(settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    from transformers import CLIPTextConfig, CLIPTextModel

    known = {key: value for key, value in settings.items() if key not in ("architectures", "model_type")}
    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(**known))
    return {clip_text.published(name): tuple(value.shape) for name, value in model.state_dict().items()}


def _require(part: FrozenPart, name: str, kind: str, *, suffix: bool = False) -> None:
    names: Mapping[str, torch.Tensor] | Renamed = part.tensors
    if name not in names and not (suffix and any(other.endswith(name) for other in names)):
        raise ModelError(f"{part.origin}: not {kind} (no {name}); give another folder as --{part.option}")
