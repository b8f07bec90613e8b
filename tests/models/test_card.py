from __future__ import annotations

from dataclasses import replace

import pytest

from animate4d.models.card import model_card
from animate4d.models.config import paper, paper_sd21, smoke


@pytest.mark.parametrize(
    ("config", "needs"),
    [
        (smoke(), []),
        (paper(), ["CLIP ViT-L/14 text", "Stable Diffusion autoencoder", "OpenCLIP ViT-H/14 image"]),
        (paper_sd21(), ["OpenCLIP ViT-H/14 text", "Stable Diffusion autoencoder", "OpenCLIP ViT-H/14 image"]),
        (replace(paper(), image_tokens=0, text_path="/parts/clip", codec_path="vae"), ["CLIP ViT-L/14 text"]),
    ],
)
def test_a_card_names_the_frozen_parts_outside_its_folder(config, needs: list[str]):
    named = [
        line.removeprefix("Needs, not included: ") for line in model_card(config, {}).splitlines() if "Needs" in line
    ]
    parts = named[0].split("; ") if named else []
    assert len(parts) == len(needs)
    assert all(part.startswith(need) for part, need in zip(parts, needs, strict=True))
