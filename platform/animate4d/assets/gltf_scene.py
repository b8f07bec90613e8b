"""A glTF scene as one vertex array that can be posed at any time.

Every vertex hangs on a few *slots* (a joint with its inverse bind matrix, or a rigid node), so that posing the whole
scene is one sparse product, vertex(t) = sum_k w_k G_k(t) B_k x with G the node-to-world and B the inverse bind matrix
(glTF 2.0 section 3.7.3). Morph targets are added to x first. Posing 10k vertices costs about a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from animate4d.assets.gltf_materials import MaterialReader
from animate4d.assets.parts import Part
from animate4d.assets.pose import Clip, NodeTree, drawn_nodes, read_clip
from animate4d.core.errors import AssetError
from animate4d.core.mesh import Material
from animate4d.io.gltf import GltfDocument, is_surface, read_accessor, read_primitive
from animate4d.io.splat_glb import is_splat_primitive

MAX_VERTICES = 10_000_000
"""Most vertices of a scene after instancing: one small file can draw one mesh from thousands of nodes."""

MAX_DELTA_ROWS = 50_000_000
"""Most morph offsets of a scene, 600 MB; a face with 500 shapes and 50k vertices has half of that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Morph:
    """Morph targets of one part: `deltas` `[targets, count, 3]` go onto rows `start...` by the weights of `node`."""

    node: int
    start: int
    deltas: np.ndarray


