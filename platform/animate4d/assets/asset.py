"""An asset: somebody's 3D model in the canonical frame, with its animations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from animate4d.assets.normalise import sphere_similarity
from animate4d.assets.parts import Part
from animate4d.core.errors import AssetError
from animate4d.core.mesh import Mesh, Similarity
from animate4d.core.splats import SplatCloud
from animate4d.io.gltf import GltfDocument


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimationClip:
    """A named animation.

    Attributes:
        name: as in the file.
        duration: seconds.
    """

    name: str
    duration: float


class Poser(Protocol):
    """Something that gives a model's vertices in the user's frame at any time."""

    def vertices(self, clip: int | None, time: float) -> np.ndarray:
        """Return `[N, 3]` float64 positions, at rest for clip None."""
        ...


@dataclass(frozen=True, slots=True)
class StillPoser:
    """The poser of a format without animation.

    Attributes:
        rest: `[N, 3]` float64 positions in the user's frame.
    """

    rest: np.ndarray

    def vertices(self, clip: int | None, time: float) -> np.ndarray:
        """Return the one pose there is."""
        return self.rest


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A mesh or a cloud of splats in the canonical frame (exactly one of the two is set).

    Attributes:
        path: the file.
        mesh: vertices in the pose asked for at loading.
        splats: for 3DGS files.
        clips: animations of the file.
        to_canonical: the user's world frame, as in the file -> canonical.
        source_sha256: of the file, or of the file and the siblings it needs.
        warnings: what was left out or replaced, one sentence each.
        parts: where runs of vertices came from; empty unless glTF.
        document: the glTF file behind the mesh, None for other formats.
        poser: moves the mesh's vertices in the user's frame; None for splats.
    """

    path: Path
    mesh: Mesh | None = None
    splats: SplatCloud | None = None
    clips: tuple[AnimationClip, ...] = ()
    to_canonical: Similarity
    source_sha256: str
    warnings: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    document: GltfDocument | None = field(default=None, repr=False)
    poser: Poser | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """File name without its suffix."""
        return self.path.stem

    def clip_number(self, clip: int | str) -> int:
        """Return the number of a clip given by name or number.

        Raises:
            AssetError: there is no such clip, or several of that name.
        """
        names = [entry.name for entry in self.clips]
        if isinstance(clip, str):
            matches = [number for number, name in enumerate(names) if name == clip]
            if len(matches) > 1:
                raise AssetError(f"{self.path}: animations {matches} are all named {clip!r}; give the number instead")
            if matches:
                return matches[0]
            if clip.isdecimal():
                return self.clip_number(int(clip))
        elif 0 <= clip < len(names):
            return clip
        if not names:
            raise AssetError(f"{self.path}: has no animations, so no clip {clip!r}")
        listed = ", ".join(f"{number} {name!r}" for number, name in enumerate(names))
        raise AssetError(f"{self.path}: has no animation {clip!r}; it has {listed}")

    def vertices_at(self, clip: int, time: float) -> np.ndarray:
        """Return `[N, 3]` float32 canonical vertices at `time` seconds of a clip, by the same similarity at every time.

        Times outside the clip give its first or last pose. Costs about half a millisecond for 5k vertices and 50 bones.

        Raises:
            AssetError: there is no such clip, or the pose is not finite.
        """
        return self._canonical(self._world(self.clip_number(clip), time))

    def posed(self, clip: int | str | None, time: float = 0.0) -> Asset:
        """Return this asset in another pose, normalised from that pose; shares everything else, so it is cheap.

        Args:
            clip: name or number of an animation, None for the rest pose.
            time: seconds into the clip.

        Raises:
            AssetError: there is no such clip, or the pose is not finite or has no size.
        """
        number = None if clip is None else self.clip_number(clip)
        if self.mesh is None:
            return self
        world = self._world(number, time)
        drawn = world[np.bincount(self.mesh.faces.reshape(-1), minlength=len(world)) > 0]
        try:
            similarity = sphere_similarity(drawn, self.to_canonical.rotation)
        except ValueError as error:
            raise AssetError(f"{self.path}: the model has no size that could be normalised ({error})") from error
        moved = replace(self, to_canonical=similarity)
        return replace(moved, mesh=replace(self.mesh, vertices=moved._canonical(world)))

    def _world(self, clip: int | None, time: float) -> np.ndarray:
        """Return `[N, 3]` float64 vertices in the user's frame."""
        assert self.poser is not None
        if not math.isfinite(time):
            raise AssetError(f"{self.path}: the time {time} is not a number of seconds")
        with np.errstate(all="ignore"):
            world = self.poser.vertices(clip, time)
        if not np.isfinite(world).all():
            pose = "rest pose" if clip is None else f"pose of animation {self.clips[clip].name!r} at {time} s"
            raise AssetError(f"{self.path}: its {pose} is not finite; repair and re-export the model")
        return world

    def _canonical(self, world: np.ndarray) -> np.ndarray:
        return self.to_canonical.apply(world).astype(np.float32)
