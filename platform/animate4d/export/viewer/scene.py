"""What the viewer shows, and how it is made small: 16-bit places on one grid, 8-bit turns, half-precision sizes.

One grid serves splats and mesh: its step is 1/65535 of the longest side of the box around everything at all times, a
hundredth of a pixel.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from animate4d.core.cameras import Rig
from animate4d.core.harmonics import SH0
from animate4d.core.mesh import Material, Mesh
from animate4d.core.motion import SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.views.shading import BLEND_CUTOFF, REFLECTANCE, bake_shading

MAX_FRAMES = 256
"""Layers of a texture that every WebGL 2 has."""

MAX_TEXTURE_PX = 1024
FILM_PX = 160
"""Pixels of the input views: a thumb's width on a phone."""

START_TURN_DEG, START_DISTANCE = 35.0, 0.85
"""The first look: between the front and a side, nearer than the input views by this share."""

TRAILS = 160
CLOSED = 1e-4
"""A clip whose last frame is within this of its first, in canonical units, is one that returns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewerScene:
    """A moving object and the video its motion was fitted to. Everything is in the canonical frame.

    Attributes:
        title: what it does.
        origin: where it came from: asset, clip.
        times: `[T]` seconds, evenly spaced, T from 2 to 256.
        rig: cameras of the video.
        video: `[V, F, H, W, 3]` uint8 on grey.
        video_frames: `[T]` which of its frames goes with each frame of the motion.
        video_name: what the video is.
        cloud: splats at frame 0; of their harmonics the page shows the constant one.
        splats: their trajectories.
        mesh: materials and triangles; None for an asset of splats alone.
        vertices: `[T, M, 3]` of the mesh.
    """

    title: str
    origin: str
    times: np.ndarray
    rig: Rig
    video: np.ndarray
    video_frames: np.ndarray
    video_name: str
    cloud: SplatCloud
    splats: SplatMotion
    mesh: Mesh | None = None
    vertices: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Places as integers: place = origin + unit * integer."""

    origin: np.ndarray
    unit: float

    @classmethod
    def around(cls, points: list[np.ndarray]) -> Grid:
        """Fit the grid to `[..., 3]` arrays of places."""
        low = np.min([array.reshape(-1, 3).min(0) for array in points], axis=0).astype(np.float64)
        high = np.max([array.reshape(-1, 3).max(0) for array in points], axis=0).astype(np.float64)
        return cls(origin=(low + high) / 2, unit=max(float((high - low).max()), 1e-6) / 65534)

    def integers(self, places: np.ndarray) -> np.ndarray:
        """Return the nearest int16 of `[..., 3]` places."""
        return np.round((places - self.origin) / self.unit).astype(np.int16)

    def places(self, integers: np.ndarray) -> np.ndarray:
        """Return the float64 places of integers."""
        return self.origin + self.unit * integers.astype(np.float64)


def describe_scene(scene: ViewerScene) -> tuple[dict[str, Any], dict[str, np.ndarray], set[str]]:
    """Return what the page says of the scene, its arrays, and the names of those that move.

    Raises:
        ValueError: too few or too many frames, or numbers that are not finite.
    """
    frames = len(scene.times)
    if not 2 <= frames <= MAX_FRAMES:
        raise ValueError(f"{frames} frames: the viewer shows 2 to {MAX_FRAMES}")
    means = scene.splats.means
    moving = [means] if scene.vertices is None else [means, scene.vertices]
    if not all(np.isfinite(array).all() for array in (*moving, scene.splats.quats, scene.cloud.scales)):
        raise ValueError("the motion is not finite")
    grid = Grid.around(moving)
    film, arrays = _film(scene.video)
    film["order"] = [int(frame) for frame in scene.video_frames]
    arrays |= _splats(scene, grid)
    facts: dict[str, Any] = {
        "frames": frames,
        "fps": (frames - 1) / max(float(scene.times[-1] - scene.times[0]), 1e-3),
        "closed": bool(np.abs(means[-1] - means[0]).max() < CLOSED),
        "origin": grid.origin.tolist(),
        "unit": grid.unit,
        "splats": len(scene.cloud.means),
        "fov": scene.rig.fov_deg,
        "cameras": [
            {
                "name": f"{azimuth:g}°",
                "azimuth": azimuth,
                "elevation": scene.rig.elevation_deg,
                "distance": scene.rig.distance,
            }
            for azimuth in scene.rig.azimuths_deg
        ],
        "start": {
            "azimuth": scene.rig.azimuths_deg[0] + START_TURN_DEG,
            "elevation": scene.rig.elevation_deg,
            "distance": scene.rig.distance * START_DISTANCE,
        },
        "film": film,
        "mesh": None,
    }
    names = {name for name in ("splatPlaces", "splatTurns", "splatScales", "splatColors") if len(arrays[name]) > 1}
    if scene.mesh is not None:
        assert scene.vertices is not None
        facts["mesh"], own = _mesh(scene.mesh, scene.vertices, grid)
        arrays |= own
        names.add("meshPlaces")
    return facts, arrays, names


