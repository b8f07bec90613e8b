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
from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import AssetError, ConfigError
from animate4d.core.motion import GraphMotion
from animate4d.export.bundle import write_bundle
from animate4d.export.moving_object import MovingObject
from animate4d.fourd.config import PRESETS, led_by_flow
from animate4d.fourd.fit import FitResult, fit_motion
from animate4d.io.atomic import atomic_folder
from animate4d.io.images import composite_grey
from animate4d.pipeline.config import Request
from animate4d.pipeline.exports import played, wanted_files
from animate4d.pipeline.pictures import write_pictures, write_target
from animate4d.pipeline.receipt import StageClock, write_receipt
from animate4d.pipeline.subject import Subject, subject_of
from animate4d.pipeline.target import MODEL_FLOW, VIEW_PX, Target, generated_target, joined, look_around, true_target
from animate4d.pipeline.truth import UNSEEN, score_fit
from animate4d.videos.maker import VideoModel
from animate4d.views.clip import frame_times, pose_vertices

MAX_CLIP_SECONDS = 4.0
"""Longest stretch of an asset's own clip that is fitted; 16 frames of more would be too far apart to follow."""

STILL_SHARE = 0.005
"""A true motion below this share of the object's diameter is called still: half a pixel at 128 px."""

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
    model: VideoModel | None,
    out: Path,
    *,
    progress: Callable[[str, float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    show: Callable[[np.ndarray], None] | None = None,
) -> Result:
    """Animate one object into a folder, which appears whole or not at all; an older folder there is replaced.

    Args:
        request: what to animate and how.
        model: makes the videos; may be None when the video is ground-truth.
        out: folder of the bundle.
        progress: told (stage, overall share from 0 to 1) now and then.
        cancelled: asked now and then whether to stop.
        show: given `[V, T, S, S, 3]` uint8 pictures on grey while a generated video is made: the input views, then
            each clip.

    Raises:
        AssetError: the file cannot be read, or holds nothing that can be animated.
        ConfigError: the request needs a model and there is none.
        Cancelled: `cancelled` said so.
    """
    if request.video == "generated" and model is None:
        raise ConfigError("a generated video needs a model: give one, or set video=ground-truth")
    with atomic_folder(out) as folder:
        receipt = _Animation(request, model, folder, progress, cancelled, show).run()
    return Result(folder=out, receipt=receipt)


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
        model: VideoModel | None,
        folder: Path,
        progress: Callable[[str, float], None] | None,
        cancelled: Callable[[], bool] | None,
        show: Callable[[np.ndarray], None] | None,
    ) -> None:
        self.request, self.model, self.folder = request, model, folder
        self.rig = Rig()
        self.clock = StageClock()
        self._number = 0
        self._progress, self._cancelled = progress, cancelled
        self._show = show or (lambda _pictures: None)

    def run(self) -> dict[str, Any]:
        """Go through all stages and return the receipt."""
        with self._stage("load"):
            asset, clip = self._load()
            subject = subject_of(asset)
        fit, targets = None, []
        for number in range(self.request.options.clips):
            self._number = number
            targets.append(self._target(asset, subject, clip, fit))
            with self._stage("fit"):
                fit = self._fit(subject, targets[-1], fit)
        assert fit is not None
        video = joined([target.video for target in targets])
        if self.request.options.strength != 1.0:
            fit = replace(fit, motion=fit.motion.scaled(self.request.options.strength), trajectories=None)
        motion, video_frames = played(fit.motion, self.request)
        on_grey = _on_grey(video)
        with self._stage("export"):
            cloud, splats = subject.splats(motion, video_frames, fit, video, self.request)
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
            write_target(self.folder / f"{self.request.video}.mp4", on_grey, video.times)
            truth, warnings = _truth(asset, fit, targets, video)
        return write_receipt(
            self.folder,
            self.request,
            asset_sha256=asset.source_sha256,
            # A model that was replaced between two clips leaves both names.
            model_version="+".join(dict.fromkeys(target.model_version for target in targets)),
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

    def _target(self, asset: Asset, subject: Subject, clip: int | None, so_far: FitResult | None) -> Target:
        """Make the video of the next clip, which starts where the motion so far ends."""
        if clip is not None:
            with self._stage("views"):
                return self._true_part(asset, clip, 0 if so_far is None else len(so_far.motion.times) - 1)
        request, options = self.request, self.request.options
        assert self.model is not None
        with self._stage("views"):
            first = subject.look(self.rig, VIEW_PX, so_far.motion if so_far else None)
            around = None if so_far else look_around(subject.look)
            self._show(composite_grey(first)[:, None])
        with self._stage("video"):
            target = generated_target(
                self.model,
                first,
                around,
                self.rig,
                request.prompt,
                seed=request.seed,
                sampler=options.sampler(),
                tracker=request.tracker,
                checkpoint=options.tracker_checkpoint,
                progress=self._ticks("video"),
            )
            self._show(_on_grey(target.video))
        return target

    def _true_part(self, asset: Asset, clip: int, start: int) -> Target:
        """Render `frames` frames of the asset's own animation from frame `start` on."""
        options = self.request.options
        assert asset.mesh is not None
        count = options.clips * (options.frames - 1) + 1
        times = frame_times(asset.clips[clip].duration, count, options.clips * MAX_CLIP_SECONDS)
        times = times[start : start + options.frames]
        vertices = pose_vertices(asset, clip, times)
        return true_target(asset.mesh, vertices, times, self.rig, self.request.tracker, options.tracker_checkpoint)

    def _fit(self, subject: Subject, target: Target, so_far: FitResult | None) -> FitResult:
        config = replace(PRESETS[self.request.options.fit](), seed=self.request.seed % 2**32)
        if self.request.tracker == MODEL_FLOW and target.flow is not None:
            config = led_by_flow(config)
        tick = self._ticks("fit")
        return fit_motion(
            subject.body,
            target.video,
            config,
            tracks=target.tracks,
            flow=target.flow,
            flow_weight=target.flow_weight,
            around=target.around,
            after=so_far,
            progress=lambda share, _text: tick(share),
        )

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
        begin, end = SHARES["load"], SHARES["fit"]
        if begin <= share <= end:
            # each clip takes its part of what a single one would
            share = begin + (self._number * (end - begin) + share - begin) / self.request.options.clips
        if self._progress is not None:
            self._progress(stage, share)


def _on_grey(video: MultiViewVideo) -> np.ndarray:
    return np.round(video.on_grey() * 255).astype(np.uint8)


def _start_of(stage: str) -> float:
    ends = list(SHARES.values())
    index = list(SHARES).index(stage)
    return ends[index - 1] if index else 0.0


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


def _truth(
    asset: Asset, fit: FitResult, targets: list[Target], video: MultiViewVideo
) -> tuple[dict[str, Any] | None, list[str]]:
    """Score the motion against the true one, where it is known; a clip that stands still has no ratio."""
    parts = [target.vertices for target in targets if target.vertices is not None]
    if not parts:
        return None, []
    assert asset.mesh is not None
    true = np.concatenate([parts[0], *(part[1:] for part in parts[1:])])
    score = score_fit(asset.mesh, fit, true, video, {"psnr_unseen": UNSEEN})
    said = f"This clip hardly moves ({score.e_static:.2%} of the size): choose another with the clip column."
    facts = {"e_fit": score.e_fit, "e_static": score.e_static, "ratio": score.ratio, "psnr": score.psnr}
    return facts | score.psnr_unseen, [said] if score.e_static < STILL_SHARE else []
