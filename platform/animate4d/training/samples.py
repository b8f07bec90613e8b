"""Sample grids of a training: the same few clips generated again and again, above their truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from animate4d.data.batch import TrainingBatch
from animate4d.data.config import DataConfig
from animate4d.data.loader import open_stream
from animate4d.data.order import Cursor
from animate4d.io.images import contact_sheet, save_png
from animate4d.models.mv_vdm import MVVDM

CLIPS = 3
SHOWN_FRAMES = 4
"""Frames shown per view, evenly spread; 4 views x 4 frames of 64 px make a sheet 1024 px wide."""


class SampleGrid:
    """Three clips with all their frames, read once."""

    def __init__(self, data: DataConfig) -> None:
        few = replace(
            data, batch_size=CLIPS, frames_per_step=None, loader="inprocess", cache_mb=0, prefetch=0, flow=False
        )
        self.batch: TrainingBatch = next(iter(open_stream(few).batches(Cursor())))[0]

    def draw(self, model: nn.Module, path: Path) -> None:
        """Generate the clips from the same noise every time and write a sheet: truth above, generated below."""
        assert isinstance(model, MVVDM)
        device = next(model.parameters()).device
        video = generate(model, self.batch.to(device))
        rows: list[tuple[str, Sequence[np.ndarray]]] = []
        for number, caption in enumerate(self.batch.captions):
            rows.append((f"{caption}: truth", pictures(self.batch.video[number])))
            rows.append((f"{caption}: {path.stem}", pictures(video[number])))
        save_png(path, contact_sheet(rows, columns_per_group=SHOWN_FRAMES))


@torch.no_grad()
def generate(model: MVVDM, batch: TrainingBatch) -> torch.Tensor:
    """Sample `[B, V, T, 3, H, W]` in [-1, 1] from frame 0, cameras and captions with the model's default steps."""
    clean = model.encode(batch.video)
    first = clean[:, :, 0]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(clean.shape, generator=generator).to(clean)
    text = model.embed_text(batch.captions)
    scheduler: Any = model.scheduler
    scheduler.set_timesteps(model.config.sample_steps)
    for step in scheduler.timesteps:
        latents[:, :, 0] = first
        output = model(
            latents,
            torch.full((len(clean),), int(step), device=clean.device),
            camera=batch.camera,
            text=text,
            frame_index=batch.frame_index,
            first_frame=first,
            image_embeds=model.embed_image(batch.video[:, :, 0]),
        )
        latents = scheduler.step(output.prediction, step, latents).prev_sample
    latents[:, :, 0] = first
    return model.decode(latents)


def pictures(video: torch.Tensor) -> list[np.ndarray]:
    """Return the shown frames of `[V, T, 3, H, W]`, view by view, as `[H, W, 3]` uint8."""
    shown = np.linspace(0, video.shape[1] - 1, min(SHOWN_FRAMES, video.shape[1])).round().astype(int)
    frames = video[:, shown].flatten(0, 1).permute(0, 2, 3, 1)
    return list(((frames.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy())
