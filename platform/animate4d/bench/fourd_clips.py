"""Animations whose motion can be told from pictures, chosen evenly over the objects."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from animate4d.bench.fourd_config import BenchFourDConfig
from animate4d.bench.trackers_clips import choose_clips, find_assets
from animate4d.core.errors import AssetError
from animate4d.core.hashing import slug
from animate4d.core.mesh import Mesh
from animate4d.metrics.motion import vertex_error
from animate4d.views.clip import frame_times, mesh_of, pose_vertices

TURNED_SHARE = 0.01
"""Share of the surface that may turn too far: a bolt does not spoil a clip, a wheel does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionClip:
    """An animation and its true poses.

    Attributes:
        name: object and animation, safe as a file name.
        asset_sha256: of the file.
        mesh: in the pose of frame 0.
        vertices: `[T, N, 3]`.
        times: `[T]` seconds.
    """

    name: str
    asset_sha256: str
    mesh: Mesh
    vertices: np.ndarray
    times: np.ndarray


def motion_clips(config: BenchFourDConfig) -> Iterator[MotionClip]:
    """Yield at most `limit` clips; those left out are named with the reason on standard error."""
    return islice(_usable_clips(config), config.limit)


def _usable_clips(config: BenchFourDConfig) -> Iterator[MotionClip]:
    for asset, number in choose_clips(find_assets(config.assets), config.seed):
        entry = asset.clips[number]
        name = slug(f"{asset.path.stem} {entry.name}")
        try:
            mesh = mesh_of(asset)
        except AssetError as error:
            _leave_out(name, str(error))
            continue
        times = frame_times(entry.duration, config.frames, config.max_seconds)
        vertices = pose_vertices(asset, number, times)
        motion = vertex_error(vertices[:1].repeat(len(vertices), 0), vertices).static
        if not motion >= config.least_motion:
            _leave_out(name, f"moves {motion:.2%} of its size")
            continue
        turned = turned_share(vertices, mesh.faces, config.largest_turn)
        if turned > TURNED_SHARE:
            _leave_out(name, f"{turned:.0%} of its surface turns further than {config.largest_turn:g} degrees")
            continue
        yield MotionClip(name=name, asset_sha256=asset.source_sha256, mesh=mesh, vertices=vertices, times=times)


def turned_share(vertices: np.ndarray, faces: np.ndarray, degrees: float) -> float:
    """Return the share of the surface that in some frame is turned further than this from its first pose.

    Args:
        vertices: `[T, N, 3]` poses.
        faces: `[F, 3]`; those without area count as not turned.
        degrees: up to 180.
    """
    first, area = _axes(vertices[0], faces)
    cosine = np.ones(len(faces))
    for pose in vertices[1:]:
        axes, _ = _axes(pose, faces)
        # the trace of a rotation is 1 + 2 cos of its angle
        trace = np.einsum("fij,fij->f", axes, first)
        cosine = np.minimum(cosine, np.where(area > 0, (trace - 1) / 2, 1.0))
    return float(area[cosine < np.cos(np.radians(degrees))].sum() / max(area.sum(), 1e-30))


def _axes(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return orthonormal axes `[F, 3, 3]` of triangles, and their areas `[F]`."""
    corners = vertices[faces].astype(np.float64)
    edge, side = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(edge, side)
    length = np.linalg.norm(normal, axis=1)
    first = edge / np.maximum(np.linalg.norm(edge, axis=1), 1e-30)[:, None]
    third = normal / np.maximum(length, 1e-30)[:, None]
    return np.stack([first, np.cross(third, first), third], 1), length / 2


def _leave_out(name: str, reason: str) -> None:
    sys.stderr.write(f"left out: {name}: {reason}\n")
