"""Pictures of a posed mesh from every camera, and the surface point behind each pixel.

Colour and coverage are averages over samples x samples rays per pixel; the surface is what the ray through the pixel's
centre meets. All views of a pose share one call into Embree: a 16-view picture at 64 px costs about 20 ms of CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from animate4d.core.cameras import Rig
from animate4d.core.mesh import Mesh
from animate4d.views.rays import Cameras, Hits, RayCaster
from animate4d.views.shading import Surfacer, bake_shading, to_srgb

UNSEEN = 128
"""Colour stored where nothing is covered: the grey of the background, so that filters do not bleed black."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """The surface point at the centre of each pixel.

    Attributes:
        face: `[V, H, W]` int32, -1 where the object is not met.
        barycentric: `[V, H, W, 2]` float32 weights of the face's second and third corner.
        depth: `[V, H, W]` float32 along the viewing axis, 0 where missed.
        normal: `[V, H, W, 3]` float32 geometric unit normal in world axes, towards the camera; 0 where missed.
    """

    face: np.ndarray
    barycentric: np.ndarray
    depth: np.ndarray
    normal: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedViews:
    """Pictures of one pose.

    Attributes:
        rgba: `[V, H, W, 4]` uint8 sRGB with straight alpha; grey where alpha is 0.
        surface: behind the pixel centres.
    """

    rgba: np.ndarray
    surface: Surface


class Renderer:
    """Renders many poses of one mesh with the same cameras and the same baked light."""

    def __init__(self, mesh: Mesh, cameras: Cameras, *, samples: int, shading: np.ndarray) -> None:
        """Prepare everything that does not depend on the pose.

        Args:
            mesh: triangles and materials.
            cameras: V of them.
            samples: rays per pixel side; 1 takes the pixel centres only.
            shading: `[F, 2, 3]` from `bake_shading`.
        """
        pixels_per_unit = cameras.intrinsics[0, 0, 0] / np.linalg.norm(cameras.origins[0])
        self.mesh = mesh
        self.cameras = cameras
        self._samples = samples
        self._used = np.unique(mesh.faces)
        self._surfacer = Surfacer(mesh, shading, texels_per_unit=float(pixels_per_unit) * samples)

    def caster(self, vertices: np.ndarray) -> RayCaster:
        """Build the scene of one pose `[N, 3]`."""
        return RayCaster(vertices, self.mesh.faces, self._surfacer.opaque)

    def render(self, vertices: np.ndarray, caster: RayCaster) -> RenderedViews:
        """Render one pose from all cameras.

        Args:
            vertices: `[N, 3]`, the pose the caster was built from.
            caster: of this pose.
        """
        cameras, size = self.cameras, self.cameras.size
        corners, boxes = self._corner_pixels(vertices)
        centres = np.flatnonzero(boxes)
        hits, directions = self._cast(caster, centres, (0.5, 0.5))
        surface = self._surface(centres, hits, directions)
        touched = surface.face >= 0
        if self._samples == 1:
            chosen = np.flatnonzero(touched)
            at = np.searchsorted(centres, chosen)
            colors = self._colors(hits, directions, at)
            coverage = np.ones(len(chosen), np.float32)
        else:
            # Rays between centres can only meet what a neighbour's centre met, or what is smaller than a pixel.
            near = (touched | corners).astype(np.uint8)
            near = np.stack([cv2.dilate(view, np.ones((3, 3), np.uint8)) for view in near])
            chosen = np.flatnonzero(near)
            colors, coverage = self._average(caster, chosen)
        rgba = np.full((cameras.views * size * size, 4), (UNSEEN, UNSEEN, UNSEEN, 0), np.uint8)
        seen = coverage > 0
        rgba[chosen[seen], :3] = np.round(255 * to_srgb(colors[seen]))
        rgba[chosen[seen], 3] = np.round(255 * coverage[seen])
        return RenderedViews(rgba=rgba.reshape(cameras.views, size, size, 4), surface=surface)

    def _corner_pixels(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `[V, H, W]` bool: pixels that hold a vertex, and pixels inside the box around all of them."""
        cameras, size = self.cameras, self.cameras.size
        xy, depth = cameras.project_all(vertices[self._used])
        column, row = np.floor(np.clip(xy, -1, size)).astype(np.intp).transpose(2, 0, 1)
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size) & (depth > 0)
        corners = np.zeros((cameras.views, size, size), bool)
        view = np.broadcast_to(np.arange(cameras.views)[:, None], column.shape)
        corners[view[inside], row[inside], column[inside]] = True
        boxes = np.zeros_like(corners)
        for number in range(cameras.views):
            if (depth[number] <= 0).any():
                boxes[number] = True  # the box around points behind the camera means nothing
                continue
            left, right = max(column[number].min(), 0), column[number].max() + 1
            top, bottom = max(row[number].min(), 0), row[number].max() + 1
            boxes[number, top:bottom, left:right] = True
        return corners, boxes

    def _cast(self, caster: RayCaster, pixels: np.ndarray, offset: tuple[float, float]) -> tuple[Hits, np.ndarray]:
        """Cast one ray per flat pixel index at an offset from the pixel's top-left corner."""
        size = self.cameras.size
        view, rest = np.divmod(pixels, size * size)
        row, column = np.divmod(rest, size)
        xy = np.stack([column, row], axis=-1).astype(np.float32) + np.asarray(offset, np.float32)
        origins, directions = self.cameras.rays(view, xy)
        return caster.cast(origins, directions), directions

    def _surface(self, pixels: np.ndarray, hits: Hits, directions: np.ndarray) -> Surface:
        views, size = self.cameras.views, self.cameras.size
        face = np.full(views * size * size, -1, np.int32)
        barycentric = np.zeros((len(face), 2), np.float32)
        depth = np.zeros(len(face), np.float32)
        normal = np.zeros((len(face), 3), np.float32)
        away = np.einsum("ni,ni->n", hits.normal, directions) > 0
        face[pixels], depth[pixels], barycentric[pixels] = hits.face, hits.depth, hits.barycentric
        normal[pixels] = np.where(away[:, None], -hits.normal, hits.normal)
        shape = (views, size, size)
        return Surface(
            face=face.reshape(shape),
            barycentric=barycentric.reshape(*shape, 2),
            depth=depth.reshape(shape),
            normal=normal.reshape(*shape, 3),
        )

    def _colors(self, hits: Hits, directions: np.ndarray, at: np.ndarray) -> np.ndarray:
        back = np.einsum("ni,ni->n", hits.normal[at], directions[at]) > 0
        return self._surfacer.colors(hits.face[at], hits.barycentric[at], back)

    def _average(self, caster: RayCaster, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean linear colour `[n, 3]` of the rays that hit, and the share `[n]` of those that do."""
        total = np.zeros((len(pixels), 3), np.float32)
        count = np.zeros(len(pixels), np.float32)
        steps = (np.arange(self._samples) + 0.5) / self._samples
        for offset in ((x, y) for y in steps for x in steps):
            hits, directions = self._cast(caster, pixels, offset)
            at = np.flatnonzero(hits.face >= 0)
            total[at] += np.minimum(self._colors(hits, directions, at), 1.0)
            count[at] += 1.0
        return total / np.maximum(count, 1.0)[:, None], count / self._samples**2


def render_views(
    mesh: Mesh, vertices: np.ndarray, rig: Rig, size: int, *, samples: int = 2, shading: np.ndarray | None = None
) -> RenderedViews:
    """Render one pose from every camera of a rig.

    Args:
        mesh: triangles and materials.
        vertices: `[N, 3]` canonical positions.
        rig: V cameras.
        size: pixels per side.
        samples: rays per pixel side.
        shading: light from `bake_shading`, for a pose other than this one; None bakes it from this pose.
    """
    cameras = Cameras.of(rig.camera_to_world(), rig.intrinsics(size), size)
    light = bake_shading(mesh, vertices) if shading is None else shading
    renderer = Renderer(mesh, cameras, samples=samples, shading=light)
    return renderer.render(vertices, renderer.caster(vertices))