class GltfScene:
    """The default scene of a glTF file.

    Attributes:
        document: the file.
        clips: its animations.
        parts: one per drawn primitive, in depth-first scene order.
        faces: `[F, 3]` int32.
        face_material: `[F]` int32.
        materials: those that are used.
        uv: `[N, 2]` float32.
        colors: `[N, 4]` float32.
        part_of_vertex: `[N]` int32.
        warnings: what was left out.

    Raises:
        AssetError: the file is malformed or draws no triangle.
    """

    def __init__(self, document: GltfDocument) -> None:
        self.document = document
        self.warnings: list[str] = []
        self._tree = NodeTree(document)
        self.clips: tuple[Clip, ...] = tuple(
            read_clip(document, index, self.warnings) for index in range(len(document.json.get("animations", [])))
        )
        self._primitives: dict[tuple[int, int], dict[str, np.ndarray]] = {}
        self._slot_nodes: list[int] = []
        self._slot_binds: list[np.ndarray] = []
        self._skins: dict[int, tuple[int, int]] = {}
        self._morphs: list[_Morph] = []
        self._delta_rows = 0
        self._build()

    def vertices(self, clip: int | None, time: float) -> np.ndarray:
        """Return `[N, 3]` float64 world positions at rest (`clip` None) or at `time` seconds of a clip."""
        animation = None if clip is None else self.clips[clip]
        blended = self._blended(animation, time)
        positions = self._morphed(animation, time)
        return np.einsum("nij,nj->ni", blended[:, :, :3], positions) + blended[:, :, 3]

    def _blended(self, clip: Clip | None, time: float) -> np.ndarray:
        """Return `[N, 3, 4]` matrices that carry each vertex to the world."""
        world = self._tree.global_matrices(clip, time)[self._slot_nodes] @ self._slot_bind
        return (self._weights @ world[:, :3].reshape(-1, 12)).reshape(-1, 3, 4)

    def _morphed(self, clip: Clip | None, time: float) -> np.ndarray:
        """Return `[N, 3]` local positions with morph targets added."""
        if not self._morphs:
            return self._positions
        animated = {int(track.nodes[0]): track.sample(time)[0] for track in clip.weights} if clip else {}
        positions = self._positions
        for morph in self._morphs:
            weights = animated.get(morph.node, self._rest_weights[morph.node])
            if len(weights) != len(morph.deltas):
                raise AssetError(
                    f"{self.document.path}: nodes[{morph.node}] has {len(morph.deltas)} morph targets "
                    f"and {len(weights)} weights; re-export the model"
                )
            if np.any(weights):
                if positions is self._positions:
                    positions = positions.copy()
                rows = slice(morph.start, morph.start + morph.deltas.shape[1])
                used = np.flatnonzero(weights)
                positions[rows] += np.tensordot(weights[used], morph.deltas[used], axes=1)
        return positions

    def _build(self) -> None:
        """Collect the drawn primitives into flat arrays."""
        path = self.document.path
        reader = MaterialReader(self.document, self.warnings)
        parts: list[Part] = []
        positions, uvs, colors, faces, face_materials = [], [], [], [], []
        rows, columns, weights = [], [], []
        self._rest_weights: dict[int, np.ndarray] = {}
        count = face_count = 0
        for node in drawn_nodes(self.document, self._tree):
            mesh_number = self.document.json["nodes"][node]["mesh"]
            mesh = self.document.item("meshes", mesh_number)
            for number, primitive in enumerate(mesh["primitives"]):
                if not is_surface(primitive):
                    kind = "Gaussian splats beside triangles" if is_splat_primitive(primitive) else "points or lines"
                    self.warnings.append(f"meshes[{mesh_number}].primitives[{number}] is {kind}: left out")
                    continue
                arrays = self._primitive(mesh_number, number, primitive)
                points, triangles = arrays["POSITION"], arrays["indices"]
                if count + len(points) > MAX_VERTICES or face_count + len(triangles) > 2 * MAX_VERTICES:
                    raise AssetError(f"{path}: draws more than {MAX_VERTICES} vertices; simplify the model")
                material = primitive.get("material")
                parts.append(
                    Part(
                        node=node,
                        mesh=mesh_number,
                        primitive=number,
                        vertex_start=count,
                        vertex_count=len(points),
                        face_start=face_count,
                        face_count=len(triangles),
                        material=material,
                    )
                )
                positions.append(points.astype(np.float64))
                uvs.append(reader.uv(material, arrays))
                colors.append(_vertex_colors(arrays, path))
                faces.append(triangles + count)
                face_materials.append(np.full(len(triangles), reader.number(material), np.int32))
                row, column, weight = self._influences(node, arrays)
                rows.append(row + count)
                columns.append(column)
                weights.append(weight)
                self._add_morph(node, mesh, primitive, count, len(points))
                count += len(points)
                face_count += len(triangles)
        if face_count == 0:
            raise AssetError(f"{path}: holds no triangles that could be drawn")
        self._positions = np.concatenate(positions)
        if not np.isfinite(self._positions).all():
            bad = int((~np.isfinite(self._positions)).any(1).sum())
            raise AssetError(f"{path}: {bad} vertex positions are NaN or infinite; repair and re-export the model")
        self._weights = csr_matrix(
            (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))),
            shape=(count, len(self._slot_nodes)),
        )
        self._slot_bind = np.stack(self._slot_binds)
        self.uv, self.colors = np.concatenate(uvs), np.concatenate(colors)
        self.faces = np.concatenate(faces).astype(np.int32)
        self.face_material = np.concatenate(face_materials)
        self.materials: tuple[Material, ...] = tuple(reader.materials)
        self.part_of_vertex = np.repeat(np.arange(len(parts), dtype=np.int32), [part.vertex_count for part in parts])
        self.parts = self._turn_mirrored(parts)

    def _primitive(self, mesh: int, number: int, primitive: dict[str, Any]) -> dict[str, np.ndarray]:
        if (mesh, number) not in self._primitives:
            self._primitives[mesh, number] = read_primitive(self.document, primitive)
        return self._primitives[mesh, number]

    def _influences(self, node: int, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return vertex rows, slots and weights of a primitive: its joints, or the node that carries it."""
        count = len(arrays["POSITION"])
        skin = self.document.json["nodes"][node].get("skin")
        sets = [name[8:] for name in arrays if name.startswith("WEIGHTS_") and f"JOINTS_{name[8:]}" in arrays]
        if skin is None or not sets:
            self._slot_nodes.append(node)
            self._slot_binds.append(np.eye(4))
            return np.arange(count), np.full(count, len(self._slot_nodes) - 1), np.ones(count)
        start, joint_count = self._skin(skin)
        joints = np.concatenate([arrays[f"JOINTS_{name}"] for name in sets], axis=1).astype(np.int64)
        weights = np.concatenate([arrays[f"WEIGHTS_{name}"] for name in sets], axis=1).astype(np.float64)
        if joints.shape != weights.shape:
            raise AssetError(f"{self.document.path}: nodes[{node}] has unequal numbers of joints and weights")
        broken = ~np.isfinite(weights) | (weights < 0)
        if (
            broken.any()
        ):  # published files have them (exporters that divide by a zero weight sum), and viewers show them
            self.warnings.append(
                f"nodes[{node}]: {int(broken.any(1).sum())} vertices have damaged skin weights: set to 0"
            )
            weights[broken] = 0.0
        if (joints[weights != 0] >= joint_count).any():
            raise AssetError(f"{self.document.path}: nodes[{node}] uses a joint that skins[{skin}] does not have")
        total = weights.sum(1, keepdims=True)
        loose = total[:, 0] <= 0
        if loose.any():  # a vertex without weights follows its first joint, as common viewers do
            weights[loose] = 0.0
            weights[loose, 0] = total[loose] = 1.0
        rows, columns = np.nonzero(weights)
        return rows, np.minimum(joints[rows, columns], joint_count - 1) + start, (weights / total)[rows, columns]

    def _skin(self, index: int) -> tuple[int, int]:
        """Return first slot and number of joints of a skin."""
        if index not in self._skins:
            skin = self.document.item("skins", index)
            joints = skin["joints"]
            for joint in joints:
                self.document.item("nodes", joint)
            binds = np.repeat(np.eye(4)[None], len(joints), axis=0)
            if "inverseBindMatrices" in skin:
                binds = read_accessor(self.document, skin["inverseBindMatrices"]).astype(np.float64)
            if not joints or len(binds) < len(joints) or binds.shape[1:] != (4, 4) or not np.isfinite(binds).all():
                raise AssetError(f"{self.document.path}: skins[{index}] is damaged; re-export the model")
            self._skins[index] = (len(self._slot_nodes), len(joints))
            self._slot_nodes.extend(joints)
            self._slot_binds.extend(binds[: len(joints)])
        return self._skins[index]

    def _add_morph(self, node: int, mesh: dict[str, Any], primitive: dict[str, Any], start: int, count: int) -> None:
        targets = primitive.get("targets", [])
        if not targets:
            return
        self._delta_rows += len(targets) * count
        if self._delta_rows > MAX_DELTA_ROWS:
            raise AssetError(f"{self.document.path}: has more than {MAX_DELTA_ROWS} morph offsets; simplify the model")
        deltas = np.zeros((len(targets), count, 3), np.float32)
        for number, target in enumerate(targets):
            if "POSITION" in target:
                values = read_accessor(self.document, target["POSITION"])
                if values.shape != (count, 3) or not np.isfinite(values).all():
                    raise AssetError(f"{self.document.path}: a morph target of nodes[{node}] is damaged")
                deltas[number] = values
        self._morphs.append(_Morph(node=node, start=start, deltas=deltas))
        rest = self.document.json["nodes"][node].get("weights", mesh.get("weights", [0.0] * len(targets)))
        self._rest_weights[node] = np.array(rest, np.float64)

    def _turn_mirrored(self, parts: list[Part]) -> tuple[Part, ...]:
        """Turn over the faces of parts that their node mirrors (glTF 2.0 section 3.7.4), judged at rest."""
        mirrored = np.linalg.det(self._blended(None, 0.0)[:, :, :3]) < 0
        result = []
        for part in parts:
            flipped = bool(mirrored[part.vertex_start : part.vertex_start + part.vertex_count].mean() > 0.5)
            if flipped:
                rows = slice(part.face_start, part.face_start + part.face_count)
                self.faces[rows] = self.faces[rows, ::-1]
            result.append(
                Part(**{name: getattr(part, name) for name in Part.__slots__ if name != "flipped"}, flipped=flipped)
            )
        return tuple(result)


def _vertex_colors(arrays: dict[str, np.ndarray], path: Any) -> np.ndarray:
    """Return `[N, 4]` float32 linear vertex colours; ones where there are none."""
    colors = np.ones((len(arrays["POSITION"]), 4), np.float32)
    stored = arrays.get("COLOR_0")
    if stored is None:
        return colors
    if stored.ndim != 2 or stored.shape[1] not in (3, 4):
        raise AssetError(f"{path}: COLOR_0 has shape {stored.shape}; expected three or four components")
    values = stored.astype(np.float32)
    if stored.dtype.kind in "ui":  # integers without the normalised flag, which the specification asks for
        values /= np.iinfo(stored.dtype).max
    colors[:, : stored.shape[1]] = np.nan_to_num(values).clip(0.0, 1.0)
    return colors
