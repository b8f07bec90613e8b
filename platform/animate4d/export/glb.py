"""The animated GLB: the user's own mesh and materials, moved by a skin or by morph targets.

A deformation graph is a glTF skin: nodes become joints, their rotations and translations become keyframes. With the
similarity canonical = s Q user + tau, a joint rests at the node in the user's frame, turns by Q^T R_k Q and shifts by
Q^T t_k / s. Any other motion is a blend of key shapes (`key_shapes`).

An asset's own skins and animations are not in the file: the fitted motion moves the vertices from frame 0 on, and two
skins cannot move one vertex. Its rig stays in the asset's own file, whose mesh, materials and names are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from animate4d.assets.asset import Asset
from animate4d.assets.reskin import ShapeBinding, SkinBinding, append_surfaces, output_frame
from animate4d.core.motion import GraphMotion, Motion, VertexMotion
from animate4d.export.key_shapes import find_key_shapes, moving_normals
from animate4d.io.glb_builder import GlbBuilder

MORPH_BOUND = 0.001
"""Largest distance of a vertex from its place that morph targets may leave, canonical: an eighth of a pixel at 256."""


def write_animated_glb(
    asset: Asset, motion: Motion, out: Path, *, name: str = "animation", fps: float | None = None
) -> None:
    """Write the asset with the motion as its one animation, in the user's frame and units.

    Old animations and skins are dropped; frame 0 is the pose of `asset.mesh`. Materials, textures and names stay as in
    the file. A graph becomes a skin, exactly; other motion becomes morph targets within `MORPH_BOUND`.

    Args:
        asset: a mesh asset; `motion` was fitted to its vertices.
        motion: at most four nodes per vertex.
        out: the GLB to write.
        name: of the animation.
        fps: keyframes per second; None for a keyframe per frame of the motion. Between frames the motion is the one
            that a viewer interpolates, so more keyframes do not change it.

    Raises:
        AssetError: the asset is a splat cloud.
        ValueError: the motion belongs to another mesh, has more than four nodes per vertex, or is not finite.
    """
    _check(asset, motion)
    if isinstance(motion, GraphMotion):
        _write_skinned(asset, motion, out, name, fps)
    else:
        _write_morphed(asset, motion.offsets, motion.times, out, name, fps)


def write_morph_glb(
    asset: Asset, motion: Motion, out: Path, *, name: str = "animation", fps: float | None = None
) -> None:
    """Write any motion as morph targets, for programs that read no skins; see `write_animated_glb`."""
    _check(asset, motion)
    assert asset.mesh is not None
    offsets = motion.offsets if isinstance(motion, VertexMotion) else motion.apply(asset.mesh.vertices)
    _write_morphed(asset, offsets - offsets[:1], motion.times, out, name, fps)


def _write_skinned(asset: Asset, motion: GraphMotion, out: Path, name: str, fps: float | None) -> None:
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
    surfaces = append_surfaces(builder, asset, SkinBinding(skin, joints, weights))

    shifts = (motion.translations.astype(np.float64) @ frame.rotation) / frame.scale
    vectors = motion.rotations.astype(np.float64) @ frame.rotation
    quaternions = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_quat().reshape(*vectors.shape[:2], 4)
    times, keys = _keyframes(motion.times, fps)
    if fps is not None:
        shifts = _between(shifts, keys)
        quaternions = np.stack([_turned(quaternions[:, node], keys) for node in range(count)], axis=1)
    quaternions = same_sign(quaternions).astype(np.float32)
    quaternions /= np.linalg.norm(quaternions, axis=-1, keepdims=True)
    moving = nodes.astype(np.float64) + shifts
    channels: list[tuple[int, str, np.ndarray]] = []
    for index in range(count):
        channels.append((index, "translation", moving[:, index]))
        channels.append((index, "rotation", quaternions[:, index]))
    _finish(builder, asset, [root, *surfaces], name, times, channels, out)


def _write_morphed(
    asset: Asset, offsets: np.ndarray, clock: np.ndarray, out: Path, name: str, fps: float | None
) -> None:
    assert asset.mesh is not None
    frame = output_frame(asset)
    shapes, weights = find_key_shapes(offsets, MORPH_BOUND)
    turns = moving_normals(asset.mesh, offsets, weights)
    builder = GlbBuilder()
    binding = ShapeBinding((shapes @ frame.rotation) / frame.scale, turns @ frame.rotation)
    surfaces = append_surfaces(builder, asset, binding)
    times, keys = _keyframes(clock, fps)
    values = weights if fps is None else _between(weights, keys)
    # A motion that stands still needs no shape, and no animation either.
    channels = [(node, "weights", values.reshape(-1)) for node in surfaces] if len(shapes) else []
    for node in surfaces:
        mesh = builder.document["meshes"][builder.document["nodes"][node]["mesh"]]
        if len(shapes):
            mesh["weights"] = [0.0] * len(shapes)
            mesh["extras"] = {"targetNames": [f"shape_{index:02d}" for index in range(len(shapes))]}
    _finish(builder, asset, surfaces, name, times, channels, out)


def _finish(
    builder: GlbBuilder,
    asset: Asset,
    roots: list[int],
    name: str,
    times: np.ndarray,
    channels: list[tuple[int, str, np.ndarray]],
    out: Path,
) -> None:
    scene: dict[str, Any] = {"name": asset.name, "nodes": roots}
    builder.append("scenes", scene)
    builder.document["scene"] = 0
    if channels:
        builder.add_animation(name, times, channels)
    builder.save(out)


def _keyframes(clock: np.ndarray, fps: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return keyframe times `[K]` from 0, and where they lie among the frames, `[K]` in frames."""
    times = np.asarray(clock, np.float64) - clock[0]
    if fps is None or len(times) < 2:
        return times, np.arange(len(times), dtype=np.float64)
    grid = np.arange(int(np.floor(times[-1] * fps + 1e-6)) + 1) / fps
    if times[-1] - grid[-1] > 1e-6:
        grid = np.append(grid, times[-1])
    return grid, np.interp(grid, times, np.arange(len(times)))


def _between(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Interpolate `[T, ...]` linearly at fractional frames `[K]`."""
    before = np.minimum(keys.astype(int), len(values) - 1)
    after = np.minimum(before + 1, len(values) - 1)
    share = (keys - before).reshape(-1, *[1] * (values.ndim - 1))
    return values[before] * (1 - share) + values[after] * share


def _turned(quaternions: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Interpolate xyzw quaternions `[T, 4]` on the sphere, as glTF's LINEAR does for rotations."""
    if len(quaternions) < 2:
        return quaternions
    return Slerp(np.arange(len(quaternions)), Rotation.from_quat(quaternions))(keys).as_quat()


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


def _check(asset: Asset, motion: Motion) -> None:
    moved = motion.vertex_nodes if isinstance(motion, GraphMotion) else motion.offsets[0]
    if asset.mesh is not None and len(moved) != len(asset.mesh.vertices):
        raise ValueError(f"the motion moves {len(moved)} vertices, {asset.path} has {len(asset.mesh.vertices)}")
    if isinstance(motion, VertexMotion):
        numbers = [motion.offsets]
    else:
        if motion.vertex_nodes.shape[1] > 4:
            raise ValueError(f"{motion.vertex_nodes.shape[1]} nodes per vertex; a glTF skin holds 4")
        numbers = [motion.rotations, motion.translations, motion.vertex_weights]
    if not all(np.isfinite(array).all() for array in numbers):
        raise ValueError("the motion is not finite")
