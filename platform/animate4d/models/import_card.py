"""The model card of joined weights: which file gave what, its hash, and whose licences go with it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from animate4d.models.card import model_card
from animate4d.models.config import MVVDMConfig
from animate4d.models.frozen_parts import FrozenPart
from animate4d.models.layouts.checkpoint import weight_file
from animate4d.models.layouts.report import MatchReport
from animate4d.models.tensor_file import ByteProgress

BLOCK = 1 << 24
"""Bytes hashed at a time."""

LICENCES = {
    "base": "MVDream weights: CreativeML OpenRAIL (use restrictions travel with them)",
    "motion": "AnimateDiff: Apache-2.0",
    "ip-adapter": "IP-Adapter: Apache-2.0",
    "animate3d": "Animate3D: Apache-2.0",
    "vae": "Stable Diffusion autoencoder: CreativeML OpenRAIL-M",
    "text-encoder": "CLIP text encoder: MIT (OpenCLIP: MIT)",
    "image-encoder": "OpenCLIP ViT-H/14: MIT",
}


def import_card(
    config: MVVDMConfig,
    reports: list[MatchReport],
    fresh: dict[str, int],
    parts: list[FrozenPart],
    hashes: dict[Path, str],
) -> str:
    """Return the Markdown of the card; `hashes` are those of `fingerprints`."""
    rows = {report.part: f"{report.layout}, {report.matched} tensors, {hashes[report.path]}" for report in reports}
    rows |= {part.option: hashes[part.origin] for part in parts}
    rows |= {f"start ({group})": f"{count} tensors that no file provides" for group, count in fresh.items()}
    card: dict[str, Any] = {
        "title": f"MV-VDM {config.preset}, joined weights",
        "licence": "other",
        "summary": "Multi-view video diffusion from published weights, joined by animate4d import-weights.",
        "origin": rows,
        "licences": {name: LICENCES[name] for name in rows if name in LICENCES},
    }
    return model_card(config, card)


def fingerprints(paths: list[Path]) -> dict[Path, str]:
    """Return the file name and the start of the SHA-256 of each weight file; a pipeline folder is told by its U-Net."""
    files = {path: weight_file(path / "unet" if (path / "unet").is_dir() else path) for path in paths}
    found: dict[Path, str] = {}
    done = 0
    with ByteProgress(sum(file.stat().st_size for file in set(files.values())), "hash") as bar:
        for file in dict.fromkeys(files.values()):
            digest = hashlib.sha256()
            with open(file, "rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
                    done += len(block)
                    bar(done, file.name)
            found[file] = f"{file.name}, sha256 {digest.hexdigest()[:16]}"
    return {path: found[file] for path, file in files.items()}
