"""What is animated, a mesh or a captured cloud: how it is first seen, and what a motion makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from animate4d.assets.asset import Asset
from animate4d.core.cameras import Rig
from animate4d.core.clip import MultiViewVideo
from animate4d.core.mesh import Mesh
from animate4d.core.motion import GraphMotion, Motion, SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.fourd.cloud_splats import move_cloud
from animate4d.fourd.cloud_views import draw_cloud
from animate4d.fourd.fit import FitResult
from animate4d.io.images import composite_grey
from animate4d.pipeline.config import Request
from animate4d.pipeline.exports import mesh_splats
from animate4d.views.raycast import Renderer, render_views
from animate4d.views.rays import Cameras
from animate4d.views.shading import bake_shading

Film = Callable[[int, float], np.ndarray]
"""Draws `[V, H, W, 3]` uint8 on grey: a frame, or a share of the way from it to the next."""


class Subject(Protocol):
    """A canonical asset in the pose that is animated."""

    asset: Asset

    @property
    def body(self) -> Mesh | SplatCloud:
        """What the motion is fitted to."""
        ...

    def look(self, rig: Rig, size: int, motion: Motion | None = None) -> np.ndarray:
        """Return frame 0, or the end of a motion, from every camera, `[V, H, W, 4]` uint8 with straight alpha."""
        ...

    def film(self, motion: Motion, rig: Rig, size: int) -> Film:
        """Return what draws the moved subject."""
        ...

    def vertices(self, motion: Motion) -> np.ndarray | None:
        """Return where the motion takes the vertices, `[T, M, 3]`; None where there are none."""
        ...

    def splats(
        self, motion: Motion, video_frames: np.ndarray, fit: FitResult, video: MultiViewVideo, request: Request
    ) -> tuple[SplatCloud, SplatMotion]:
        """Return the splats to export, at frame 0, and their trajectories."""
        ...


class MeshSubject:
    """A mesh: moved by skinning, with its own materials."""

    def __init__(self, asset: Asset) -> None:
        assert asset.mesh is not None
        self.asset, self.body = asset, asset.mesh

    def look(self, rig: Rig, size: int, motion: Motion | None = None) -> np.ndarray:
        """Return frame 0 or the end of a motion, ray-cast in the light of frame 0."""
        rest = self.body.vertices
        pose = rest if motion is None else motion.apply(rest)[-1]
        return render_views(self.body, pose, rig, size, shading=bake_shading(self.body, rest)).rgba

    def film(self, motion: Motion, rig: Rig, size: int) -> Film:
        """Return what ray-casts the moved mesh with the light of frame 0 carried along."""
        mesh, poses = self.body, motion.apply(self.body.vertices)
        cameras = Cameras.of(rig.camera_to_world(), rig.intrinsics(size), size)
        renderer = Renderer(mesh, cameras, samples=2, shading=bake_shading(mesh, mesh.vertices))

        def draw(frame: int, share: float) -> np.ndarray:
            pose = poses[frame]
            if share:
                pose = pose + (poses[frame + 1] - pose) * np.float32(share)
            return composite_grey(renderer.render(pose, renderer.caster(pose)).rgba)

        return draw

    def vertices(self, motion: Motion) -> np.ndarray:
        """Return the moved vertices."""
        return motion.apply(self.body.vertices)

    def splats(
        self, motion: Motion, video_frames: np.ndarray, fit: FitResult, video: MultiViewVideo, request: Request
    ) -> tuple[SplatCloud, SplatMotion]:
        """Return splats on the surface."""
        return mesh_splats(self.body, fit, motion, video_frames, video, request)


class CloudSubject:
    """A captured cloud: all its splats are moved, and turn with their harmonics."""

    def __init__(self, asset: Asset) -> None:
        assert asset.splats is not None
        self.asset, self.body = asset, asset.splats
        self._moved: tuple[Motion, SplatMotion] | None = None

    def look(self, rig: Rig, size: int, motion: Motion | None = None) -> np.ndarray:
        """Return frame 0 or the end of a motion, as the splat renderer draws it."""
        if motion is None:
            return draw_cloud(self.body, rig, size)
        moved = self._follow(motion)
        return draw_cloud(self.body, rig, size, means=moved.means[-1], quats=moved.quats[-1])

    def film(self, motion: Motion, rig: Rig, size: int) -> Film:
        """Return what draws the moved splats."""
        moved = self._follow(motion)

        def draw(frame: int, share: float) -> np.ndarray:
            means, quats = moved.means[frame], moved.quats[frame]
            if share:
                means = means + (moved.means[frame + 1] - means) * np.float32(share)
                quats = quats + (moved.quats[frame + 1] - quats) * np.float32(share)
            still = frame == 0 and not share
            return composite_grey(draw_cloud(self.body, rig, size, means=means, quats=None if still else quats))

        return draw

    def vertices(self, motion: Motion) -> None:
        """Return none."""

    def splats(
        self, motion: Motion, video_frames: np.ndarray, fit: FitResult, video: MultiViewVideo, request: Request
    ) -> tuple[SplatCloud, SplatMotion]:
        """Return the cloud as it is, and where its splats go."""
        return self.body, self._follow(motion)

    def _follow(self, motion: Motion) -> SplatMotion:
        if self._moved is None or self._moved[0] is not motion:
            assert isinstance(motion, GraphMotion)
            self._moved = motion, move_cloud(self.body, motion)
        return self._moved[1]


def subject_of(asset: Asset) -> Subject:
    """Return the subject of an asset, by what it holds."""
    return CloudSubject(asset) if asset.mesh is None else MeshSubject(asset)
