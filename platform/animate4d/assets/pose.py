"""Node transforms of a glTF file at any time: node tree, animation channels, global matrices.

Quaternions are xyzw here, as in the file. All is float64: armatures often carry a scale of 100 that their bones undo.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from animate4d.core.errors import AssetError
from animate4d.io.gltf import GltfDocument, read_accessor

_WIDTH = {"translation": 3, "rotation": 4, "scale": 3}


class NodeTree:
    """Local transforms of all M nodes and their parents.

    Raises:
        AssetError: a node has two parents, is its own ancestor, or has a transform that is not finite.
    """

    def __init__(self, document: GltfDocument) -> None:
        nodes: list[dict[str, Any]] = document.json.get("nodes", [])
        self.children: list[list[int]] = [list(node.get("children", [])) for node in nodes]
        self.parents = np.full(len(nodes), -1)
        for parent, children in enumerate(self.children):
            for child in children:
                document.item("nodes", child)
                if self.parents[child] != -1:
                    raise AssetError(f"{document.path}: nodes[{child}] has two parents; re-export the model")
                self.parents[child] = parent
        self.roots = [node for node in range(len(nodes)) if self.parents[node] == -1]
        self._levels = _levels(self.roots, self.children)
        if sum(map(len, self._levels)) != len(nodes):
            raise AssetError(f"{document.path}: its node tree has a cycle; re-export the model")
        self.translation = np.array([node.get("translation", (0, 0, 0)) for node in nodes], np.float64).reshape(-1, 3)
        self.rotation = np.array([node.get("rotation", (0, 0, 0, 1)) for node in nodes], np.float64).reshape(-1, 4)
        self.scale = np.array([node.get("scale", (1, 1, 1)) for node in nodes], np.float64).reshape(-1, 3)
        self.matrices = {
            number: np.array(node["matrix"], np.float64).reshape(4, 4).T
            for number, node in enumerate(nodes)
            if "matrix" in node
        }
        for number, matrix in self.matrices.items():
            self.translation[number], self.rotation[number], self.scale[number] = _decompose(matrix)
        for values in (self.translation, self.rotation, self.scale, *self.matrices.values()):
            if not np.isfinite(values).all():
                raise AssetError(f"{document.path}: a node transform is not finite; re-export the model")

    def global_matrices(self, clip: Clip | None, time: float) -> np.ndarray:
        """Return `[M, 4, 4]` node-to-world matrices, at rest (`clip` None) or at `time` seconds of a clip."""
        local = {"translation": self.translation, "rotation": self.rotation, "scale": self.scale}
        matrices = self.matrices
        if clip is not None:
            local = {path: values.copy() for path, values in local.items()}
            for track in clip.tracks:
                local[track.path][track.nodes] = track.sample(time)
            matrices = {node: matrix for node, matrix in matrices.items() if node not in clip.moved}
        result = np.zeros((len(self.parents), 4, 4))
        result[:, :3, :3] = rotation_matrices(local["rotation"]) * local["scale"][:, None, :]
        result[:, :3, 3] = local["translation"]
        result[:, 3, 3] = 1.0
        for node, matrix in matrices.items():
            result[node] = matrix
        for level in self._levels[1:]:
            result[level] = result[self.parents[level]] @ result[level]
        return result


def drawn_nodes(document: GltfDocument, tree: NodeTree) -> list[int]:
    """Return the nodes with a mesh in the default scene, depth first."""
    scenes = document.json.get("scenes", [])
    roots = document.item("scenes", document.json.get("scene", 0)).get("nodes", []) if scenes else tree.roots
    drawn: list[int] = []
    seen: set[int] = set()
    stack = list(reversed(roots))
    while stack:
        node = stack.pop()
        if "mesh" in document.item("nodes", node) and node not in seen:
            drawn.append(node)
        seen.add(node)
        stack.extend(reversed(tree.children[node]))
    return drawn


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """Keyframes of one property of C nodes that share their key times.

    Attributes:
        path: "translation", "rotation", "scale" or "weights".
        nodes: `[C]`.
        times: `[K]` seconds, not decreasing.
        values: `[C, K, n]`, or `[C, K, 3, n]` (in-tangent, value, out-tangent) for cubic splines.
        interpolation: "LINEAR", "STEP" or "CUBICSPLINE".
    """

    path: str
    nodes: np.ndarray
    times: np.ndarray
    values: np.ndarray
    interpolation: str

    def sample(self, time: float) -> np.ndarray:
        """Return `[C, n]` values at `time`, held at the first and last key outside them (glTF 2.0 appendix C)."""
        last = len(self.times) - 1
        key = int(np.searchsorted(self.times, time, side="right")) - 1
        if self.interpolation == "STEP":
            return self.values[:, min(max(key, 0), last)]
        key = min(max(key, 0), max(last - 1, 0))
        following = min(key + 1, last)
        gap = float(self.times[following] - self.times[key])
        u = min(max((time - self.times[key]) / gap, 0.0), 1.0) if gap > 0 else float(time >= self.times[following])
        if self.interpolation == "CUBICSPLINE":
            before, after = self.values[:, key], self.values[:, following]
            result = (
                (2 * u**3 - 3 * u**2 + 1) * before[:, 1]
                + gap * (u**3 - 2 * u**2 + u) * before[:, 2]
                + (3 * u**2 - 2 * u**3) * after[:, 1]
                + gap * (u**3 - u**2) * after[:, 0]
            )
            return _unit(result) if self.path == "rotation" else result
        before, after = self.values[:, key], self.values[:, following]
        return slerp(before, after, u) if self.path == "rotation" else (1 - u) * before + u * after


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One animation of the file.

    Attributes:
        name: as in the file, or "clip_<number>".
        duration: time of the last key, seconds.
        tracks: node transforms.
        weights: morph-target weights, one track per node.
        moved: nodes whose transform is animated.
    """

    name: str
    duration: float
    tracks: tuple[Track, ...]
    weights: tuple[Track, ...]
    moved: frozenset[int] = field(default_factory=frozenset)


