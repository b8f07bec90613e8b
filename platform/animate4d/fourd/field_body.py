"""What a motion field moves: the splats of an object, the vertices of its mesh, and the motion below them, if any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from animate4d.core.motion import Motion
from animate4d.core.splats import SplatCloud
from animate4d.fourd.field import MotionField, cosine_basis, frame_times
from animate4d.fourd.field_config import FieldConfig
from animate4d.fourd.rigidity import Neighbourhoods, mesh_neighbourhoods, nearest_neighbourhoods
from animate4d.fourd.surface_splats import SH0, SurfaceSplats, move_splats

PointFeatures = Callable[[np.ndarray], np.ndarray]
"""Diffusion features of rest points `[P, 3]` in all frames, `[T, P, d]`, d a multiple of 8; called once per object."""

REACH = 1.0
"""The planes end here; what lies beyond would share the features of their border."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """A motion that a field adds to: N splats and W distinct vertices over T frames, float32.

    Attributes:
        means: `[T, N, 3]`.
        quats: `[T, N, 4]`.
        points: `[T, W, 3]`.
    """

    means: Tensor
    quats: Tensor
    points: Tensor

    @classmethod
    def of(
        cls, motion: Motion, surface: SurfaceSplats, vertices: np.ndarray, first: np.ndarray, device: torch.device
    ) -> Base:
        """Carry the splats and the vertices `first` along with a motion."""
        means, quats = move_splats(surface, motion, vertices)
        points = motion.apply(vertices)[:, first]
        found = [torch.from_numpy(array).to(device) for array in (means, quats, points)]
        return cls(means=found[0], quats=found[1], points=found[2])


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """An object in F frames.

    Attributes:
        means: `[F, N, 3]` of the splats.
        quats: `[F, N, 4]`, any length.
        scales: `[F, N, 3]` linear.
        colors: `[N, 3]` or `[F, N, 3]`.
        points: `[F, n, 3]` the vertices that were asked for.
        offset: `[F, N + n, 3]` by which the field moved splats and vertices, the global motion left out.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    colors: Tensor
    points: Tensor
    offset: Tensor


class Body:
    """An object at rest, ready to be moved.

    Points are the N splats, then the W distinct vertices (none for a bare cloud).

    Attributes:
        count: N.
        rest: `[N + W, 3]`.
        quats: `[N, 4]`.
        scales: `[N, 3]`.
        opacities: `[N]`.
        colors: `[N, 3]`.
        neighbours: of all points.
        features: `[T, N + W, d]` or None.
        frames: T.
    """

    def __init__(
        self,
        cloud: SplatCloud,
        points: np.ndarray,
        neighbours: Neighbourhoods,
        frames: int,
        features: PointFeatures | None,
        device: torch.device,
    ) -> None:
        rest = np.concatenate([cloud.means, points.astype(np.float32)])
        if not np.abs(rest).max() <= REACH:
            raise ValueError(f"points reach {np.abs(rest).max():.3g}: expected an object within [-{REACH}, {REACH}]")

        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)

        self.count, self.frames, self.neighbours = len(cloud.means), frames, neighbours
        self.rest, self.quats, self.scales = put(rest), put(cloud.quats), put(cloud.scales)
        self.opacities, self.colors = put(cloud.opacities), put(0.5 + SH0 * cloud.sh[:, 0])
        self.features = None if features is None else put(features(rest))
        if self.features is not None and self.features.shape[:2] != (frames, len(rest)):
            raise ValueError(f"features are of {tuple(self.features.shape[:2])}, expected {(frames, len(rest))}")

    def at_rest(self) -> Placed:
        """Return the object as it is in frame 0."""
        means = self.rest[None, : self.count]
        return Placed(
            means=means,
            quats=self.quats[None],
            scales=self.scales[None],
            colors=self.colors,
            points=self.rest[None, self.count :],
            offset=torch.zeros_like(self.rest[None]),
        )

    @classmethod
    def of_surface(
        cls,
        surface: SurfaceSplats,
        points: np.ndarray,
        faces: np.ndarray,
        welded: np.ndarray,
        frames: int,
        features: PointFeatures | None = None,
        device: torch.device | None = None,
    ) -> Body:
        """Take splats on a mesh; `points` and `welded` are what `graph.weld` says of its vertices."""
        neighbours = mesh_neighbourhoods(surface, points, faces, welded)
        return cls(surface.cloud, points, neighbours, frames, features, device or torch.device("cpu"))

    @classmethod
    def of_cloud(
        cls,
        cloud: SplatCloud,
        neighbours: int,
        frames: int,
        features: PointFeatures | None = None,
        device: torch.device | None = None,
    ) -> Body:
        """Take splats without a mesh, each tied to its nearest ones."""
        near = nearest_neighbourhoods(cloud.means, neighbours)
        return cls(cloud, np.zeros((0, 3), np.float32), near, frames, features, device or torch.device("cpu"))


class Mover(nn.Module):
    """A field and moving colours, applied to a body."""

    def __init__(self, body: Body, config: FieldConfig, backend: str, seed: int) -> None:
        super().__init__()
        self.body, self.backend = body, backend
        extra = 0 if body.features is None else body.features.shape[2]
        self.field = MotionField(config, extra, torch.Generator().manual_seed(seed))
        self.waves = nn.Parameter(torch.zeros(config.color_terms - 1, body.count, 3))
        """Terms fr_1 .. of the constant spherical harmonic (paper 001 eq. 8)."""

    def forward(self, frames: Tensor, vertices: Tensor, base: Base | None, *, sizes: bool, colors: bool) -> Placed:
        """Place splats and some vertices.

        Args:
            frames: `[F]` int64, none of them 0.
            vertices: `[n]` rows of the body's points, N or more.
            base: motion to add to.
            sizes: whether sizes are offset.
            colors: whether colours move.
        """
        body = self.body
        rows = torch.cat([torch.arange(body.count, device=frames.device), vertices])
        places, quats = body.rest[rows], body.quats
        extra = None if body.features is None else body.features[frames][:, rows]
        times = frame_times(frames, body.frames)
        found = self.field(places, times, extra, body=body.count, sizes=sizes, backend=self.backend)
        if base is not None:
            places = torch.cat([base.means[frames], base.points[frames][:, vertices - body.count]], 1)
            quats = base.quats[frames]
        moved = found.move(places)
        scales = body.scales.expand(len(frames), -1, -1)
        return Placed(
            means=moved[:, : body.count],
            quats=found.turned(quats, body.count),
            scales=scales if found.size is None else scales * found.size[:, : body.count].exp(),
            colors=self.tint(frames, colors),
            points=moved[:, body.count :],
            offset=found.position,
        )

    def tint(self, frames: Tensor, moving: bool) -> Tensor:
        """Return colours `[N, 3]`, or `[F, N, 3]` with their moving terms."""
        if not moving or not len(self.waves):
            return self.body.colors
        basis = cosine_basis(frames, self.body.frames, len(self.waves) + 1)
        return self.body.colors + SH0 * torch.einsum("fw,wnc->fnc", basis, self.waves)
