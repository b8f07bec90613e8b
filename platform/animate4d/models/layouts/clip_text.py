"""CLIP's text model in LDM layout (`cond_stage_model.transformer.`): Hugging Face's own names behind a prefix.

SD-2.1's OpenCLIP text tower (`cond_stage_model.model.`) has another inner layout and is not converted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from animate4d.models.layouts.layout import Layout

PREFIX = "cond_stage_model.transformer."
OPEN_CLIP = "cond_stage_model.model."
HEAD_WIDTH = 64
"""Channels per attention head in all of CLIP's text models."""


def table(names: Collection[str]) -> dict[str, str]:
    """Return `{published name: LDM's name}`."""
    return {name: PREFIX + published(name) for name in names}


def published(name: str) -> str:
    """Return the name as published files have it; newer `transformers` write it without `text_model.`."""
    return name if name.startswith("text_model.") else f"text_model.{name}"


LDM = Layout(
    name="clip-text-ldm",
    title="CLIP text model, LDM layout",
    option="text-encoder",
    table=table,
    signature=(r"^cond_stage_model\.transformer\.",),
    ignored=((r"position_ids$", "position numbers"), (r"^(?!cond_stage_model\.)", "of other parts")),
)


def clip_text_config(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the config of a CLIP text model from the shapes in its LDM checkpoint."""
    stem = f"{PREFIX}text_model."
    vocabulary, width = tensors[f"{stem}embeddings.token_embedding.weight"].shape
    layers = {found[1] for name in tensors if (found := re.match(rf"{re.escape(stem)}encoder\.layers\.(\d+)\.", name))}
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_act": "quick_gelu",
        "hidden_size": width,
        "intermediate_size": tensors[f"{stem}encoder.layers.0.mlp.fc1.weight"].shape[0],
        "max_position_embeddings": tensors[f"{stem}embeddings.position_embedding.weight"].shape[0],
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "num_hidden_layers": len(layers),
        "projection_dim": width,
        "vocab_size": vocabulary,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-05,
    }
