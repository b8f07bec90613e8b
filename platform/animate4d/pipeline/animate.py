"""One object from request to bundle: load, look, imagine a video, fit the motion, export.

Everything between the first and the last step happens in the canonical frame; what is exported returns to the user's.
Cancellation is cooperative: it is looked for between stages and at every tick of the long ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from animate4d.assets.asset import Asset
from animate4d.assets.load import load_asset
from animate4d.core.cameras import Rig
from animate4d.core.clip import GREY, MultiViewVideo
from animate4d.core.errors import AssetError, ConfigError
from animate4d.core.motion import GraphMotion
from animate4d.export.bundle import write_bundle
from animate4d.export.moving_object import MovingObject
from animate4d.fourd.config import PRESETS, led_by_flow
from animate4d.fourd.fit import FitResult, fit_motion
from animate4d.io.atomic import atomic_folder
from animate4d.metrics.motion import vertex_error
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline.config import Request
from animate4d.pipeline.exports import played, wanted_files
from animate4d.pipeline.pictures import write_pictures, write_target
from animate4d.pipeline.receipt import StageClock, write_receipt
from animate4d.pipeline.subject import Subject, subject_of
from animate4d.videos.generate import generate_video
from animate4d.views.clip import frame_times, render_clip

VIEW_PX = 256
"""Pixels per view: of the frames the video starts from, and of the pictures of the result."""

MAX_CLIP_SECONDS = 4.0
"""Longest stretch of an asset's own clip that is fitted; 16 frames of more would be too far apart to follow."""

STILL_SHARE = 0.005
"""A true motion below this share of the object's diameter is called still: half a pixel at 128 px."""

NO_MOTION = 0.001
"""Below this a ratio to the true motion says nothing: the fit is good to a tenth of a pixel at best."""

SHARES = {"load": 0.03, "views": 0.07, "video": 0.25, "fit": 0.80, "export": 0.90, "pictures": 1.0}
"""Overall progress at the end of each stage, from stage times on two CPU cores."""


VIDEO_NAMES = {"generated": "The generated video", "ground-truth": "The model's own clip"}


