"""What joints do over time: whole-body verbs that suit any object, and the pose a skeleton takes for them.

A whole-body verb is a deformation of space, phi_t(x), sampled at the centre of every bone: the bone turns by the local
rotation of phi_t and its centre goes where phi_t takes it. Any skeleton can therefore bounce, bend, sway, spin, shake
and stretch, limbs included. phi_0 is the identity. Axes are glTF's: y up, z forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from animate4d.assets.figures import Joint, Turns
from animate4d.core.cameras import Rig

AMPLITUDES = {"gently": 0.6, "": 1.0, "wildly": 1.5}
"""Adverb -> factor on every amplitude."""

FLAT = 0.4
"""Objects lower than this share of their length bend along the ground instead of along the up axis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spine:
    """The straight line an object bends along.

    Attributes:
        origin: `[3]` its start (s = 0).
        axis: `[3]` unit direction.
        bend: `[3]` unit direction the free end goes to when bending, perpendicular to `axis`.
        length: so that s = 1 is the other end.
        pinned: s of the point that stays: 0 on the ground, 0.5 in the middle.
        unit: length of one canonical unit (bounding sphere = 0.8) in the object's units.
        room: canonical units a bounce of amplitude 1 rises; 1.5 times that still fits the default frame.
        lowest: height of the object's lowest point.
        growth: share of its height the object gains when stretching with amplitude 1.
    """

    origin: np.ndarray
    axis: np.ndarray
    bend: np.ndarray
    length: float
    pinned: float
    unit: float
    room: float
    lowest: float
    growth: float

    @property
    def side(self) -> np.ndarray:
        """Unit direction of sideways motion, `[3]`."""
        return np.cross(self.bend, self.axis)

    @property
    def middle(self) -> np.ndarray:
        """Centre of the object, `[3]`."""
        return self.origin + 0.5 * self.length * self.axis

    def share(self, points: np.ndarray) -> np.ndarray:
        """Return s of `[N, 3]` points, 0 to 1 inside the object."""
        return (points - self.origin) @ self.axis / self.length


def spine_of(points: np.ndarray) -> Spine:
    """Choose the spine of an object from its `[N, 3]` rest vertices."""
    low, high = points.min(0), points.max(0)
    size, centre = high - low, 0.5 * (low + high)
    unit = float(np.linalg.norm(points - centre, axis=1).max()) / 0.8
    room = min(0.25, _headroom((points - centre) / unit) / max(AMPLITUDES.values()))
    flat = int(np.argmax(size * [1, 0, 1]))
    if size[1] >= FLAT * size[flat]:
        axis, bend, pinned = np.eye(3)[1], np.eye(3)[2], 0.0
    else:
        axis, bend, pinned = np.eye(3)[flat], np.eye(3)[1], 0.5
    origin = centre - 0.5 * size * axis
    length = float(size @ axis)
    return Spine(
        origin=origin,
        axis=axis,
        bend=bend,
        length=length,
        pinned=pinned,
        unit=unit,
        room=room,
        lowest=float(low[1]),
        growth=float(min(0.25, 2 * room * unit / max(size[1], 1e-9))),
    )


def _headroom(points: np.ndarray) -> float:
    """Return how far canonical `[N, 3]` points (y up) may rise and stay in every view of the default rig.

    With u up and b backward of a camera and t = tan(fov / 2), a point p is inside when p.u <= t (distance - p.b); that
    bounds the rise for each point, most tightly on the side that faces the camera.
    """
    rig = Rig()
    tangent = 0.98 * np.tan(np.deg2rad(rig.fov_deg) / 2)
    sine, cosine = np.sin(np.deg2rad(rig.elevation_deg)), np.cos(np.deg2rad(rig.elevation_deg))
    near = np.hypot(points[:, 0], points[:, 2])
    room = tangent * (rig.distance - cosine * near - sine * points[:, 1]) + sine * near - cosine * points[:, 1]
    return float(max(room.min(), 0.0) / (cosine + tangent * sine))


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """Poses of J joints at K keyframes, relative to their parents.

    Attributes:
        rotations: `[K, J, 4]` unit quaternions xyzw.
        translations: `[K, J, 3]`.
        scales: `[K, J, 3]`.
    """

    rotations: np.ndarray
    translations: np.ndarray
    scales: np.ndarray


