"""The animated GLB: the user's own mesh and materials, moved by the fitted graph.

A deformation graph is a glTF skin: nodes become joints, their rotations and translations become keyframes. With the
similarity canonical = s Q user + tau, a joint rests at the node in the user's frame, turns by Q^T R_k Q and shifts by
Q^T t_k / s.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from animate4d.assets.asset import Asset
from animate4d.assets.reskin import append_surfaces, output_frame
from animate4d.core.motion import GraphMotion
from animate4d.io.glb_builder import GlbBuilder


def write_animated_glb(
    asset: Asset, motion: GraphMotion, out: Path, *, name: str = "animation", loop: bool = False
) -> None:
    """Write the asset with the motion as its one animation, in the user's frame and units.

    Old animations and skins are dropped; frame 0 is the pose of `asset.mesh`. Materials, textures and names stay as in
    the file. Keyframe times are `motion.times` counted from its first.

    Args:
        asset: a mesh asset; `motion` was fitted to its vertices.
        motion: at most four nodes per vertex.
        out: the GLB to write.
        name: of the animation.
        loop: append frame 0 at the end so that the animation repeats without a jump.

    Raises:
        AssetError: the asset is a splat cloud.
        ValueError: the motion belongs to another mesh, has more than four nodes per vertex, or is not finite.
    """
    _check(asset, motion)
    frame = output_frame(asset)
    nodes = frame.invert(motion.nodes.astype(np.float64)).astype(np.float32)
    builder = GlbBuilder()
    count = len(nodes)
    for index, place in enumerate(nodes):
        builder.append("nodes", {"name": f"graph_{index:03d}", "translation": place.astype(np.float64).tolist()})
    root = builder.append("nodes", {"name": "deformation_graph", "children": list(range(count))})
    inverse = np.repeat(np.eye(4, dtype=np.float32)[None], count, axis=0)
    inverse[:, 3, :3] = -nodes
    skin = builder.append(
        "skins",
        {"inverseBindMatrices": builder.add_accessor(inverse), "joints": list(range(count)), "skeleton": root},
    )
    joints, weights = merge_influences(motion.vertex_nodes, motion.vertex_weights)
    surfaces = append_surfaces(builder, asset, joints, weights, skin)
    builder.append("scenes", {"name": asset.name, "nodes": [root, *surfaces]})
    builder.document["scene"] = 0

    shifts = (motion.translations.astype(np.float64) @ frame.rotation) / frame.scale
    shifts[0] = 0
    vectors = motion.rotations.astype(np.float64) @ frame.rotation
    vectors[0] = 0
    quaternions = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_quat().reshape(*vectors.shape[:2], 4)
    times = np.asarray(motion.times, np.float64) - motion.times[0]
    if loop and len(times) > 1:
        times = np.append(times, times[-1] + (times[-1] - times[-2]))
        shifts = np.concatenate([shifts, shifts[:1]])
        quaternions = np.concatenate([quaternions, quaternions[:1]])
    quaternions = same_sign(quaternions).astype(np.float32)
    quaternions /= np.linalg.norm(quaternions, axis=-1, keepdims=True)
    moving = nodes.astype(np.float64) + shifts
    channels: list[tuple[int, str, np.ndarray]] = []
    for index in range(count):
        channels.append((index, "translation", moving[:, index]))
        channels.append((index, "rotation", quaternions[:, index]))
    builder.add_animation(name, times, channels)
    builder.save(out)


def merge_influences(nodes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add up weights of nodes that occur twice for a vertex and pad to four per vertex.

    Args:
        nodes: `[N, K]` node indices, K <= 4.
        weights: `[N, K]`.

    Returns:
        Joints `[N, 4]` and weights `[N, 4]`; a joint of zero weight is 0.
    """
    count, width = nodes.shape
    joints = np.zeros((count, 4), np.int64)
    merged = np.zeros((count, 4), np.float64)
    joints[:, :width], merged[:, :width] = nodes, weights
    for later in range(1, width):
        for earlier in range(later):
            same = (joints[:, earlier] == joints[:, later]) & (merged[:, later] > 0)
            merged[same, earlier] += merged[same, later]
            merged[same, later] = 0
    joints[merged <= 0] = 0
    return joints, merged


def same_sign(quaternions: np.ndarray) -> np.ndarray:
    """Flip `[T, M, 4]` quaternions so that neighbours in time never turn the long way round."""
    result = quaternions.copy()
    for index in range(1, len(result)):
        result[index] *= np.where((result[index] * result[index - 1]).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    return result


def _check(asset: Asset, motion: GraphMotion) -> None:
    if asset.mesh is not None and len(motion.vertex_nodes) != len(asset.mesh.vertices):
        raise ValueError(
            f"the motion moves {len(motion.vertex_nodes)} vertices, {asset.path} has {len(asset.mesh.vertices)}"
        )
    if motion.vertex_nodes.shape[1] > 4:
        raise ValueError(f"{motion.vertex_nodes.shape[1]} nodes per vertex; a glTF skin holds 4")
    if not all(np.isfinite(a).all() for a in (motion.rotations, motion.translations, motion.vertex_weights)):
        raise ValueError("the motion is not finite")