class Cancelled(Exception):
    """Somebody asked to stop; nothing was written."""


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
    model: MVVDM | None,
    out: Path,
    *,
    model_version: str,
    progress: Callable[[str, float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Result:
    """Animate one object into a folder, which appears whole or not at all; an older folder there is replaced.

    Args:
        request: what to animate and how.
        model: in evaluation mode; may be None when the video is ground-truth.
        out: folder of the bundle.
        model_version: identifies the model in the receipt.
        progress: told (stage, overall share from 0 to 1) now and then.
        cancelled: asked now and then whether to stop.

    Raises:
        AssetError: the file cannot be read, or holds nothing that can be animated.
        ConfigError: the request needs a model and there is none.
        Cancelled: `cancelled` said so.
    """
    if request.video == "generated" and model is None:
        raise ConfigError("a generated video needs a model: give one, or set video=ground-truth")
    with atomic_folder(out) as folder:
        receipt = _Animation(request, model, folder, progress, cancelled).run(model_version)
    return Result(folder=out, receipt=receipt)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Target:
    """The video to fit; its flow to frame 0 and how far to trust it, where the model gives them; the true motion."""

    video: MultiViewVideo
    flow: np.ndarray | None = None
    flow_weight: np.ndarray | None = None
    vertices: np.ndarray | None = None


def find_clip(asset: Asset, wanted: str | None) -> int:
    """Return the number of the clip to fit: the first one, or that of a name or number.

    Exporters write "Armature|Gallop" or "Armature|Fox_Gallop"; the last part alone, in any case, will do where it names
    one clip.

    Raises:
        AssetError: the asset has no animation, or none of that name.
    """
    if not asset.clips:
        raise AssetError(f"{asset.path.name}: has no animation, and video=ground-truth needs one: use video=generated")
    if wanted is None:
        return 0
    if wanted not in [clip.name for clip in asset.clips]:
        for separators in (r"\|", r"[|_ .:-]"):
            ending = re.compile(rf"(?:.*{separators})?{re.escape(wanted)}", re.IGNORECASE)
            matches = [number for number, clip in enumerate(asset.clips) if ending.fullmatch(clip.name)]
            if len(matches) == 1:
                return matches[0]
    return asset.clip_number(wanted)


class _Animation:
    """One run of the pipeline: keeps the clock, the progress and the wish to stop out of the steps."""

    def __init__(
        self,
        request: Request,
        model: MVVDM | None,
        folder: Path,
        progress: Callable[[str, float], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self.request, self.model, self.folder = request, model, folder
        self.rig = Rig()
        self.clock = StageClock()
        self._progress, self._cancelled = progress, cancelled

    def run(self, model_version: str) -> dict[str, Any]:
        """Go through all stages and return the receipt."""
        with self._stage("load"):
            asset, clip = self._load()
            subject = subject_of(asset)
        target = self._ground_truth(asset, clip) if self.request.video == "ground-truth" else self._generated(subject)
        with self._stage("fit"):
            tick = self._ticks("fit")
            config = replace(PRESETS[self.request.options.fit](), seed=self.request.seed % 2**32)
            if target.flow is not None:
                config = led_by_flow(config)
            fit = fit_motion(
                subject.body,
                target.video,
                config,
                flow=target.flow,
                flow_weight=target.flow_weight,
                progress=lambda share, _text: tick(share),
            )
            scaled = fit.motion.scaled(self.request.options.strength)
            motion, video_frames = played(scaled, self.request)
        on_grey = np.round(target.video.on_grey() * 255).astype(np.uint8)
        with self._stage("export"):
            cloud, splats = subject.splats(motion, video_frames, fit, target.video, self.request)
            thing = MovingObject(
                asset=asset,
                title=self._animation_name(asset, clip),
                motion=motion,
                vertices=subject.vertices(motion),
                cloud=cloud,
                splats=splats,
                rig=self.rig,
                video=on_grey,
                video_frames=video_frames,
                video_name=VIDEO_NAMES[self.request.video],
            )
            formats, notes = wanted_files(thing, self.request.options)
            write_bundle(self.folder, thing, formats, fps=self.request.options.fps, tick=self._ticks("export"))
        with self._stage("pictures"):
            tick = self._ticks("pictures")
            write_pictures(self.folder, subject.film(motion, self.rig, VIEW_PX), motion.times, tick)
            write_target(self.folder / f"{self.request.video}.mp4", on_grey, target.video.times)
        truth: dict[str, float | None] | None = None
        warnings: list[str] = []
        if target.vertices is not None:
            assert asset.mesh is not None
            truth, warnings = _truth(scaled.apply(asset.mesh.vertices), target.vertices)
        return write_receipt(
            self.folder,
            self.request,
            asset_sha256=asset.source_sha256,
            model_version=model_version,
            clock=self.clock,
            fit=_fit_report(fit),
            truth=truth,
            warnings=[*asset.warnings, *notes, *warnings],
        )

    def _load(self) -> tuple[Asset, int | None]:
        asset = load_asset(self.request.asset)
        if self.request.video == "generated":
            return asset, None
        clip = find_clip(asset, self.request.clip)
        return asset.posed(clip, 0.0), clip

    def _generated(self, subject: Subject) -> _Target:
        with self._stage("views"):
            first = subject.look(self.rig, VIEW_PX)
        with self._stage("video"):
            assert self.model is not None
            tick = self._ticks("video")
            made = generate_video(
                self.model,
                first,
                self.rig,
                self.request.prompt,
                seed=self.request.seed,
                config=self.request.options.sampler(),
                progress=lambda done, steps: tick(done / steps),
            )
            video = MultiViewVideo(
                rgb=_off_grey(made.rgb, made.alpha),
                alpha=made.alpha,
                camera_to_world=self.rig.camera_to_world(),
                intrinsics=self.rig.intrinsics(VIEW_PX),
                times=made.times,
            )
        return _Target(video=video, flow=made.flow, flow_weight=made.flow_weight)

    def _ground_truth(self, asset: Asset, clip: int | None) -> _Target:
        assert clip is not None
        with self._stage("views"):
            times = frame_times(asset.clips[clip].duration, self.request.options.frames, MAX_CLIP_SECONDS)
            video, _, vertices = render_clip(asset, clip, times, self.rig, VIEW_PX)
        return _Target(video=video, vertices=vertices)

    def _animation_name(self, asset: Asset, clip: int | None) -> str:
        return self.request.prompt.strip()[:80] or (asset.clips[clip].name if clip is not None else "animation")

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self._tell(name, _start_of(name))
        with self.clock.stage(name):
            yield
        self._tell(name, SHARES[name])

    def _ticks(self, name: str) -> Callable[[float], None]:
        """Return what maps a stage's own share to the overall one."""
        start, end = _start_of(name), SHARES[name]
        return lambda share: self._tell(name, start + (end - start) * share)

    def _tell(self, stage: str, share: float) -> None:
        if self._cancelled is not None and self._cancelled():
            raise Cancelled
        if self._progress is not None:
            self._progress(stage, share)


def _start_of(stage: str) -> float:
    ends = list(SHARES.values())
    index = list(SHARES).index(stage)
    return ends[index - 1] if index else 0.0


def _off_grey(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Undo compositing on grey: straight colours from `[..., 3]` uint8 pictures and `[...]` uint8 coverage."""
    coverage = alpha[..., None].astype(np.float32) / 255
    colour = (rgb.astype(np.float32) - GREY * 255 * (1 - coverage)) / np.maximum(coverage, 1 / 255)
    return np.where(coverage > 0, np.clip(np.round(colour), 0, 255), 128).astype(np.uint8)


def _fit_report(fit: FitResult) -> dict[str, Any]:
    return {
        "loss": round(float(np.mean(fit.frame_losses[1:])), 6),
        "frame_losses": [round(float(loss), 6) for loss in fit.frame_losses],
        "mask_iou": round(float(np.mean(fit.mask_iou[1:])), 4),
        "frame_mask_iou": [round(float(share), 4) for share in fit.mask_iou],
        "lost_frames": [int(frame) for frame in fit.lost_frames],
        "nodes": len(fit.motion.nodes) if isinstance(fit.motion, GraphMotion) else 0,
        "splats": len(fit.splats.means),
        "frames": len(fit.motion.times),
    }


def _truth(poses: np.ndarray, true: np.ndarray) -> tuple[dict[str, float | None], list[str]]:
    """Score the moved mesh against the true one; a clip that stands still has no ratio to speak of."""
    error = vertex_error(poses, true)
    ratio = round(error.ratio, 4) if error.static >= NO_MOTION else None
    warnings = []
    if error.static < STILL_SHARE:
        warnings.append(
            f"This clip hardly moves ({error.static:.2%} of the size): choose another with the clip column."
        )
    return {"e_fit": round(error.fit, 6), "e_static": round(error.static, 6), "ratio": ratio}, warnings
