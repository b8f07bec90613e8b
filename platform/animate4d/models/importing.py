"""The import job: published weight files into one model folder, which is verified before it appears.

Every tensor is read, converted and written by itself: joining 1.5 B parameters needs the memory of one tensor.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from animate4d.core.errors import ConfigError, ModelError
from animate4d.io.atomic import atomic_folder, write_json, write_text
from animate4d.models.config import MVVDMConfig, model_preset
from animate4d.models.frozen_parts import (
    FrozenPart,
    copy_tokenizer,
    find_codec,
    find_image_encoder,
    find_text_encoder,
)
from animate4d.models.import_card import fingerprints, import_card
from animate4d.models.import_config import ImportWeightsConfig
from animate4d.models.joining import FRESH, Network, join, open_base, parameters
from animate4d.models.layouts.checkpoint import read_checkpoint
from animate4d.models.layouts.layout import Renamed
from animate4d.models.layouts.report import MatchReport
from animate4d.models.mv_vdm import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from animate4d.models.tensor_file import ByteProgress, total_bytes, write_tensors
from animate4d.models.verifying import forward_once, verify_stored

PREFIX = "unet."
"""What the network's tensors are called in a model folder."""


def import_weights(config: ImportWeightsConfig) -> int:
    """Write and verify the model folder; prints what came from where. Returns the exit code 0.

    Raises:
        ModelError: a file is damaged, foreign, or does not fit; nothing is left at --out.
        ConfigError: an option is wrong.
    """
    if config.out.exists() and not config.overwrite:
        raise ConfigError(f"--out {config.out} exists; give another folder or --overwrite")
    model = chosen_model(config)
    base = open_base(config.base)
    network, reports = join(config, model, base)
    for report in reports:
        print(report.table())
    codec = find_codec(config, model, base)
    text, tokenizer = find_text_encoder(config, model, base)
    parts = [part for part in (codec, text, find_image_encoder(config, model)) if part is not None]
    for option, kept, count in network.covered(reports):
        print(f"covered: {kept} of {count} tensors of {option} stay, a later file holds the others")
    for group, count in network.fresh().items():
        print(f"start: {count} tensors: {FRESH[group]}")
    for note in ignored_schedulers(config):
        print(note)

    half = config.precision == "half"
    copied = [part for part in parts if config.parts == "copy" or not part.referable]
    with atomic_folder(config.out) as folder:
        write_folder(folder, config, model, network, reports, parts, copied, tokenizer)
        stored = {name: stored_type(name, half) for name in network}
        with ByteProgress(total_bytes(network.shapes, stored.__getitem__), "compare") as bar:
            verify_stored(folder / WEIGHTS_FILE, PREFIX, network, stored.__getitem__, bar)
        print(f"verified: {len(network)} tensors, {parameters(network.shapes) / 1e6:.2f} M parameters, as in the files")
        memory = 4 * parameters(network.shapes) + sum(part.bytes(torch.float32) for part in parts)
        print(forward_once(folder, memory) if config.forward else "no forward pass: --no-forward")
    print(f"model: {config.out}")
    return 0


def chosen_model(config: ImportWeightsConfig) -> MVVDMConfig:
    """Return the model's configuration without paths; where no file has image attention, it is switched off.

    Raises:
        ModelError: the JSON of another size is missing or wrong.
    """
    model = model_preset(config.preset) if config.model_config is None else read_model_config(config.model_config)
    if config.ip_adapter is not None:
        return model
    whole = config.animate3d is not None and any(
        ".to_k_ip." in name for name in read_checkpoint(config.animate3d).tensors
    )
    return model if whole else replace(model, image_tokens=0)


def read_model_config(path: Path) -> MVVDMConfig:
    """Read a config.json.

    Raises:
        ModelError: it is missing, no JSON, or not a model's.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give the JSON of a model") from error
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON ({error})") from error
    return MVVDMConfig.from_json(content)


def ignored_schedulers(config: ImportWeightsConfig) -> list[str]:
    """Return a line for each scheduler that is there and not used."""
    inside = config.base / "scheduler" if config.base is not None else None
    found = [path for path in (config.scheduler, inside) if path is not None and path.exists()]
    reason = "Animate3D samples with AnimateDiff's linear betas, MVDream's scheduler says scaled_linear"
    return [f"ignored: {path}: {reason}" for path in found]


def stored_type(name: str, half: bool) -> torch.dtype:
    """Return the type a tensor is stored as; time encodings stay exact, they cost next to nothing."""
    return torch.float16 if half and not name.endswith(".pe") else torch.float32


def write_folder(
    folder: Path,
    config: ImportWeightsConfig,
    model: MVVDMConfig,
    network: Network,
    reports: list[MatchReport],
    parts: list[FrozenPart],
    copied: list[FrozenPart],
    tokenizer: Path,
) -> None:
    """Write weights, frozen parts, configuration and card.

    Raises:
        ModelError: the disk has no room, or a tensor is not finite.
    """
    half = config.precision == "half"
    part_type = torch.float16 if half else torch.float32
    sizes = [part.bytes(part_type) for part in copied]
    weights = total_bytes(network.shapes, lambda name: stored_type(name, half))
    free = shutil.disk_usage(folder).free
    if free < weights + sum(sizes):
        raise ModelError(f"{folder.parent}: {free / 1e9:.1f} GB free, {(weights + sum(sizes)) / 1e9:.1f} GB needed")

    with ByteProgress(weights + sum(sizes), "write") as bar:
        done = 0

        def report(note: str) -> Callable[[int], None]:
            return lambda written: bar(done + written, note)

        prefixed = {PREFIX + name: shape for name, shape in network.shapes.items()}
        tensors = Renamed(network, {PREFIX + name: name for name in network}, prefixed)
        write_tensors(
            folder / WEIGHTS_FILE,
            tensors,
            prefixed,
            lambda name: stored_type(name, half),
            report("network"),
            origin=lambda name: network.origin(name.removeprefix(PREFIX)),
        )
        done += weights
        for part, size in zip(copied, sizes, strict=True):
            part.write(folder, part_type, report(part.folder))
            done += size

    paths: dict[str, Any] = {part.field: str(part.origin.absolute()) for part in parts}
    paths |= {part.field: part.folder for part in copied}
    text = next(part for part in parts if part.field == "text_path")
    if text in copied:
        copy_tokenizer(tokenizer, folder)
        paths["text_path"] = "."
    else:
        paths["text_path"] = str(text.origin.absolute().parent)
        if tokenizer.absolute() != text.origin.absolute().parent / "tokenizer":
            raise ConfigError("--parts refer needs text_encoder and tokenizer in one folder; leave --tokenizer out")
    final = replace(model, **paths)
    write_json(folder / CONFIG_FILE, final.to_json())
    hashes = fingerprints([report.path for report in reports] + [part.origin for part in parts])
    write_text(folder / CARD_FILE, import_card(final, reports, network.fresh(), parts, hashes))
