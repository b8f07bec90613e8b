"""What one training step looks at, as torch tensors. Axes: B V T C H W; P points; h w the flow's resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One item of a batch in numpy: the tensors of `TrainingBatch` without the batch axis."""

    video: np.ndarray
    mask: np.ndarray
    camera: np.ndarray
    frame_index: np.ndarray
    caption: str
    tracks: np.ndarray
    visible: np.ndarray
    flow: np.ndarray | None
    flow_mask: np.ndarray | None
    sample_id: str
    latents: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingBatch:
    """B items.

    Attributes:
        video: `[B, V, T, 3, H, W]` float32 in [-1, 1], composited on grey, so the background is exactly 0.
        mask: `[B, V, T, 1, H, W]` float32 coverage in [0, 1].
        camera: `[B, V, 4, 4]` float32 camera-to-world, OpenGL axes.
        frame_index: `[B, T]` int64 true position of each frame in the clip; the first is 0, then ascending.
        captions: one sentence per item.
        tracks: `[B, V, T, P, 2]` float32 pixels of H x W, centres at half-integers.
        visible: `[B, V, T, P]` float32 in [0, 1]; 0 marks hidden points, points out of frame and padding.
        flow: `[B, V, T, 2, h, w]` float32 (x, y) from a pixel to where its surface point is in frame 0 of the same
            view, in half images; None if no item has it.
        flow_mask: `[B, V, T, 1, h, w]` float32: 1 object that frame 0 sees too, 128/255 object that frame 0 does not
            see, 0 no object or no flow; None together with `flow`.
        sample_ids: shard key, "/", view group.
        latents: `[B, V, T, c, h, w]` float32, the encoded video where that was done before; else None.
    """

    video: torch.Tensor
    mask: torch.Tensor
    camera: torch.Tensor
    frame_index: torch.Tensor
    captions: list[str]
    tracks: torch.Tensor
    visible: torch.Tensor
    flow: torch.Tensor | None
    flow_mask: torch.Tensor | None
    sample_ids: list[str]
    latents: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> TrainingBatch:
        """Return the batch with its tensors on `device`."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, torch.Tensor):
                moved[field.name] = value.to(device, non_blocking=True)
        return replace(self, **moved)


def collate(examples: Sequence[Example]) -> TrainingBatch:
    """Stack items of equal shape; an item without flow gets zeros under an empty mask when another one has flow."""

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(example, name) for example in examples]))

    shaped = next((example for example in examples if example.flow is not None), None)
    if shaped is not None:
        assert shaped.flow is not None
        assert shaped.flow_mask is not None
        flow, flow_mask = np.zeros_like(shaped.flow), np.zeros_like(shaped.flow_mask)
        examples = [
            example if example.flow is not None else replace(example, flow=flow, flow_mask=flow_mask)
            for example in examples
        ]
    return TrainingBatch(
        video=stacked("video"),
        mask=stacked("mask"),
        camera=stacked("camera"),
        frame_index=stacked("frame_index"),
        captions=[example.caption for example in examples],
        tracks=stacked("tracks"),
        visible=stacked("visible"),
        flow=None if shaped is None else stacked("flow"),
        flow_mask=None if shaped is None else stacked("flow_mask"),
        sample_ids=[example.sample_id for example in examples],
        latents=None if examples[0].latents is None else stacked("latents"),
    )
