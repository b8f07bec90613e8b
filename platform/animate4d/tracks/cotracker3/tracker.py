"""CoTracker3 behind the tracker protocol: all views of a clip as one batch, in our pixels.

Frames are stretched to the size the weights know. A grid of support points over frame 0 is tracked along and dropped:
a few points alone track badly, and results depend on the company. Padding is hidden from the real points, so a view's
tracks do not depend on how many points the other views have.

Labels made with the released weights, and models trained on them, may inherit CC BY-NC 4.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from animate4d.core.tracks import Tracks
from animate4d.tracks.cotracker3.checkpoint import load_cotracker3
from animate4d.tracks.cotracker3.config import TrackingSettings
from animate4d.tracks.cotracker3.model import CoTracker3, Estimate
from animate4d.tracks.cotracker3.windows import track_windows
from animate4d.tracks.queries import SOLID

VERSION = 1
"""Raised when the same weights and settings would give other tracks."""

MARGIN = 1 / 64
"""Distance of the support grid from the border, as a share of the width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What the network says, before any threshold.

    Attributes:
        xy: `[V, T, P, 2]` float32 pixels, centres at half-integers; hidden points have one too.
        visibility: `[V, T, P]` float32 probability that the point is in sight.
        confidence: `[V, T, P]` float32 probability that the position is good.
    """

    xy: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray

    @property
    def product(self) -> np.ndarray:
        """Visibility times confidence `[V, T, P]`: what points are filtered by."""
        return self.visibility * self.confidence


class CoTracker3Tracker:
    """Tracks with a CoTracker3 network.

    Args:
        model: offline, for clips of 30 to 60 frames, or online, for any other length.
        fingerprint: hash of its weights, part of `id`.
        settings: how to track.
        device: where; default the GPU if there is one.
    """

    kind = "cotracker3"

    def __init__(
        self,
        model: CoTracker3,
        fingerprint: str,
        settings: TrackingSettings | None = None,
        *,
        device: str | None = None,
    ) -> None:
        self.settings = settings or TrackingSettings()
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model = model.to(self.device)
        layout = "online" if model.config.online else "offline"
        self.id = f"{self.kind}-{layout}/{VERSION}-{fingerprint[:12]}-{self.settings.name}"

    @classmethod
    def from_checkpoint(
        cls, path: Path, settings: TrackingSettings | None = None, *, device: str | None = None
    ) -> CoTracker3Tracker:
        """Load a released checkpoint; raises ModelError where it is missing or does not fit."""
        model, fingerprint = load_cotracker3(path)
        return cls(model, fingerprint, settings, device=device)

    def track(
        self, video: np.ndarray, queries: np.ndarray, masks: np.ndarray | None, valid: np.ndarray | None = None
    ) -> Tracks:
        """Follow points of frame 0; see `PointTracker.track`.

        `visible` is visibility times confidence where that exceeds the threshold, else 0. Unlike with OpenCV, a point
        that was hidden may be found again.
        """
        prediction = self.predict(video, queries, valid=valid)
        height, width = video.shape[2:4]
        visible = np.where(prediction.product > self.settings.threshold, prediction.product, 0.0).astype(np.float32)
        column, row = np.moveaxis(np.floor(prediction.xy).astype(int), -1, 0)
        visible *= (column >= 0) & (column < width) & (row >= 0) & (row < height)
        if masks is not None:
            view, frame = np.ogrid[: len(masks), : masks.shape[1]]
            at = row.clip(0, height - 1), column.clip(0, width - 1)
            visible *= masks[view[..., None], frame[..., None], *at] >= SOLID
        if valid is not None:
            visible *= valid[:, None]
        return Tracks(xy=prediction.xy, visible=visible, tracker=self.id)

    def predict(
        self,
        video: np.ndarray,
        queries: np.ndarray,
        *,
        query_frames: np.ndarray | None = None,
        valid: np.ndarray | None = None,
    ) -> Prediction:
        """Say where points are, in sight or not, and how sure that is.

        Args:
            video: `[V, T, H, W, 3]` uint8 RGB.
            queries: `[V, P, 2]` float32 pixels, centres at half-integers.
            query_frames: `[V, P]` frame in which each query is; default 0. The offline network tracks backwards from
                there too; what the online one finds before it means little and counts as out of sight.
            valid: `[V, P]` bool; the others are padding. Default: all are.
        """
        views, frames, height, width, _ = video.shape
        points = queries.shape[1]
        started = np.zeros((views, points), np.int64) if query_frames is None else query_frames.astype(np.int64)
        real = np.ones((views, points), bool) if valid is None else valid
        stretch = np.array([(self.settings.width - 1) / (width - 1), (self.settings.height - 1) / (height - 1)])
        asked = np.concatenate([started[..., None], (queries - 0.5) * stretch], axis=-1)
        support = np.broadcast_to(self._support(), (views, self.settings.support**2, 3))
        estimate = self._estimate(
            torch.from_numpy(np.ascontiguousarray(video)).permute(0, 1, 4, 2, 3),
            torch.from_numpy(np.concatenate([asked, support], axis=1).astype(np.float32)),
            torch.from_numpy(np.concatenate([real, np.ones(support.shape[:2], bool)], axis=1)),
        )
        xy, visibility, confidence = (
            found[:, :, :points].float().cpu().numpy()
            for found in (estimate.xy, estimate.visibility, estimate.confidence)
        )
        xy = (xy / stretch + 0.5).astype(np.float32)
        # What was asked is known better than what the network says of it.
        view, point = np.ogrid[:views, :points]
        xy[view, started, point] = queries
        visibility[view, started, point] = confidence[view, started, point] = 1.0
        if self._model.config.online:
            visibility *= np.arange(frames)[:, None] >= started[:, None]
        return Prediction(xy=xy, visibility=visibility, confidence=confidence)

    def _estimate(self, video: torch.Tensor, queries: torch.Tensor, valid: torch.Tensor) -> Estimate:
        """Run the network on `[V, T, 3, H, W]` frames; queries and result are in stretched pixels."""
        half = self.settings.precision == "bf16"
        size = (self.settings.height, self.settings.width)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            dtype = torch.bfloat16 if half else torch.float32
            maps = self._model.encode(video.to(self.device), size=size, dtype=dtype)
            run = track_windows if self._model.config.online else CoTracker3.forward
            return run(
                self._model,
                maps,
                queries.to(self.device),
                valid=valid.to(self.device),
                iterations=self.settings.iterations,
            )

    def _support(self) -> np.ndarray:
        """Return the support points `[S * S, 3]`: frame 0, x and y in stretched pixels."""
        height, width, side = self.settings.height, self.settings.width, self.settings.support
        margin = width * MARGIN
        rows, columns = (np.linspace(margin, size - margin, side) for size in (height, width))
        y, x = np.meshgrid(rows, columns, indexing="ij")
        return np.stack([np.zeros(side * side), x.ravel(), y.ravel()], axis=-1)
