"""Sample grids of a training: the same few clips generated again and again, above their truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from animate4d.data.batch import TrainingBatch
from animate4d.data.config import DataConfig
from animate4d.data.loader import open_stream
from animate4d.data.order import Cursor
from animate4d.io.images import contact_sheet, save_png
from animate4d.models.mv_vdm import MVVDM
from animate4d.models.sampler import Sampler

CLIPS = 3
SHOWN_FRAMES = 4
"""Frames shown per view, evenly spread; 4 views x 4 frames of 64 px make a sheet 1024 px wide."""


class SampleGrid:
    """Three clips with all their frames, read once."""

    def __init__(self, data: DataConfig) -> None:
        few = replace(
            data,
            batch_size=CLIPS,
            frames_per_step=None,
            loader="inprocess",
            cache_mb=0,
            prefetch=0,
            flow=False,
            latents=None,
            codec="",
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
    """Sample `[B, V, T, 3, H, W]` in [-1, 1] from frame 0, cameras and captions, as the model was made for."""
    sampler = Sampler(model)
    subjects = sampler.prepare(
        batch.video[:, :, 0],
        batch.camera,
        batch.captions,
        seeds=range(len(batch.captions)),
        frame_index=batch.frame_index,
    )
    return model.decode(sampler.sample(subjects).latents)


def pictures(video: torch.Tensor) -> list[np.ndarray]:
    """Return the shown frames of `[V, T, 3, H, W]`, view by view, as `[H, W, 3]` uint8."""
    shown = np.linspace(0, video.shape[1] - 1, min(SHOWN_FRAMES, video.shape[1])).round().astype(int)
    frames = video[:, shown].flatten(0, 1).permute(0, 2, 3, 1)
    return list(((frames.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy())
