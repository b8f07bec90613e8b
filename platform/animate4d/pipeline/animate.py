"""One object from request to bundle, as a whole in one process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from animate4d.core.errors import ConfigError
from animate4d.io.atomic import atomic_folder
from animate4d.pipeline.config import Request
from animate4d.pipeline.stage_report import StageReport
from animate4d.pipeline.steps import begin, finish, fit, imagine
from animate4d.videos.maker import VideoModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A finished bundle.

    Attributes:
        folder: where it is.
        receipt: content of its `receipt.json`.
    """

    folder: Path
    receipt: dict[str, Any]


def animate(
    request: Request,
    model: VideoModel | None,
    out: Path,
    *,
    progress: Callable[[str, float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    show: Callable[[np.ndarray], None] | None = None,
    device: torch.device | None = None,
) -> Result:
    """Animate one object into a folder, which appears whole or not at all; an older folder there is replaced.

    A long fit that was killed or cancelled goes on from its last checkpoint, which waits in `kept_beside(out)`.

    Args:
        request: what to animate and how.
        model: makes the videos; may be None when the video is ground-truth.
        out: folder of the bundle.
        progress: told (stage, overall share from 0 to 1) now and then.
        cancelled: asked now and then whether to stop.
        show: given `[V, T, S, S, 3]` uint8 pictures on grey while a generated video is made: the input views, then
            each clip.
        device: to train a motion field on (fit=paper); None is the CPU.

    Raises:
        AssetError: the file cannot be read, or holds nothing that can be animated.
        ConfigError: the request needs a model and there is none.
        stage_report.Cancelled: `cancelled` said so.
    """
    if request.video == "generated" and model is None:
        raise ConfigError("a generated video needs a model: give one, or set video=ground-truth")
    report = StageReport(request.options.clips, progress=progress, cancelled=cancelled)
    with atomic_folder(out) as folder:
        work = begin(request, report)
        for _ in range(request.options.clips):
            if request.video == "generated":
                assert model is not None
                work = imagine(request, work, model, report, show=show)
            work = fit(request, work, report, kept=kept_beside(out), device=device)
        receipt = finish(request, work, folder, report)
    shutil.rmtree(kept_beside(out), ignore_errors=True)
    return Result(folder=out, receipt=receipt)


def kept_beside(out: Path) -> Path:
    """Return the folder in which the fit of a bundle that is not done keeps its checkpoint; it may not exist."""
    return out.with_name(f".{out.name}.kept")