def whole_body_keys(verb: str, joints: list[Joint], spine: Spine, phases: np.ndarray, amplitude: float) -> Keys:
    """Pose a skeleton for one of WHOLE_BODY at `[K]` phases from 0 to 1."""
    anchors = np.stack([joint.anchor for joint in joints])
    positions = np.stack([joint.position for joint in joints])
    if verb == "stretch":
        return _stretch(joints, spine, phases, amplitude)
    turned, moved = WHOLE_BODY[verb](anchors, spine, phases, amplitude)
    heads = moved + np.einsum("kjab,jb->kja", turned, positions - anchors)
    return _local_keys(joints, turned, heads)


def own_keys(joints: list[Joint], turns: Turns, spine: Spine) -> Keys:
    """Pose a skeleton by turning named joints about axes in the object's frame, children following."""
    count = len(next(iter(turns.values()))[1])
    rotations = np.zeros((count, len(joints), 4))
    rotations[..., 3] = 1
    translations = np.repeat(_offsets(joints)[None], count, axis=0)
    names = [joint.name for joint in joints]
    for name, (axis, values) in turns.items():
        direction = np.asarray(axis, np.float64)
        if name == "@":
            translations[:, 0] += values[:, None] * direction * spine.unit
            continue
        direction = direction / np.linalg.norm(direction)
        rotations[:, names.index(name)] = np.concatenate(
            [direction * np.sin(values / 2)[:, None], np.cos(values / 2)[:, None]], axis=1
        )
    return Keys(rotations=rotations, translations=translations, scales=np.ones((count, len(joints), 3)))


Field = Callable[[np.ndarray, Spine, np.ndarray, float], tuple[np.ndarray, np.ndarray]]


def _bounce(points: np.ndarray, spine: Spine, phases: np.ndarray, amplitude: float) -> tuple[np.ndarray, np.ndarray]:
    lift = amplitude * spine.room * spine.unit * np.abs(np.sin(np.pi * phases))
    return _identity(points, phases), points + lift[:, None, None] * np.array([0.0, 1.0, 0.0])


def _bend(points: np.ndarray, spine: Spine, phases: np.ndarray, amplitude: float) -> tuple[np.ndarray, np.ndarray]:
    return _arc(points, spine, spine.bend, 0.6 * amplitude * (1 - np.cos(2 * np.pi * phases)) / 2)


def _sway(points: np.ndarray, spine: Spine, phases: np.ndarray, amplitude: float) -> tuple[np.ndarray, np.ndarray]:
    return _arc(points, spine, spine.side, 0.45 * amplitude * np.sin(2 * np.pi * phases))


def _spin(points: np.ndarray, spine: Spine, phases: np.ndarray, amplitude: float) -> tuple[np.ndarray, np.ndarray]:
    return _yaw(points, spine, np.deg2rad(135) * amplitude * phases)


def _shake(points: np.ndarray, spine: Spine, phases: np.ndarray, amplitude: float) -> tuple[np.ndarray, np.ndarray]:
    swing = np.sin(4 * np.pi * phases)
    turned, moved = _yaw(points, spine, 0.25 * amplitude * swing)
    return turned, moved + (0.1 * amplitude * spine.unit * swing)[:, None, None] * np.array([1.0, 0.0, 0.0])


WHOLE_BODY: dict[str, Field] = {
    "bounce": _bounce,
    "bend": _bend,
    "sway": _sway,
    "spin": _spin,
    "shake": _shake,
}
WHOLE_BODY_VERBS = (*WHOLE_BODY, "stretch")
"""Verbs every object can do. At amplitude 1: 0.25 canonical units up, bend 0.6 rad, sway 0.45 rad, spin 135 degrees,
shake 0.25 rad and 0.1 units, stretch 25 %; tall objects rise and stretch less, so that a wild clip stays in frame."""


