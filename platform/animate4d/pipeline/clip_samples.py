"""One asset to training samples, without a cluster: every animation worth keeping, rendered and encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from animate4d import __version__
from animate4d.assets.asset import Asset
from animate4d.assets.load import load_asset
from animate4d.assets.normalise import CANONICAL_RADIUS
from animate4d.core.cameras import Rig
from animate4d.core.errors import AssetError
from animate4d.core.hashing import slug
from animate4d.core.mesh import Mesh
from animate4d.data.schema import ClipMeta, encode_sample
from animate4d.metrics.magnitude import motion_magnitude
from animate4d.pipeline.captions import caption_of
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.views.blender import bake_with_blender, render_with_blender
from animate4d.views.clip import (
    LabelledClip,
    frame_times,
    mesh_of,
    pose_vertices,
    render_labelled_clip,
    to_video,
)
from animate4d.views.rays import Cameras

SAYS_NOTHING = frozenset({"scene", "model", "mesh", "object", "untitled"})
"""File names that exporters and model sites give whatever is inside. Held-out objects are told apart by name, so a
collection of `*/scene.gltf` would count as one object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipOutcome:
    """What became of one animation.

    Attributes:
        key: of the sample.
        animation: name of the clip.
        members: of the sample; None when it was left out.
        reason: why it was left out, one line; empty otherwise.
        doubt: why it should be looked at although it is in, one line; empty otherwise.
    """

    key: str
    animation: str
    members: dict[str, bytes] | None = None
    reason: str = ""
    doubt: str = ""


def clip_samples(path: Path, options: ClipOptions, captions: Mapping[str, str] | None = None) -> Iterator[ClipOutcome]:
    """Render the animations of one asset, one at a time.

    About 0.5 CPU-seconds per clip of 16 views x 16 frames x 64 px.

    Args:
        path: a GLB or glTF file.
        options: what to render.
        captions: clip name or number -> caption; others are made from the names.

    Raises:
        AssetError: the file cannot be read, or has no animations.
    """
    first = load_asset(path)
    mesh_of(first)
    if not first.clips:
        raise AssetError(f"{path}: has no animations")
    for clip, entry in enumerate(first.clips):
        key = sample_key(path, first.source_sha256, clip)
        caption = next(
            (captions[name] for name in (entry.name, str(clip)) if captions and name in captions),
            caption_of(object_name(path), entry.name),
        )
        try:
            yield render_sample(load_asset(path, clip=clip), clip, key, caption, options)
        except AssetError as error:
            yield ClipOutcome(key=key, animation=entry.name, reason=str(error))


def sample_key(path: Path, sha256: str, clip: int, start: float = 0.0) -> str:
    """Return the stable id of an object's animation from a start time: name, content, number, milliseconds."""
    return f"{slug(object_name(path))}-{sha256[:8]}-{clip:02d}-{round(start * 1000):05d}"


def object_name(path: Path) -> str:
    """Return what a file's object is called: its own name, or its folder's where the file's says nothing."""
    folder = path.absolute().parent.name
    return folder if folder and path.stem.lower() in SAYS_NOTHING else path.stem


def render_sample(asset: Asset, clip: int, key: str, caption: str, options: ClipOptions) -> ClipOutcome:
    """Render and encode one animation, or say why it is left out.

    Args:
        asset: loaded in the pose of that clip's first frame.
        clip: its number.
        key: of the sample.
        caption: of the sample.
        options: what to render.
    """
    entry, mesh = asset.clips[clip], mesh_of(asset)
    if not entry.duration > 0:
        return ClipOutcome(key=key, animation=entry.name, reason="the animation has no duration")
    times = frame_times(entry.duration, options.frames, options.max_seconds)
    vertices = pose_vertices(asset, clip, times)
    motion = motion_share(vertices[:, np.unique(mesh.faces)])
    if motion < options.min_motion:
        reason = f"moves {motion:.2%} of the object's diameter on average, less than {options.min_motion:.2%}"
        return ClipOutcome(key=key, animation=entry.name, reason=reason)
    rig = Rig.even(options.views, elevation_deg=options.elevation_deg)
    outside = outside_share(vertices, mesh.faces, rig)
    if outside > options.max_outside:
        return ClipOutcome(key=key, animation=entry.name, reason=f"{outside:.0%} of the object leaves the picture")
    rendered = render_lit(mesh, vertices, times, rig, options)
    meta = ClipMeta(
        id=key,
        object=asset.name,
        animation=entry.name,
        caption=caption,
        licence=options.licence,
        fps=options.frames / min(entry.duration, options.max_seconds),
        times=times,
        camera_to_world=rendered.video.camera_to_world,
        intrinsics=rendered.video.intrinsics,
        size=options.size,
        source_sha256=asset.source_sha256,
        generator=f"animate4d/{__version__}" + (f" {options.light}" if options.light != "own" else ""),
        motion=round(motion, 6),
        magnitude=round(motion_magnitude(rendered.video).picture, 8),
    )
    members = encode_sample(rendered.video, meta, rendered.tracks, rendered.flow, rendered.flow_mask)
    return ClipOutcome(key=key, animation=entry.name, members=members)


def render_lit(mesh: Mesh, vertices: np.ndarray, times: np.ndarray, rig: Rig, options: ClipOptions) -> LabelledClip:
    """Render `[T, N, 3]` poses under the light that is asked for.

    Raises:
        ToolError: Blender is wanted and missing, or fails.
    """
    program, seconds, shading = options.blender, 60 * options.blender_minutes, None
    shown = mesh
    if options.light == "baked" and program is not None:
        shown = bake_with_blender(program, mesh, vertices[0], samples=options.blender_samples, seconds=seconds)
        shading = np.ones((len(mesh.faces), 2, 3), np.float32)
    rendered = render_labelled_clip(shown, vertices, times, rig, options.size, samples=options.samples, shading=shading)
    if options.light == "cycles" and program is not None:
        cameras = Cameras.of(rendered.video.camera_to_world, rendered.video.intrinsics, options.size)
        rgba = render_with_blender(program, mesh, vertices, cameras, samples=options.blender_samples, seconds=seconds)
        rendered = replace(rendered, video=to_video(rgba, cameras, times))
    return rendered


def motion_share(vertices: np.ndarray) -> float:
    """Return the mean displacement of `[T, N, 3]` vertices from frame 0, as a share of the object's diameter."""
    shift = np.linalg.norm(vertices[1:] - vertices[0], axis=-1)
    return float(shift.mean() / (2 * CANONICAL_RADIUS))


def outside_share(vertices: np.ndarray, faces: np.ndarray, rig: Rig) -> float:
    """Return which share of the surface is out of the picture in the worst frame, averaged over views."""
    cameras = Cameras.of(rig.camera_to_world(), rig.intrinsics(1), 1)
    worst = 0.0
    for pose in vertices:
        corners = pose[faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        xy, depth = cameras.project_all(corners.mean(1))
        outside = ((xy < 0) | (xy > 1)).any(-1) | (depth <= 0)
        worst = max(worst, float((outside * area).sum() / (rig.views * max(area.sum(), 1e-12))))
    return worst
