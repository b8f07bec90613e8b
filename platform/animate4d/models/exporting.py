"""The export job: a model folder's weights as files other people's code reads, read back before they appear."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from animate4d.core.errors import ConfigError, ModelError
from animate4d.io.atomic import temporary_name, write_json
from animate4d.models.config import MVVDMConfig
from animate4d.models.import_config import ExportWeightsConfig
from animate4d.models.importing import PREFIX, read_model_config
from animate4d.models.joining import empty_network, shapes_of
from animate4d.models.layouts import autoencoder, clip_text
from animate4d.models.layouts.checkpoint import read_checkpoint
from animate4d.models.layouts.known import layout_named
from animate4d.models.layouts.layout import Layout, Renamed, match, to_foreign
from animate4d.models.layouts.mvdream import SCHEDULE
from animate4d.models.mv_vdm import CONFIG_FILE, WEIGHTS_FILE, paths_in
from animate4d.models.tensor_file import ByteProgress, total_bytes, write_tensors

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc from Python 3.12 on

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
FOLDER_WEIGHTS = "diffusion_pytorch_model.safetensors"


def export_weights(config: ExportWeightsConfig, folder: Path) -> int:
    """Write a model folder's weights in another layout and read them back; returns the exit code 0.

    Args:
        config: what to write and where.
        folder: the model folder that `config.model` names.

    Raises:
        ModelError: the model has no such part, or is of another kind than the layout.
        ConfigError: an option is wrong.
    """
    check_target(config)
    model = read_model_config(folder / CONFIG_FILE)
    layout = layout_named(config.layout)
    layout.require(model)
    ours = network_tensors(folder)
    tensors: Mapping[str, torch.Tensor] = to_foreign(layout, ours)
    if not tensors:
        raise ModelError(f"{folder}: the model has nothing for {layout.title} (image_tokens is {model.image_tokens})")
    extra: dict[str, torch.Tensor] = {}
    if layout.name == "mvdream-ldm":
        extra = other_ldm_parts(paths_in(model, folder), folder)
    temporary = temporary_name(config.out)
    try:
        write_export(temporary, config.out.suffix, {**tensors, **extra}, layout, model)
        check_export(temporary, layout, ours, model)
        if config.out.is_dir():
            shutil.rmtree(config.out)
        temporary.replace(config.out)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)
    print(f"{config.out}: {layout.title}, {len(tensors) + len(extra)} tensors, read back equal")
    return 0


def check_target(config: ExportWeightsConfig) -> None:
    """Refuse a target that exists or an ending nobody reads.

    Raises:
        ConfigError: the option --out is wrong.
    """
    if config.out.exists() and not config.overwrite:
        raise ConfigError(f"--out {config.out} exists; give another name or --overwrite")
    suffix, folders = config.out.suffix, ("animatediff", "mvdream-diffusers")
    if suffix not in (".safetensors", *PICKLES, *([""] if config.layout in folders else [])):
        raise ConfigError(f"--out {config.out}: the name must end in .safetensors, {', '.join(PICKLES)}")


def network_tensors(folder: Path) -> Renamed:
    """Return the network's tensors of a model folder under their own names, mapped from disk."""
    file = folder / WEIGHTS_FILE
    stored = read_checkpoint(file).tensors
    table = {name.removeprefix(PREFIX): name for name in stored if name.startswith(PREFIX)}
    return Renamed(stored, table, {name: tuple(stored[theirs].shape) for name, theirs in table.items()})


def write_export(
    path: Path, suffix: str, tensors: Mapping[str, torch.Tensor], layout: Layout, model: MVVDMConfig
) -> None:
    """Write the tensors as safetensors, as a PyTorch file, or as a diffusers folder (no suffix)."""
    if suffix in PICKLES:
        # Cloned, because torch.save writes the whole storage behind a mapped tensor.
        content: dict[str, Any] = {name: value.clone() for name, value in tensors.items()}
        if layout.name == "ip-adapter":
            content = {
                part: {name.partition(".")[2]: value for name, value in content.items() if name.startswith(f"{part}.")}
                for part in ("image_proj", "ip_adapter")
            }
        path.parent.mkdir(parents=True, exist_ok=True)
        total = sum(value.nbytes for value in tensors.values())
        with ByteProgress(total, "write") as bar, CountingWriter(path, bar) as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        return
    file = path
    path.parent.mkdir(parents=True, exist_ok=True)
    if not suffix:
        path.mkdir()
        write_json(path / "config.json", adapter_config(model) if layout.option == "motion" else unet_config(model))
        file = path / FOLDER_WEIGHTS
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    kinds = {name: value.dtype for name, value in tensors.items()}
    with ByteProgress(total_bytes(shapes, kinds.__getitem__), "write") as bar:
        write_tensors(file, tensors, shapes, kinds.__getitem__, bar, origin=lambda name: "the model")


