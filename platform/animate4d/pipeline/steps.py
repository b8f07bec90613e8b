"""The steps of an animation: look at the object, imagine a video, fit the motion to it, write the bundle.

Imagining and fitting come once for every clip. Imagining alone wants a GPU; what one step hands to the next can be sent
to another process. Everything between loading and writing happens in the canonical frame; what is exported returns to
the user's. Cancellation is cooperative: it is looked for between stages and at every tick of the long ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from animate4d.assets.asset import Asset
from animate4d.assets.load import load_asset
from animate4d.core.cameras import Rig
from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import AssetError
from animate4d.core.motion import GraphMotion
from animate4d.export.bundle import write_bundle
from animate4d.export.moving_object import MovingObject
from animate4d.fourd.config import PRESETS, led_by_flow
from animate4d.fourd.field_state import CheckpointError
from animate4d.fourd.fit import FitResult, fit_motion
from animate4d.io.images import composite_grey
from animate4d.pipeline.config import Request
from animate4d.pipeline.exports import played, wanted_files
from animate4d.pipeline.pictures import write_pictures, write_target
from animate4d.pipeline.receipt import StageClock, write_receipt
from animate4d.pipeline.stage_report import StageReport
from animate4d.pipeline.subject import Subject, subject_of
from animate4d.pipeline.target import MODEL_FLOW, VIEW_PX, Target, generated_target, joined, look_around, true_target
from animate4d.pipeline.truth import UNSEEN, score_fit
from animate4d.videos.maker import VideoModel
from animate4d.views.clip import frame_times, pose_vertices

MAX_CLIP_SECONDS = 4.0
"""Longest stretch of an asset's own clip that is fitted; 16 frames of more would be too far apart to follow."""

STILL_SHARE = 0.005
"""A true motion below this share of the object's diameter is called still: half a pixel at 128 px."""

VIDEO_NAMES = {"generated": "The generated video", "ground-truth": "The model's own clip"}