def _splats(scene: ViewerScene, grid: Grid) -> dict[str, np.ndarray]:
    cloud, splats = scene.cloud, scene.splats
    scales = cloud.scales[None] if splats.scales is None else splats.scales
    paint = cloud.sh[None, :, 0] if splats.sh is None else splats.sh
    opacities = np.broadcast_to(cloud.opacities[:, None], (*paint.shape[:2], 1))
    colors = np.concatenate([0.5 + SH0 * paint, opacities], axis=2)
    return {
        "splatPlaces": grid.integers(splats.means),
        "splatTurns": np.round(127 * splats.quats).clip(-127, 127).astype(np.int8),
        "splatScales": scales.astype(np.float16).view(np.uint16),
        "splatColors": np.round(255 * colors.clip(0, 1)).astype(np.uint8),
        "trailRows": spread_rows(splats.means, TRAILS),
    }


def spread_rows(means: np.ndarray, count: int) -> np.ndarray:
    """Choose points `[count]` far from one another at frame 0 (farthest point sampling); `means` is `[T, N, 3]`."""
    points = means[0].astype(np.float64)
    chosen = [int(points[:, 2].argmax())]
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(distance.argmax()))
    return np.array(chosen, np.uint32)


def _mesh(mesh: Mesh, vertices: np.ndarray, grid: Grid) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return materials and arrays; corners become vertices where place, texture, colour and light agree."""
    light = bake_shading(mesh, vertices[0])
    brightest = float(light.max(initial=1e-6))
    order = np.argsort(mesh.face_material, kind="stable")
    corners = mesh.faces[order].reshape(-1)
    lights = np.round(light[order].transpose(0, 2, 1).reshape(-1, 2) / brightest * 65535).astype(np.uint16)
    rows, corner_row = np.unique(
        np.column_stack([corners.astype(np.int64), lights.astype(np.int64)]), axis=0, return_inverse=True
    )
    source, lights = rows[:, 0], rows[:, 1:].astype(np.uint16)
    material = np.zeros(len(rows), np.int64)
    material[corner_row.reshape(-1)] = np.repeat(mesh.face_material[order], 3)
    factor = np.array([entry.base_color for entry in mesh.materials])[material] * mesh.colors[source]
    factor[:, :3] = np.where(
        factor[:, :3] <= 0.0031308, 12.92 * factor[:, :3], 1.055 * factor[:, :3] ** (1 / 2.4) - 0.055
    )
    # Vertices that stand in one place at all times share their trajectory.
    tracks = np.ascontiguousarray(grid.integers(vertices[:, source]).transpose(1, 0, 2)).reshape(len(rows), -1)
    unique, place = np.unique(tracks, axis=0, return_inverse=True)
    arrays = {
        "meshPlaces": np.ascontiguousarray(unique.reshape(len(unique), len(vertices), 3).transpose(1, 0, 2)),
        "meshPlaceOfVertex": place.reshape(-1).astype(np.uint32),
        "meshUv": mesh.uv[source].astype(np.float32),
        "meshColors": np.round(255 * factor.clip(0, 1)).astype(np.uint8),
        "meshLights": lights,
        "meshFaces": corner_row.reshape(-1).astype(np.uint32),
    }
    parts: list[dict[str, Any]] = []
    pictures: list[str | None] = []
    counts = 3 * np.bincount(mesh.face_material, minlength=len(mesh.materials))
    for number, entry in enumerate(mesh.materials):
        if counts[number]:
            start = int(counts[:number].sum())
            parts.append(
                {"start": start, "count": int(counts[number]), "picture": len(pictures), "cutoff": _cutoff(entry)}
            )
            name = f"picture{number}" if entry.texture is not None else None
            pictures.append(name)
            if name is not None:
                assert entry.texture is not None
                arrays[name] = _webp(_shrunk(entry.texture, MAX_TEXTURE_PX), quality=88)
    facts = {
        "triangles": len(mesh.faces),
        "brightest": brightest,
        "mirrored": REFLECTANCE,
        "parts": parts,
        "pictures": pictures,
    }
    return facts, arrays


def _cutoff(material: Material) -> float:
    """Return the opacity below which a surface is not drawn, as `views.shading` has it."""
    if material.alpha_mode == "OPAQUE":
        return -1.0
    return material.alpha_cutoff if material.alpha_mode == "MASK" else BLEND_CUTOFF


def _film(video: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the input views as one picture: a grid of cells, view after view, frame after frame."""
    views, frames = video.shape[:2]
    columns = math.ceil(math.sqrt(views * frames))
    sheet = np.zeros((-(-views * frames // columns) * FILM_PX, columns * FILM_PX, 3), np.uint8)
    for cell, frame in enumerate(video.reshape(-1, *video.shape[2:])):
        top, left = cell // columns * FILM_PX, cell % columns * FILM_PX
        small = cv2.resize(frame, (FILM_PX, FILM_PX), interpolation=cv2.INTER_AREA)
        sheet[top : top + FILM_PX, left : left + FILM_PX] = small
    return {"size": FILM_PX, "frames": frames, "columns": columns}, {"film": _webp(sheet, quality=80)}


def _shrunk(texture: np.ndarray, side: int) -> np.ndarray:
    height, width = texture.shape[:2]
    share = side / max(height, width)
    if share >= 1:
        return texture
    return cv2.resize(
        texture, (max(1, round(width * share)), max(1, round(height * share))), interpolation=cv2.INTER_AREA
    )


def _webp(picture: np.ndarray, *, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", quality=quality, method=4, exact=True)
    return np.frombuffer(stream.getvalue(), np.uint8)
