"""A moving object seen by the rig: video, exact tracks and exact flow in one pass over the poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from animate4d.assets.asset import Asset
from animate4d.core.cameras import Rig
from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import AssetError
from animate4d.core.mesh import Mesh
from animate4d.core.tracks import Tracks
from animate4d.tracks.queries import grid_queries
from animate4d.views.raycast import Renderer, Surface
from animate4d.views.rays import Cameras
from animate4d.views.shading import bake_shading
from animate4d.views.tracks import TRACKER, backward_flow, find_anchors, track_frame


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledClip:
    """A clip with everything a shard stores.

    Attributes:
        video: V views, T frames.
        tracks: a 15 x 15 grid of frame 0 inside the object (finer where an object is thin), followed exactly.
        flow: `[V, T, h, w, 2]` float16 backward flow to frame 0, in half images; h = w = size // 2.
        flow_mask: `[V, T, h, w]` uint8: 0 off the object, 255 seen in frame 0 too, 128 hidden there.
    """

    video: MultiViewVideo
    tracks: Tracks
    flow: np.ndarray
    flow_mask: np.ndarray


def frame_times(duration: float, frames: int, max_seconds: float) -> np.ndarray:
    """Return `[frames]` evenly spaced seconds over a clip, at most `max_seconds`; the end is left out, as in a loop."""
    return np.arange(frames) * (min(duration, max_seconds) / frames)


def render_clip(
    asset: Asset, clip: int, times: np.ndarray, rig: Rig, size: int, *, samples: int = 2
) -> tuple[MultiViewVideo, list[Surface], np.ndarray]:
    """Render one animation of an asset.

    Light is baked in the first frame and moves with the surface. The surfaces of all frames stay in memory: 28 bytes
    per pixel; use `render_labelled_clip` where only tracks and flow are needed.

    Args:
        asset: a mesh with animations.
        clip: number of the animation.
        times: `[T]` seconds.
        rig: V cameras.
        size: pixels per side.
        samples: rays per pixel side.

    Returns:
        The video, one `Surface` per frame, and the posed vertices `[T, N, 3]` float32.
    """
    mesh = mesh_of(asset)
    vertices = pose_vertices(asset, clip, times)
    cameras = Cameras.of(rig.camera_to_world(), rig.intrinsics(size), size)
    renderer = Renderer(mesh, cameras, samples=samples, shading=bake_shading(mesh, vertices[0]))
    frames = [renderer.render(pose, renderer.caster(pose)) for pose in vertices]
    video = to_video(np.stack([frame.rgba for frame in frames], axis=1), cameras, times)
    return video, [frame.surface for frame in frames], vertices


def render_poses(
    mesh: Mesh,
    vertices: np.ndarray,
    times: np.ndarray,
    rigs: Sequence[Rig],
    size: int,
    *,
    samples: int = 2,
    lamps: bool = False,
) -> MultiViewVideo:
    """Render a sequence of poses `[T, N, 3]` from the cameras of several rigs.

    Lit at rest; with `lamps`, which stand still, every pose is lit anew, so that surfaces change colour as they turn.
    """
    places = np.concatenate([rig.camera_to_world() for rig in rigs])
    lenses = np.concatenate([rig.intrinsics(size) for rig in rigs])
    cameras = Cameras.of(places, lenses, size)
    renderer = Renderer(mesh, cameras, samples=samples, shading=bake_shading(mesh, mesh.vertices))
    frames = []
    for pose in vertices:
        if lamps:
            renderer = Renderer(mesh, cameras, samples=samples, shading=bake_shading(mesh, pose))
        frames.append(renderer.render(pose, renderer.caster(pose)).rgba)
    return to_video(np.stack(frames, axis=1), cameras, times)


def render_labelled_clip(
    mesh: Mesh,
    vertices: np.ndarray,
    times: np.ndarray,
    rig: Rig,
    size: int,
    *,
    samples: int = 2,
    shading: np.ndarray | None = None,
) -> LabelledClip:
    """Render a sequence of poses with exact tracks and flow; memory holds two scenes at a time.

    Args:
        mesh: triangles and materials.
        vertices: `[T, N, 3]` poses.
        times: `[T]` seconds.
        rig: V cameras.
        size: pixels per side, even.
        samples: rays per pixel side.
        shading: light `[F, 2, 3]`; None bakes it from the first pose.
    """
    cameras = Cameras.of(rig.camera_to_world(), rig.intrinsics(size), size)
    light = bake_shading(mesh, vertices[0]) if shading is None else shading
    renderer = Renderer(mesh, cameras, samples=samples, shading=light)
    first_caster = renderer.caster(vertices[0])
    rgba = np.empty((rig.views, len(times), size, size, 4), np.uint8)
    flow = np.empty((rig.views, len(times), size // 2, size // 2, 2), np.float16)
    mask = np.empty(flow.shape[:-1], np.uint8)
    positions, visibility = [], []
    for frame, pose in enumerate(vertices):
        caster = first_caster if frame == 0 else renderer.caster(pose)
        rgba[:, frame] = renderer.render(pose, caster).rgba
        if frame == 0:
            anchors = find_anchors(first_caster, cameras, *grid_queries(rgba[:, 0, ..., 3]))
        xy, visible = track_frame(anchors, pose, mesh.faces, caster, cameras)
        positions.append(xy)
        visibility.append(visible)
        flow[:, frame], mask[:, frame] = backward_flow(
            pose, vertices[0], mesh.faces, caster, first_caster, cameras, size // 2
        )
    tracks = Tracks(xy=np.stack(positions, axis=1), visible=np.stack(visibility, axis=1), tracker=TRACKER)
    return LabelledClip(video=to_video(rgba, cameras, times), tracks=tracks, flow=flow, flow_mask=mask)


def mesh_of(asset: Asset) -> Mesh:
    """Return the mesh of an asset.

    Raises:
        AssetError: it is a cloud of splats.
    """
    if asset.mesh is None:
        raise AssetError(f"{asset.path}: holds Gaussian splats; only meshes have animations to render")
    return asset.mesh


def pose_vertices(asset: Asset, clip: int, times: np.ndarray) -> np.ndarray:
    """Return `[T, N, 3]` float32 vertices of an animation at the given seconds."""
    return np.stack([asset.vertices_at(clip, float(time)) for time in times])


def to_video(rgba: np.ndarray, cameras: Cameras, times: np.ndarray) -> MultiViewVideo:
    """Wrap `[V, T, H, W, 4]` uint8 frames with their cameras."""
    return MultiViewVideo(
        rgb=rgba[..., :3],
        alpha=rgba[..., 3],
        camera_to_world=cameras.camera_to_world,
        intrinsics=cameras.intrinsics,
        times=np.asarray(times, np.float64),
    )
