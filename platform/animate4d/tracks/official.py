"""The authors' own CoTracker3 package where the user has installed it: the same preparation, their network.

Kept for comparison. Their code takes one clip at a time, knows no padding, and resets torch's random numbers when it is
imported, which is undone here; it is CC BY-NC 4.0, on no package registry, and never a dependency.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from animate4d.core.errors import ConfigError, ModelError
from animate4d.tracks.cotracker3.checkpoint import load_cotracker3
from animate4d.tracks.cotracker3.config import TrackingSettings
from animate4d.tracks.cotracker3.model import CoTracker3, Estimate
from animate4d.tracks.cotracker3.tracker import CoTracker3Tracker

ONLINE_MINIMUM = 9
"""Frames below which their online network answers with zeros (seen for 1 to 8)."""


class OfficialCoTracker3Tracker(CoTracker3Tracker):
    """Tracks with the package `cotracker` and the same checkpoint files.

    Raises:
        ConfigError: the package is not installed, or bf16 is asked for.
    """

    kind = "cotracker3-official"

    def __init__(
        self,
        model: CoTracker3,
        fingerprint: str,
        settings: TrackingSettings | None = None,
        *,
        device: str | None = None,
    ) -> None:
        super().__init__(model, fingerprint, settings, device=device)
        if self.settings.precision != "fp32":
            raise ConfigError("cotracker3-official computes in fp32 only: use cotracker3 for bf16")
        config = model.config
        build = import_builder()
        self._official = build(None, offline=not config.online, window_len=config.window, v2=False)
        self._official.load_state_dict(model.state_dict())
        self._official.to(self.device).eval()

    @torch.inference_mode()
    def _estimate(self, video: torch.Tensor, queries: torch.Tensor, valid: torch.Tensor) -> Estimate:
        views, frames = video.shape[:2]
        if self._model.config.online and frames < ONLINE_MINIMUM:
            raise ModelError(f"cotracker3-official cannot track {frames} frames online: give {ONLINE_MINIMUM} or more")
        size = (self.settings.height, self.settings.width)
        found = [torch.zeros(views, frames, queries.shape[1], last) for last in (2, 1, 1)]
        for view in range(views):
            stretched = torch.nn.functional.interpolate(
                video[view].to(self.device).float(), size, mode="bilinear", align_corners=True
            )
            asked = queries[view, valid[view]].to(self.device)
            xy, visibility, confidence, _ = self._official(
                video=stretched[None], queries=asked[None], iters=self.settings.iterations
            )
            for whole, part in zip(found, (xy, visibility[..., None], confidence[..., None]), strict=True):
                whole[view][:, valid[view]] = part[0].cpu()
        xy, visibility, confidence = found
        return Estimate(xy=xy, visibility=visibility[..., 0], confidence=confidence[..., 0])


def make_official(
    path: Path, settings: TrackingSettings | None = None, *, device: str | None = None
) -> OfficialCoTracker3Tracker:
    """Build the official network with a checkpoint's weights; raises ConfigError or ModelError."""
    import_builder()  # before the checkpoint is read
    model, fingerprint = load_cotracker3(path)
    return OfficialCoTracker3Tracker(model, fingerprint, settings, device=device)


def import_builder() -> Any:
    """Return the package's function that builds its network, leaving torch's random numbers as they were.

    Raises:
        ConfigError: the package is not installed.
    """
    state = torch.random.get_rng_state()
    device_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        from cotracker.models.build_cotracker import build_cotracker
    except ImportError as error:
        raise ConfigError(
            "tracker cotracker3-official needs the authors' package (CC BY-NC 4.0), installed from "
            f"github.com/facebookresearch/co-tracker ({error}): install it, or use cotracker3, which needs none"
        ) from error
    finally:
        torch.random.set_rng_state(state)
        if device_states:
            torch.cuda.set_rng_state_all(device_states)
    return build_cotracker