Show = Callable[[np.ndarray], None]
"""Takes `[V, T, S, S, 3]` uint8 pictures on grey."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """An object on its way.

    Attributes:
        subject: what is animated.
        clip: number of the asset's own clip to fit; None where a video is generated.
        first: `[V, S, S, 4]` uint8 views that the next video to generate starts from, straight alpha; None without one.
        around: the object at rest from more sides, for the first clip.
        targets: the videos so far.
        fit: the motion so far, over all clips that were fitted.
        clock: of the stages so far.
    """

    subject: Subject
    clip: int | None
    first: np.ndarray | None
    around: MultiViewVideo | None
    targets: tuple[Target, ...] = ()
    fit: FitResult | None = None
    clock: StageClock


def begin(request: Request, report: StageReport) -> Work:
    """Read the asset and, for a generated video, look at it.

    Raises:
        AssetError: the file cannot be read, or holds nothing that can be animated.
        Cancelled: somebody asked to stop.
    """
    with report.stage("load"):
        asset, clip = load_asset(request.asset), None
        if request.video == "ground-truth":
            clip = find_clip(asset, request.clip)
            asset = asset.posed(clip, 0.0)
        subject = subject_of(asset)
    first = around = None
    if clip is None:
        with report.stage("views"):
            first, around = subject.look(Rig(), VIEW_PX), look_around(subject.look)
    return Work(subject=subject, clip=clip, first=first, around=around, clock=report.clock)


def imagine(request: Request, work: Work, model: VideoModel, report: StageReport, *, show: Show | None = None) -> Work:
    """Let the model make the next clip's video: the only step that wants a GPU.

    Raises:
        Cancelled: somebody asked to stop.
    """
    assert work.first is not None
    report.clip, options, show = len(work.targets), request.options, show or _nobody
    show(composite_grey(work.first)[:, None])
    with report.stage("video"):
        target = generated_target(
            model,
            work.first,
            work.around,
            Rig(),
            request.prompt,
            seed=request.seed,
            sampler=options.sampler(),
            tracker=request.tracker,
            checkpoint=options.tracker_checkpoint,
            progress=report.ticks("video"),
        )
        show(_on_grey(target.video))
    return replace(work, targets=(*work.targets, target))


def fit(
    request: Request,
    work: Work,
    report: StageReport,
    *,
    kept: Path | None = None,
    device: torch.device | None = None,
) -> Work:
    """Fit the motion to the newest video, which starts where the motion so far ends; the asset's own clip is drawn now.

    Args:
        request: what to animate and how.
        work: with a video that is not fitted yet, or with a clip of its own.
        report: told how far it is.
        kept: folder in which a killed fit leaves its checkpoint for the next try; fits of a graph take less than a
            minute or two and leave none.
        device: to train a field on, None is the CPU; a graph is fitted on the CPU.

    Raises:
        AssetError: the fit came to nothing.
        Cancelled: somebody asked to stop.
    """
    if work.clip is not None:
        report.clip = len(work.targets)
        with report.stage("views"):
            work = replace(work, targets=(*work.targets, _true_part(request, work)))
    report.clip = len(work.targets) - 1
    with report.stage("fit"):
        found = _fitted(request, work, report.ticks("fit"), kept, device)
    first = None
    if work.clip is None and len(work.targets) < request.options.clips:
        with report.stage("views"):
            first = work.subject.look(Rig(), VIEW_PX, found.motion)
    return replace(work, first=first, around=None, fit=found)


def finish(request: Request, work: Work, folder: Path, report: StageReport) -> dict[str, Any]:
    """Write the files of the bundle into an existing folder, the receipt last; returns the receipt.

    Raises:
        ExportError: a file did not read back as it was written.
        Cancelled: somebody asked to stop.
    """
    subject, found, rig = work.subject, work.fit, Rig()
    assert found is not None
    asset = subject.asset
    video = joined([target.video for target in work.targets])
    if request.options.strength != 1.0:
        found = replace(found, motion=found.motion.scaled(request.options.strength), trajectories=None)
    motion, video_frames = played(found.motion, request)
    on_grey = _on_grey(video)
    with report.stage("export"):
        cloud, splats = subject.splats(motion, video_frames, found, video, request)
        thing = MovingObject(
            asset=asset,
            title=_title(request, work),
            motion=motion,
            vertices=subject.vertices(motion),
            cloud=cloud,
            splats=splats,
            rig=rig,
            video=on_grey,
            video_frames=video_frames,
            video_name=VIDEO_NAMES[request.video],
        )
        formats, notes = wanted_files(thing, request.options)
        write_bundle(folder, thing, formats, fps=request.options.fps, tick=report.ticks("export"))
    with report.stage("pictures"):
        write_pictures(folder, subject.film(motion, rig, VIEW_PX), motion.times, report.ticks("pictures"))
        write_target(folder / f"{request.video}.mp4", on_grey, video.times)
        truth, warnings = _truth(asset, found, work.targets, video)
    return write_receipt(
        folder,
        request,
        asset_sha256=asset.source_sha256,
        # A model that was replaced between two clips leaves both names.
        model_version="+".join(dict.fromkeys(target.model_version for target in work.targets)),
        clock=report.clock,
        fit=_fit_report(found),
        truth=truth,
        warnings=[*asset.warnings, *notes, *warnings],
    )


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


def _true_part(request: Request, work: Work) -> Target:
    """Render the next `frames` frames of the asset's own animation."""
    options, asset, clip = request.options, work.subject.asset, work.clip
    assert asset.mesh is not None
    assert clip is not None
    start = 0 if work.fit is None else len(work.fit.motion.times) - 1
    count = options.clips * (options.frames - 1) + 1
    times = frame_times(asset.clips[clip].duration, count, options.clips * MAX_CLIP_SECONDS)
    times = times[start : start + options.frames]
    vertices = pose_vertices(asset, clip, times)
    return true_target(asset.mesh, vertices, times, Rig(), request.tracker, options.tracker_checkpoint)


def _fitted(
    request: Request, work: Work, tick: Callable[[float], None], kept: Path | None, device: torch.device | None
) -> FitResult:
    target = work.targets[-1]
    checkpoint = None if kept is None else kept / f"fit-{len(work.targets)}.safetensors"
    config = replace(PRESETS[request.options.fit](), seed=request.seed % 2**32)
    if request.tracker == MODEL_FLOW and target.flow is not None:
        config = led_by_flow(config)
    fitting = partial(
        fit_motion,
        work.subject.body,
        target.video,
        config,
        tracks=target.tracks,
        flow=target.flow,
        flow_weight=target.flow_weight,
        around=target.around,
        after=work.fit,
        checkpoint=checkpoint,
        device=device,
        progress=lambda share, _text: tick(share),
    )
    try:
        return fitting()
    except CheckpointError:  # of an older request, or of a video that the model made a little differently then
        assert checkpoint is not None
        checkpoint.unlink()
        return fitting()


def _title(request: Request, work: Work) -> str:
    clips = work.subject.asset.clips
    return request.prompt.strip()[:80] or (clips[work.clip].name if work.clip is not None else "animation")


def _on_grey(video: MultiViewVideo) -> np.ndarray:
    return np.round(video.on_grey() * 255).astype(np.uint8)


def _nobody(pictures: np.ndarray) -> None:
    """Show to nobody."""


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
    asset: Asset, fit: FitResult, targets: tuple[Target, ...], video: MultiViewVideo
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
