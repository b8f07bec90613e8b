"""The model card: a README.md written from what is known about a model when it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from animate4d.models.config import MVVDMConfig

ORIGINS = {
    "clip 768": "CLIP ViT-L/14 text encoder (MIT)",
    "clip 1024": "OpenCLIP ViT-H/14 text encoder (MIT)",
    "kl": "Stable Diffusion autoencoder (CreativeML OpenRAIL-M)",
    "image": "OpenCLIP ViT-H/14 image encoder (MIT)",
}
"""Frozen parts; text encoders by their width."""


def model_card(config: MVVDMConfig, card: dict[str, Any]) -> str:
    """Return the Markdown of a model card.

    Args:
        config: the model's configuration.
        card: optional entries `title`, `summary`, `licence` (SPDX id, default apache-2.0), and any further name ->
            value,
            where a value is a text, a number, or a mapping shown as a table (for example `training`, `data`, `scores`).
    """
    rest = {name: value for name, value in card.items() if name not in ("title", "summary", "licence")}
    lines = [
        "---",
        f"license: {card.get('licence', 'apache-2.0')}",
        "library_name: animate4d",
        "tags: [multi-view, video-diffusion, image-to-video, 4d]",
        "---",
        "",
        f"# {card.get('title', f'MV-VDM {config.preset}')}",
        "",
        card.get(
            "summary",
            f"Multi-view video diffusion: {config.views} views of {config.frames} frames at {config.image_size} px "
            f"from frame 0 of every view and a caption. Head: {config.head}.",
        ),
        "",
    ]
    held = (
        (f"{config.text} {config.text_dim}", config.text_path),
        (config.codec, config.codec_path),
        ("image" if config.image_tokens else "", config.image_path),
    )
    parts = [ORIGINS[part] for part, path in held if part in ORIGINS and (path is None or Path(path).is_absolute())]
    if parts:
        lines += [f"Needs, not included: {'; '.join(parts)}.", ""]
    for name, value in rest.items():
        lines += [f"## {name.replace('_', ' ').capitalize()}", ""]
        if isinstance(value, dict):
            lines += ["| | |", "|---|---|", *(f"| {key} | {entry} |" for key, entry in value.items()), ""]
        else:
            lines += [str(value), ""]
    return "\n".join(lines)
