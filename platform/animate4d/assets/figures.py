"""A figure: coloured shapes hung on joints, with its own verbs. Axes are glTF's: y up, z forward; units are free.

All joints rest unrotated, so a pose is a rotation, a translation and a scale of each joint relative to rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from animate4d.assets.shapes import Shape

Turns = dict[str, tuple[tuple[float, float, float], np.ndarray]]
"""Joint name -> (rotation axis, `[K]` angles in radians)."""

OwnVerb = Callable[[np.ndarray, float], Turns]
"""(`[K]` phases from 0 to 1, amplitude) -> how joints turn; phase 0 is rest. The name "@" shifts the whole body."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Joint:
    """One joint.

    Attributes:
        name: unique in its skeleton.
        parent: index, -1 for the root.
        position: `[3]` at rest.
        anchor: `[3]` centre of what it carries, where deformations of space are sampled.
    """

    name: str
    parent: int
    position: np.ndarray
    anchor: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A shape with its colour role ("main", "accent", "dark", "light" or a colour name) and its skin.

    Attributes:
        shape: the surface.
        role: how it is painted.
        joints: `[N, 4]` joint indices.
        weights: `[N, 4]`, rows sum to 1.
    """

    shape: Shape
    role: str
    joints: np.ndarray
    weights: np.ndarray


@dataclass(kw_only=True, slots=True)
class Figure:
    """An object under construction; joint 0 is the root on the ground.

    Attributes:
        noun: what captions call it.
        joints: in order, parents first.
        parts: with skins.
        verbs: own verbs by name.
        colors: preferred colour name by role, for what is never randomly painted (green leaves).
        ground: `[3]` where the root stands.
    """

    noun: str
    joints: list[Joint] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    verbs: dict[str, OwnVerb] = field(default_factory=dict)
    colors: dict[str, str] = field(default_factory=dict)
    ground: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        self.joints.append(Joint(name="root", parent=-1, position=self.ground, anchor=self.ground))

    def vertices(self) -> np.ndarray:
        """Return the vertices of all parts, `[N, 3]`."""
        return np.concatenate([part.shape.vertices for part in self.parts])

    def index(self, name: str) -> int:
        """Return the index of a joint."""
        return [joint.name for joint in self.joints].index(name)

    def bone(self, name: str, parent: str, start: ArrayLike, end: ArrayLike | None = None) -> str:
        """Add a joint at `start` whose bone reaches to `end`; returns its name."""
        head = np.asarray(start, np.float64)
        anchor = head if end is None else 0.5 * (head + np.asarray(end, np.float64))
        self.joints.append(Joint(name=name, parent=self.index(parent), position=head, anchor=anchor))
        return name

    def chain(self, name: str, parent: str, points: np.ndarray) -> list[str]:
        """Add joints `name0`, `name1`... along a polyline, one per segment; returns their names."""
        names: list[str] = []
        for number, (start, end) in enumerate(itertools.pairwise(points)):
            names.append(self.bone(f"{name}{number}", names[-1] if names else parent, start, end))
        return names

    def add(self, shape: Shape, bones: str | Sequence[str], role: str = "main", *, softness: float = 0.6) -> None:
        """Hang a shape on one bone rigidly, or on a chain of bones with weights that blend around their joints.

        Args:
            shape: the surface at rest.
            bones: one name, or names in order along the shape.
            role: how it is painted.
            softness: share of a segment over which neighbouring weights blend; 1 is smoothest.
        """
        names = [bones] if isinstance(bones, str) else list(bones)
        order = np.array([self.index(name) for name in names])
        if len(order) == 1:
            share = np.zeros(len(shape.vertices))
        else:
            share = _along(shape.vertices, np.stack([self.joints[i].anchor for i in order]))
        joints, weights = chain_weights(share, order, softness)
        self.parts.append(Part(shape=shape, role=role, joints=joints, weights=weights))


def chain_weights(share: np.ndarray, order: np.ndarray, softness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Weights of points along a chain of bones: a smooth step between the two nearest bone centres.

    Args:
        share: `[N]` position along the chain; k is the centre of the k-th bone.
        order: `[B]` joint indices along the chain.
        softness: share of the distance between two centres over which the weight changes.

    Returns:
        Joint indices `[N, 4]` uint16 and weights `[N, 4]` float32 whose rows sum to 1.
    """
    share = np.clip(share, 0, len(order) - 1)
    low = np.minimum(np.floor(share).astype(np.int64), max(len(order) - 2, 0))
    high = np.minimum(low + 1, len(order) - 1)
    ramp = np.clip((share - low - 0.5) / softness + 0.5, 0, 1)
    if softness < 1:
        ramp = ramp * ramp * (3 - 2 * ramp)
    weights = np.zeros((len(share), 4), np.float32)
    weights[:, 1] = ramp
    weights[:, 0] = 1 - weights[:, 1]
    joints = np.zeros((len(share), 4), np.uint16)
    joints[:, 0], joints[:, 1] = order[low], order[high]
    joints[weights == 0] = 0
    return joints, weights


def _along(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Project points on a polyline; returns `[N]` positions where k is the k-th corner."""
    start, step = centres[:-1], np.diff(centres, axis=0)
    share = np.einsum("nsk,sk->ns", points[:, None] - start, step) / np.maximum((step**2).sum(1), 1e-12)
    share = np.clip(share, 0, 1)
    distance = np.linalg.norm(points[:, None] - start - share[..., None] * step, axis=-1)
    nearest = distance.argmin(1)
    return nearest + share[np.arange(len(points)), nearest]
