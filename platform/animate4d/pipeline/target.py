"""The video a motion is fitted to and what is known besides: the asset's own animation, or what a model imagines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from animate4d.core.cameras import Rig
from animate4d.core.clip import GREY, MultiViewVideo
from animate4d.core.mesh import Mesh
from animate4d.core.tracks import Tracks
from animate4d.io.images import composite_grey
from animate4d.models.sampler_config import SamplerConfig
from animate4d.tracks.build import EXACT, make_tracker
from animate4d.tracks.queries import grid_queries
from animate4d.videos.maker import VideoModel
from animate4d.views.clip import render_labelled_clip, render_poses
from animate4d.views.raycast import render_views
from animate4d.views.shading import bake_shading
from animate4d.views.tracks import SEEN

VIEW_PX = 256
"""Pixels per view of the frames that a video starts from and that a motion is fitted to."""

NO_TRACKER, MODEL_FLOW = "none", "flow"

QUERIES = 60
"""Points per side of the grid that is tracked for a fit. With exact tracks, 15 a side took a fifth off the vertex
error of a gallop, a dense flow two thirds."""

AROUND = (
    Rig(azimuths_deg=(30.0, 120.0, 210.0, 300.0), elevation_deg=40.0),
    Rig(azimuths_deg=(60.0, 150.0, 240.0, 330.0), elevation_deg=-15.0),
    Rig(azimuths_deg=(20.0, 110.0, 200.0, 290.0), elevation_deg=5.0),
    Rig(azimuths_deg=(65.0, 155.0, 245.0, 335.0), elevation_deg=20.0),
)
"""Where the static object is looked at from besides, so that splats no view of the video shows get their colours, and
those that it does are not fitted to its views alone: the last two gained 0.4 to 0.8 dB between the views, none lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a fit is given.

    Attributes:
        video: to look like.
        around: the object at rest from more sides; None where a fit that goes on knows its colours.
        tracks: of points seen in frame 0.
        flow: to frame 0, and
        flow_weight: how far to trust it.
        vertices: `[T, N, 3]` true poses, where they are known.
        model_version: of the model that generated the video; empty where none did.
    """

    video: MultiViewVideo
    around: MultiViewVideo | None
    tracks: Tracks | None = None
    flow: np.ndarray | None = None
    flow_weight: np.ndarray | None = None
    vertices: np.ndarray | None = None
    model_version: str = ""


def true_target(
    mesh: Mesh,
    vertices: np.ndarray,
    times: np.ndarray,
    rig: Rig,
    tracker: str,
    checkpoint: Path | None = None,
    *,
    lamps: bool = False,
) -> Target:
    """Render poses `[T, N, 3]` of a mesh, and track points by one of `tracks.build.TRACKERS` or "none".

    Lit at rest; with `lamps`, which no exact tracks go with, every pose anew.
    """
    around = look_around(lambda rig, size: render_views(mesh, mesh.vertices, rig, size).rgba)
    if tracker == EXACT:
        # the dense flow of half the pixels says more than tracks of a few hundred points
        light = bake_shading(mesh, mesh.vertices)
        clip = render_labelled_clip(mesh, vertices, times, rig, VIEW_PX, shading=light)
        flow, weight = clip.flow.astype(np.float32), (clip.flow_mask == SEEN).astype(np.float32)
        return Target(video=clip.video, around=around, flow=flow, flow_weight=weight, vertices=vertices)
    video = render_poses(mesh, vertices, times, [rig], VIEW_PX, lamps=lamps)
    return Target(video=video, around=around, tracks=track_video(video, tracker, checkpoint), vertices=vertices)


def generated_target(
    model: VideoModel,
    first: np.ndarray,
    around: MultiViewVideo | None,
    rig: Rig,
    prompt: str,
    *,
    seed: int,
    sampler: SamplerConfig,
    tracker: str,
    checkpoint: Path | None,
    progress: Callable[[float], None],
) -> Target:
    """Let a model imagine what follows pictures `[V, S, S, 4]`; the tracker "flow" is the model's own flow."""
    made, version = model.video(
        first, rig, prompt, seed=seed, config=sampler, progress=lambda done, steps: progress(done / steps)
    )
    video = MultiViewVideo(
        rgb=_off_grey(made.rgb, made.alpha),
        alpha=made.alpha,
        camera_to_world=rig.camera_to_world(),
        intrinsics=rig.intrinsics(VIEW_PX),
        times=made.times,
    )
    if tracker == MODEL_FLOW:
        flow, weight = made.flow, made.flow_weight
        return Target(video=video, around=around, flow=flow, flow_weight=weight, model_version=version)
    tracks = track_video(video, tracker, checkpoint)
    return Target(video=video, around=around, tracks=tracks, model_version=version)


def look_around(look: Callable[[Rig, int], np.ndarray]) -> MultiViewVideo:
    """Return the object at rest from `AROUND`, as `look` draws it: `[V, S, S, 4]` uint8 from a rig."""
    rgba = np.concatenate([look(rig, VIEW_PX) for rig in AROUND])[:, None]
    return MultiViewVideo(
        rgb=rgba[..., :3],
        alpha=rgba[..., 3],
        camera_to_world=np.concatenate([rig.camera_to_world() for rig in AROUND]),
        intrinsics=np.concatenate([rig.intrinsics(VIEW_PX) for rig in AROUND]),
        times=np.zeros(1),
    )


def joined(videos: Sequence[MultiViewVideo]) -> MultiViewVideo:
    """Return clips as one, each but the first without the frame it shares with the one before."""
    first = videos[0]
    times = [first.times]
    for video in videos[1:]:
        times.append(times[-1][-1] + video.times[1:] - video.times[0])
    return replace(
        first,
        rgb=np.concatenate([first.rgb, *(video.rgb[:, 1:] for video in videos[1:])], axis=1),
        alpha=np.concatenate([first.alpha, *(video.alpha[:, 1:] for video in videos[1:])], axis=1),
        times=np.concatenate(times),
    )


def track_video(video: MultiViewVideo, tracker: str, checkpoint: Path | None) -> Tracks | None:
    """Follow a grid of points of the object through a video; None for the tracker "none"."""
    if tracker == NO_TRACKER:
        return None
    queries, valid = grid_queries(video.alpha[:, 0], QUERIES)
    pictures = composite_grey(np.concatenate([video.rgb, video.alpha[..., None]], axis=-1))
    found = make_tracker(tracker, checkpoint=checkpoint).track(pictures, queries, video.alpha, valid)
    return replace(found, visible=found.visible * valid[:, None])


def _off_grey(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Undo compositing on grey: straight colours from `[..., 3]` uint8 pictures and `[...]` uint8 coverage."""
    coverage = alpha[..., None].astype(np.float32) / 255
    colour = (rgb.astype(np.float32) - GREY * 255 * (1 - coverage)) / np.maximum(coverage, 1 / 255)
    return np.where(coverage > 0, np.clip(np.round(colour), 0, 255), 128).astype(np.uint8)