class CountingWriter(io.BufferedWriter):
    """A file for `torch.save` that says how far it is."""

    def __init__(self, path: Path, progress: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "w"))
        self._progress, self._done = progress, 0

    def write(self, data: Buffer, /) -> int:
        """Write and count."""
        written = super().write(data)
        self._done += written
        self._progress(self._done)
        return written


def check_export(path: Path, layout: Layout, ours: Mapping[str, torch.Tensor], model: MVVDMConfig) -> None:
    """Read an export back the way an import would.

    Raises:
        ModelError: it does not fit or holds other numbers.
    """
    checkpoint = read_checkpoint(path)
    found, report = match(layout, shapes_of(empty_network(model)), checkpoint)
    if not report.fits:
        raise ModelError(report.summary())
    done = 0
    with ByteProgress(sum(ours[name].nbytes for name in found), "compare") as bar:
        for name in found:
            if not torch.equal(found[name], ours[name]):
                raise ModelError(f"{path}: {name} reads back differently; the disk or the memory may be faulty")
            done += ours[name].nbytes
            bar(done)


def other_ldm_parts(model: MVVDMConfig, folder: Path) -> dict[str, torch.Tensor]:
    """Return what else MVDream's own loader expects in its file: autoencoder, text model and schedule.

    MVDream loads strictly, so a file without them is refused by its code.
    """
    found = schedule_buffers(model)
    for layout, path in (
        (autoencoder.LDM, Path(model.codec_path or "")),
        (clip_text.LDM, Path(model.text_path or "") / "text_encoder"),
    ):
        if not (path / "config.json").is_file():
            raise ModelError(f"{folder}: its {layout.option} is not at {path}, and MVDream's file holds one")
        tensors = read_checkpoint(path).tensors
        found.update(to_foreign(layout, {name: tensors[name] for name in tensors if "position_ids" not in name}))
    positions = found[f"{clip_text.PREFIX}text_model.embeddings.position_embedding.weight"].shape[0]
    found[f"{clip_text.PREFIX}text_model.embeddings.position_ids"] = torch.arange(positions)[None]
    return found


def schedule_buffers(model: MVVDMConfig) -> dict[str, torch.Tensor]:
    """Return the twelve buffers of MVDream's noise schedule, whose betas are spaced evenly in their square root."""
    steps, begin, end = model.train_timesteps, model.beta_start**0.5, model.beta_end**0.5
    betas = np.linspace(begin, end, steps, dtype=np.float64) ** 2
    kept = np.cumprod(1 - betas)
    before = np.append(1.0, kept[:-1])
    variance = betas * (1 - before) / (1 - kept)
    values = (
        betas,
        kept,
        before,
        np.sqrt(kept),
        np.sqrt(1 - kept),
        np.log(1 - kept),
        np.sqrt(1 / kept),
        np.sqrt(1 / kept - 1),
        variance,
        np.log(np.maximum(variance, 1e-20)),
        betas * np.sqrt(before) / (1 - kept),
        (1 - before) * np.sqrt(1 - betas) / (1 - kept),
    )
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in zip(SCHEDULE, values, strict=True)}


def adapter_config(model: MVVDMConfig) -> dict[str, Any]:
    """Return the config.json of diffusers' `MotionAdapter`."""
    return {
        "_class_name": "MotionAdapter",
        "block_out_channels": list(model.block_channels),
        "motion_layers_per_block": model.layers_per_block,
        "motion_max_seq_length": model.max_frames,
        "motion_mid_block_layers_per_block": 1,
        "motion_norm_num_groups": model.norm_groups,
        "motion_num_attention_heads": model.motion_heads or model.heads,
        "use_motion_mid_block": True,
    }


def unet_config(model: MVVDMConfig) -> dict[str, Any]:
    """Return the config.json of MVDream's U-Net in diffusers' layout; `attention_head_dim` there counts heads."""
    kinds = ["CrossAttn" if attends else "" for attends in model.attention_levels]
    return {
        "_class_name": "MultiViewUNet2DConditionModel",
        "attention_head_dim": model.heads if isinstance(model.heads, int) else list(model.heads),
        "block_out_channels": list(model.block_channels),
        "camera_embedding_dim": 16,
        "cross_attention_dim": model.text_dim,
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "in_channels": model.latent_channels,
        "layers_per_block": model.layers_per_block,
        "norm_num_groups": model.norm_groups,
        "out_channels": model.latent_channels,
        "sample_size": model.latent_size,
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
        "use_linear_projection": model.linear_projection,
    }
