"""Pinhole cameras on an orbit around the origin.

World is z-up and right-handed, azimuth 0 lies on +x and grows counter-clockwise seen from above. Camera axes are
OpenGL: the columns of the rotation are right, up and minus-forward. Pixel centres are at half-integers: that of the
top-left pixel is (0.5, 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from animate4d.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Rig:
    """V cameras looking at the origin from one elevation.

    Attributes:
        azimuths_deg: one azimuth per view, degrees.
        elevation_deg: degrees above the horizon.
        distance: from the origin, in canonical units (an object fits a sphere of radius 0.8).
        fov_deg: vertical field of view, degrees.
    """

    azimuths_deg: tuple[float, ...] = (0.0, 90.0, 180.0, 270.0)
    elevation_deg: float = 15.0
    distance: float = 3.0
    fov_deg: float = 40.0

    def __post_init__(self) -> None:
        if not self.azimuths_deg:
            raise ConfigError("rig.azimuths_deg is empty: give at least one view")
        if not 0.0 < self.fov_deg < 180.0:
            raise ConfigError(f"rig.fov_deg is {self.fov_deg}: expected 0 < fov_deg < 180")
        if not self.distance > 0.0:
            raise ConfigError(f"rig.distance is {self.distance}: expected a positive number")
        if not -90.0 < self.elevation_deg < 90.0:
            raise ConfigError(f"rig.elevation_deg is {self.elevation_deg}: expected -90 < elevation_deg < 90")

    @classmethod
    def even(cls, views: int, *, start_deg: float = 0.0, elevation_deg: float = 15.0) -> Rig:
        """Spread `views` cameras evenly over the circle, the first at `start_deg`."""
        azimuths = tuple((start_deg + 360.0 * view / views) % 360.0 for view in range(views))
        return cls(azimuths_deg=azimuths, elevation_deg=elevation_deg)

    @property
    def views(self) -> int:
        """Number of cameras V."""
        return len(self.azimuths_deg)

    def camera_to_world(self) -> np.ndarray:
        """Return `[V, 4, 4]` float64 camera-to-world matrices (OpenGL camera axes)."""
        return np.stack([orbit_camera(a, self.elevation_deg, self.distance) for a in self.azimuths_deg])

    def intrinsics(self, size: int) -> np.ndarray:
        """Return `[V, 3, 3]` float64 pinhole matrices for square images of `size` pixels."""
        focal = 0.5 * size / math.tan(math.radians(self.fov_deg) / 2)
        matrix = np.array([[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]])
        return np.repeat(matrix[None], self.views, axis=0)


def orbit_camera(azimuth_deg: float, elevation_deg: float, distance: float) -> np.ndarray:
    """Return the `[4, 4]` camera-to-world matrix of a camera on the orbit, looking at the origin, up along +z."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    backward = np.array(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    matrix = np.eye(4)
    matrix[:3, 0] = right
    matrix[:3, 1] = np.cross(backward, right)
    matrix[:3, 2] = backward
    matrix[:3, 3] = distance * backward
    return matrix


def world_to_camera_cv(camera_to_world: np.ndarray) -> np.ndarray:
    """Turn `[..., 4, 4]` OpenGL camera-to-world matrices into OpenCV world-to-camera (x right, y down, z forward)."""
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    return np.linalg.inv(camera_to_world @ flip)


def project_points(
    points: np.ndarray, camera_to_world: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Project world points into every view.

    Args:
        points: `[N, 3]` world positions.
        camera_to_world: `[V, 4, 4]`.
        intrinsics: `[V, 3, 3]`.

    Returns:
        xy `[V, N, 2]` in pixels (pixel centres at half-integers) and depth `[V, N]` along the viewing axis.
    """
    view = world_to_camera_cv(camera_to_world)
    in_camera = np.einsum("vij,nj->vni", view[:, :3, :3], points) + view[:, None, :3, 3]
    depth = in_camera[..., 2]
    image = np.einsum("vij,vnj->vni", intrinsics, in_camera)
    return image[..., :2] / np.where(np.abs(depth) < 1e-9, 1e-9, depth)[..., None], depth
