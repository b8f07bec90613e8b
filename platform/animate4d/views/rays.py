"""What each camera ray meets: triangle, barycentrics, depth and normal, by Embree.

Directions are scaled so that their component along the viewing axis is 1: the ray parameter *is* the depth. About
0.1 microseconds per ray and 2 ms per 2,000 triangles to build the scene of one pose, on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

OpaqueTest = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(face [n], barycentric [n, 2]) -> [n] bool: False where the surface lets the ray through."""

MAX_LAYERS = 8
"""Transparent layers a ray passes before it counts as a miss; foliage cards rarely stack deeper."""

STEP = 1e-5
"""How far behind a transparent point the ray starts again, as a share of the depth; float32 holds 1e-7."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hits:
    """What n rays met.

    Attributes:
        face: `[n]` int32, -1 for a miss.
        barycentric: `[n, 2]` float32 weights of the triangle's second and third corner.
        depth: `[n]` float32 along the viewing axis, 0 for a miss.
        normal: `[n, 3]` float32 geometric unit normal by the triangle's winding, 0 for a miss.
    """

    face: np.ndarray
    barycentric: np.ndarray
    depth: np.ndarray
    normal: np.ndarray


class RayCaster:
    """One pose of a mesh, ready to be hit from any side (no culling). A new pose needs a new caster."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, opaque: OpaqueTest | None = None) -> None:
        """Build the scene.

        Args:
            vertices: `[N, 3]` finite.
            faces: `[F, 3]`, F >= 1.
            opaque: test for surfaces with holes; None where every triangle is solid.
        """
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32))
        self._opaque = opaque

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """Find the first solid surface along each ray.

        Args:
            origins: `[n, 3]`.
            directions: `[n, 3]`, any length; depth is counted in this length.
        """
        origins = np.ascontiguousarray(origins, np.float32)
        directions = np.ascontiguousarray(directions, np.float32)
        if not len(origins):
            return Hits(
                face=np.empty(0, np.int32),
                barycentric=np.empty((0, 2), np.float32),
                depth=np.empty(0, np.float32),
                normal=np.empty((0, 3), np.float32),
            )
        raw = self._scene.run(origins, directions, output=1)
        face = raw["primID"]
        barycentric = np.stack([raw["u"], raw["v"]], axis=-1)
        depth = np.where(face >= 0, raw["tfar"], np.float32(0.0))
        normal = raw["Ng"]
        if self._opaque is not None:
            self._pass_through(origins, directions, face, barycentric, depth, normal)
        length = np.sqrt(np.einsum("ni,ni->n", normal, normal))
        normal /= np.maximum(length, np.float32(1e-30))[:, None]
        return Hits(face=face, barycentric=barycentric, depth=depth, normal=normal)

    def _pass_through(
        self,
        origins: np.ndarray,
        directions: np.ndarray,
        face: np.ndarray,
        barycentric: np.ndarray,
        depth: np.ndarray,
        normal: np.ndarray,
    ) -> None:
        """Send rays that met a hole on to the next surface; changes the four result arrays in place."""
        assert self._opaque is not None
        active = np.flatnonzero(face >= 0)
        for layer in range(MAX_LAYERS):
            active = active[~self._opaque(face[active], barycentric[active])]
            if not len(active):
                return
            start = depth[active] * np.float32(1 + STEP)
            if layer == MAX_LAYERS - 1:
                break
            moved = origins[active] + start[:, None] * directions[active]
            raw = self._scene.run(moved, np.ascontiguousarray(directions[active]), output=1)
            hit = raw["primID"] >= 0
            face[active], normal[active] = raw["primID"], raw["Ng"]
            barycentric[active, 0], barycentric[active, 1] = raw["u"], raw["v"]
            depth[active] = np.where(hit, start + raw["tfar"], np.float32(0.0))
            active = active[hit]
        face[active], depth[active], normal[active], barycentric[active] = -1, 0.0, 0.0, 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cameras:
    """V cameras with their rays ready: built once, used for every pose.

    Attributes:
        camera_to_world: `[V, 4, 4]` float64.
        intrinsics: `[V, 3, 3]` float64 for `size` pixels.
        size: height and width in pixels.
        origins: `[V, 3]` float32.
        corner: `[V, 3]` float32 direction of pixel position (0, 0).
        across: `[V, 3]` float32 change of direction per pixel to the right.
        down: `[V, 3]` float32 change of direction per pixel down.
    """

    camera_to_world: np.ndarray
    intrinsics: np.ndarray
    size: int
    origins: np.ndarray
    corner: np.ndarray
    across: np.ndarray
    down: np.ndarray

    @classmethod
    def of(cls, camera_to_world: np.ndarray, intrinsics: np.ndarray, size: int) -> Cameras:
        """Prepare the rays of `[V, 4, 4]` OpenGL camera-to-world matrices and `[V, 3, 3]` pinhole matrices."""
        # OpenGL columns are right, up, backward; pixels run right and down.
        to_world = camera_to_world[:, :3, :3] * np.array([1.0, -1.0, -1.0])
        unit = to_world @ np.linalg.inv(intrinsics)
        return cls(
            camera_to_world=camera_to_world,
            intrinsics=intrinsics,
            size=size,
            origins=camera_to_world[:, :3, 3].astype(np.float32),
            corner=unit[:, :, 2].astype(np.float32),
            across=unit[:, :, 0].astype(np.float32),
            down=unit[:, :, 1].astype(np.float32),
        )

    @property
    def views(self) -> int:
        """Number of cameras V."""
        return len(self.origins)

    def rays(self, view: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return origins and directions `[n, 3]` float32 through pixel positions `xy [n, 2]` of cameras `view [n]`."""
        xy = xy.astype(np.float32)
        directions = self.corner[view] + xy[:, :1] * self.across[view] + xy[:, 1:] * self.down[view]
        return self.origins[view], directions

    def project_all(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project `[N, 3]` points into every camera; returns xy `[V, N, 2]` float32 pixels and depth `[V, N]`.

        One matrix product for all views: ten times faster than `project` for the vertices of a mesh.
        """
        rotation = self.camera_to_world[:, :3, :3] * np.array([1.0, -1.0, -1.0])
        image = self.intrinsics @ np.swapaxes(rotation, -1, -2)
        offset = -(image @ self.camera_to_world[:, :3, 3:])[..., 0]
        product = points.astype(np.float32) @ image.reshape(-1, 3).T.astype(np.float32)
        homogeneous = product.reshape(len(points), -1, 3).transpose(1, 0, 2) + offset[:, None].astype(np.float32)
        depth = homogeneous[..., 2]
        return homogeneous[..., :2] / np.where(depth > 1e-6, depth, np.float32(1e-6))[..., None], depth

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project `[V, n, 3]` points, each into its own camera; returns xy `[V, n, 2]` pixels and depth `[V, n]`."""
        axes = self.camera_to_world[:, :3, :3] * np.array([1.0, -1.0, -1.0])
        in_camera = (points - self.camera_to_world[:, None, :3, 3]) @ axes
        image = in_camera @ np.swapaxes(self.intrinsics, -1, -2)
        depth = in_camera[..., 2]
        # Behind the camera there is no picture of a point; a far-away position keeps it out of every frame.
        safe = np.where(depth > 1e-6, depth, 1e-6)
        return image[..., :2] / safe[..., None], depth