def read_clip(document: GltfDocument, index: int, warnings: list[str]) -> Clip:
    """Parse `animations[index]`; channels on unknown targets are left out with a warning.

    Raises:
        AssetError: keys are missing, not finite or out of order, or their number does not fit.
    """
    animation = document.item("animations", index)
    name = str(animation.get("name") or f"clip_{index}")
    groups: dict[tuple[str, str, int], list[tuple[int, np.ndarray]]] = {}
    weights: list[Track] = []
    duration = 0.0
    for channel in animation["channels"]:
        target, path = channel["target"], channel["target"]["path"]
        if path not in (*_WIDTH, "weights"):
            warnings.append(f"animation {name!r}: a channel on {path!r} is left out")
            continue
        if "node" not in target:
            continue
        document.item("nodes", target["node"])
        samplers = animation["samplers"]
        if not 0 <= channel["sampler"] < len(samplers):
            raise AssetError(f"{document.path}: animation {name!r} refers to sampler {channel['sampler']}")
        sampler = samplers[channel["sampler"]]
        interpolation = sampler.get("interpolation", "LINEAR")
        times, values = _keys(document, name, sampler, interpolation, path)
        duration = max(duration, float(times[-1]))
        if path == "weights":
            weights.append(
                Track(
                    path=path,
                    nodes=np.array([target["node"]]),
                    times=times,
                    values=values[None],
                    interpolation=interpolation,
                )
            )
        else:
            groups.setdefault((path, interpolation, sampler["input"]), []).append((target["node"], values))
    tracks = tuple(
        Track(
            path=path,
            nodes=np.array([node for node, _ in members]),
            times=read_accessor(document, times).astype(np.float64),
            values=np.stack([values for _, values in members]),
            interpolation=interpolation,
        )
        for (path, interpolation, times), members in groups.items()
    )
    moved = frozenset(int(node) for track in tracks for node in track.nodes)
    return Clip(name=name, duration=duration, tracks=tracks, weights=tuple(weights), moved=moved)


def rotation_matrices(quaternions: np.ndarray) -> np.ndarray:
    """Turn `[..., 4]` xyzw quaternions of any non-zero length into `[..., 3, 3]` matrices."""
    x, y, z, w = np.moveaxis(_unit(quaternions), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def slerp(start: np.ndarray, end: np.ndarray, u: float) -> np.ndarray:
    """Interpolate `[..., 4]` quaternions along the shorter arc."""
    start, end = _unit(start), _unit(end)
    cosine = (start * end).sum(-1, keepdims=True)
    end = np.where(cosine < 0, -end, end)
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    sine = np.sin(angle)
    close = sine < 1e-6  # below this the arc is straight in float64 and the division is not safe
    safe = np.where(close, 1.0, sine)
    left = np.where(close, 1 - u, np.sin((1 - u) * angle) / safe)
    right = np.where(close, u, np.sin(u * angle) / safe)
    return _unit(left * start + right * end)


def _unit(quaternions: np.ndarray) -> np.ndarray:
    """Scale to length 1; a zero quaternion becomes the identity."""
    length = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    identity = np.array([0.0, 0.0, 0.0, 1.0])
    return np.where(length > 1e-12, quaternions / np.where(length > 1e-12, length, 1.0), identity)


def _keys(
    document: GltfDocument, name: str, sampler: dict[str, Any], interpolation: str, path: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return key times `[K]` and values `[K, n]` or `[K, 3, n]` of one sampler."""
    times = read_accessor(document, sampler["input"]).astype(np.float64)
    values = read_accessor(document, sampler["output"]).astype(np.float64)
    where = f"{document.path}: animation {name!r} ({path})"
    if interpolation not in ("LINEAR", "STEP", "CUBICSPLINE"):
        raise AssetError(f"{where} has the unknown interpolation {interpolation!r}")
    if times.ndim != 1 or not np.isfinite(times).all() or not np.isfinite(values).all():
        raise AssetError(f"{where} has keys that are not finite numbers; re-export the model")
    if (np.diff(times) < 0).any():
        raise AssetError(f"{where} has key times that run backwards; re-export the model")
    per_key = 3 if interpolation == "CUBICSPLINE" else 1
    width, left_over = divmod(values.size, len(times) * per_key)
    if left_over or width == 0 or width != _WIDTH.get(path, width):
        raise AssetError(f"{where} has {values.size} numbers for {len(times)} keys; re-export the model")
    return times, values.reshape((len(times), 3, width) if per_key == 3 else (len(times), width))


def _levels(roots: list[int], children: list[list[int]]) -> list[list[int]]:
    """Return nodes by depth; nodes on a cycle are never reached."""
    levels, current = [], roots
    while current:
        levels.append(current)
        current = [child for node in current for child in children[node]]
    return levels


def _decompose(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split an affine matrix into translation, rotation (xyzw) and scale; a mirror goes into the x scale."""
    from scipy.spatial.transform import Rotation

    scale = np.linalg.norm(matrix[:3, :3], axis=0)
    if np.linalg.det(matrix[:3, :3]) < 0:
        scale[0] = -scale[0]
    if not np.isfinite(scale).all() or (scale == 0).any():
        return matrix[:3, 3], np.array([0.0, 0.0, 0.0, 1.0]), scale
    return matrix[:3, 3], Rotation.from_matrix(matrix[:3, :3] / scale).as_quat(), scale
