"""Triangle meshes with materials, and the similarity that takes a user's model into the canonical box."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """How a surface looks: a base colour times an optional texture (glTF metallic-roughness base colour).

    Attributes:
        name: as in the source file, may be empty.
        base_color: linear-factor RGBA in [0, 1], multiplied with texture and vertex colour.
        texture: `[H, W, 4]` uint8 sRGB, or None.
        double_sided: whether back faces are drawn.
        alpha_mode: "OPAQUE", "MASK" or "BLEND" as in glTF.
        alpha_cutoff: for "MASK".
    """

    name: str = ""
    base_color: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    texture: np.ndarray | None = None
    double_sided: bool = False
    alpha_mode: str = "OPAQUE"
    alpha_cutoff: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Mesh:
    """A triangle mesh made of parts with one material each; vertices are not welded.

    Attributes:
        vertices: `[N, 3]` float32.
        faces: `[F, 3]` int32, counter-clockwise seen from outside.
        face_material: `[F]` int32 index into `materials`.
        materials: at least one.
        uv: `[N, 2]` float32, (0, 0) is the top-left of the texture as in glTF; zeros where there is none.
        colors: `[N, 4]` float32 in [0, 1] vertex colours; ones where there are none.
        part_of_vertex: `[N]` int32: which part (glTF node and primitive) a vertex came from, in file order.
    """

    vertices: np.ndarray
    faces: np.ndarray
    face_material: np.ndarray
    materials: tuple[Material, ...]
    uv: np.ndarray
    colors: np.ndarray
    part_of_vertex: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Similarity:
    """Canonical = scale * rotation @ user + translation (z-up, bounding sphere of radius 0.8 at the origin)."""

    scale: float = 1.0
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    translation: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Map `[..., 3]` user points into the canonical frame."""
        return self.scale * points @ self.rotation.T + self.translation

    def invert(self, points: np.ndarray) -> np.ndarray:
        """Map `[..., 3]` canonical points back into the user's frame."""
        return (points - self.translation) @ self.rotation / self.scale
