"""The splats of a glTF scene, carried by their nodes into the file's world frame."""

from __future__ import annotations

import numpy as np

from animate4d.assets.pose import NodeTree, drawn_nodes
from animate4d.core.errors import AssetError
from animate4d.core.harmonics import turn_harmonics
from animate4d.io.gltf import GltfDocument, is_surface
from animate4d.io.splat_file import SplatFile, check_count, sound_splats
from animate4d.io.splat_glb import is_splat_primitive, read_splat_primitive


def is_splat_scene(document: GltfDocument) -> bool:
    """Whether a file draws splats and no triangles."""
    primitives = [primitive for mesh in document.json.get("meshes", []) for primitive in mesh["primitives"]]
    return any(map(is_splat_primitive, primitives)) and not any(map(is_surface, primitives))


def splats_of_scene(document: GltfDocument) -> SplatFile:
    """Gather the splats of all drawn nodes, at rest; parts with fewer harmonics than others get zeros.

    Raises:
        AssetError: the file is malformed or draws no splats, or too many.
    """
    tree = NodeTree(document)
    matrices = tree.global_matrices(None, 0.0)
    parts, warnings, count = [], [], 0
    for node in drawn_nodes(document, tree):
        for primitive in document.item("meshes", document.json["nodes"][node]["mesh"])["primitives"]:
            if is_splat_primitive(primitive):
                values, notes = read_splat_primitive(document, primitive)
                count += len(values["means"])
                check_count(document.path, count)
                parts.append(_carried(values, matrices[node]))
                warnings += notes
    if not parts:
        raise AssetError(f"{document.path}: its scene draws none of its splats; export the scene again")
    if document.json.get("animations"):
        warnings.append("animations of nodes that carry splats are left out")
    widest = max(part["sh"].shape[1] for part in parts)
    for part in parts:
        part["sh"] = np.pad(part["sh"], ((0, 0), (0, widest - part["sh"].shape[1]), (0, 0)))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return sound_splats(document.path, **joined, up="y", warnings=tuple(dict.fromkeys(warnings)))


def _carried(values: dict[str, np.ndarray], matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Return splats of a node's space in the world: covariance becomes A S A^T, harmonics turn by A's rotation."""
    if np.array_equal(matrix, np.eye(4)):
        return values
    from scipy.spatial.transform import Rotation

    linear = matrix[:3, :3]
    with np.errstate(all="ignore"):
        # what is not finite stays so, to be left out with the rest of its kind
        sound = np.isfinite(values["quats"]).all(1) & (np.abs(values["quats"]).max(1) > 0)
        xyzw = np.where(sound[:, None], values["quats"][:, [1, 2, 3, 0]], [0.0, 0.0, 0.0, 1.0])
        factors = linear @ (Rotation.from_quat(xyzw).as_matrix() * values["scales"][:, None, :])
        sound &= np.isfinite(factors).all((1, 2))
    left, spread, _ = np.linalg.svd(np.where(sound[:, None, None], factors, np.eye(3)))
    left[:, :, 2] *= np.linalg.det(left)[:, None]
    spread[~sound] = np.nan
    turn, _, back = np.linalg.svd(linear)
    turn[:, 2] *= np.linalg.det(turn @ back)
    return {
        "means": values["means"] @ linear.T + matrix[:3, 3],
        "quats": Rotation.from_matrix(left).as_quat()[:, [3, 0, 1, 2]],
        "scales": spread,
        "opacities": values["opacities"],
        "sh": turn_harmonics(values["sh"].astype(np.float32), turn @ back),
    }