def _identity(points: np.ndarray, phases: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.eye(3), (len(phases), len(points), 3, 3))


def _yaw(points: np.ndarray, spine: Spine, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centre = spine.middle
    turned = _turn(np.array([0.0, 1.0, 0.0]), angles)
    moved = np.einsum("kab,jb->kja", turned, points - centre) + centre
    return np.repeat(turned[:, None], len(points), axis=1), moved


def _arc(points: np.ndarray, spine: Spine, toward: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bend the spine into an arc: its tangent turns by `angles` `[K]` over the length, zero where it is pinned."""
    share = np.clip(spine.share(points), 0, 1)
    reach = share - spine.pinned
    turn = angles[:, None] * reach * (2 if spine.pinned else 1)
    # Integrals of cos and sin of the tangent angle along the spine: sin(a)/a and (1 - cos(a))/a without the division.
    forward = reach * np.sinc(turn / np.pi)
    aside = reach * np.sin(turn / 2) * np.sinc(turn / 2 / np.pi)
    rest = spine.origin + share[:, None] * spine.length * spine.axis
    line = spine.origin + spine.length * ((spine.pinned + forward)[..., None] * spine.axis + aside[..., None] * toward)
    turned = _turn(np.cross(spine.axis, toward), turn)
    return turned, line + np.einsum("kjab,jb->kja", turned, points - rest)


def _stretch(joints: list[Joint], spine: Spine, phases: np.ndarray, amplitude: float) -> Keys:
    """Scale the root about the middle of the object: taller and thinner, then flatter and wider, at equal volume."""
    tall = 1 + spine.growth * amplitude * np.sin(2 * np.pi * phases)
    count = len(joints)
    scales = np.ones((len(phases), count, 3))
    scales[:, 0] = np.stack([tall**-0.5, tall, tall**-0.5], 1)
    rotations = np.zeros((len(phases), count, 4))
    rotations[..., 3] = 1
    translations = np.repeat(_offsets(joints)[None], len(phases), axis=0)
    translations[:, 0] += (1 - scales[:, 0]) * (spine.middle - joints[0].position)
    return Keys(rotations=rotations, translations=translations, scales=scales)


def _offsets(joints: list[Joint]) -> np.ndarray:
    """Rest translation of each joint relative to its parent, `[J, 3]`."""
    return np.stack([j.position - (joints[j.parent].position if j.parent >= 0 else 0.0) for j in joints])


def _local_keys(joints: list[Joint], turned: np.ndarray, heads: np.ndarray) -> Keys:
    """Turn world rotations `[K, J, 3, 3]` and joint positions `[K, J, 3]` into poses relative to the parents."""
    rotations, translations = turned.copy(), heads.copy()
    for index, joint in enumerate(joints):
        if joint.parent >= 0:
            back = np.swapaxes(turned[:, joint.parent], -1, -2)
            rotations[:, index] = back @ turned[:, index]
            translations[:, index] = np.einsum("kab,kb->ka", back, heads[:, index] - heads[:, joint.parent])
    return Keys(rotations=quaternions(rotations), translations=translations, scales=np.ones((*heads.shape[:2], 3)))


def _turn(axis: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Rotation matrices `[..., 3, 3]` about one unit axis."""
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angles = angles[..., None, None]
    return np.eye(3) + np.sin(angles) * cross + (1 - np.cos(angles)) * (cross @ cross)


def quaternions(matrices: np.ndarray) -> np.ndarray:
    """Turn `[K, J, 3, 3]` rotations into `[K, J, 4]` unit quaternions xyzw whose sign never flips along K."""
    from scipy.spatial.transform import Rotation

    quats = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_quat().reshape(*matrices.shape[:-2], 4)
    quats[0] *= np.where(quats[0, :, 3:] < 0, -1, 1)
    for frame in range(1, len(quats)):
        quats[frame] *= np.where((quats[frame] * quats[frame - 1]).sum(-1, keepdims=True) < 0, -1, 1)
    return quats
