"""Splats as files: one static 3DGS PLY, and on request one PLY per frame, in the user's frame and units.

Splats keep their row from file to file, so identity across frames is the row number. A sequence is named
`<stem>_0000.ply`, `<stem>_0001.ply`...: a common prefix and a trailing number is what editors play on their timeline.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from animate4d.assets.asset import Asset
from animate4d.assets.normalise import UP_ROTATIONS
from animate4d.assets.splat_frame import splats_to_user
from animate4d.core.motion import GraphMotion, SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.io.atomic import atomic_folder, write_bytes
from animate4d.io.ply import write_splat_ply

MAX_SEQUENCE_BYTES = 256 << 20
"""Largest sequence of PLY files written without being asked: 16 frames of 60 000 splats with all harmonics."""


def write_splats(asset: Asset, splats: SplatCloud, out: Path) -> None:
    """Write canonical splats as a 3DGS PLY in the frame of the asset's file; its up axis is noted in the header."""
    write_splat_ply(out, splats_to_user(splats, asset.to_canonical), up=up_axis(asset))


def write_splat_sequence(
    asset: Asset, splats: SplatCloud, means: np.ndarray, quats: np.ndarray, folder: Path, *, stem: str = "frame"
) -> list[Path]:
    """Write one PLY per frame into a folder that appears when all of them are there.

    Args:
        asset: whose frame the files are in.
        splats: canonical, at frame 0: sizes, opacities and colours.
        means: `[T, N, 3]` canonical centres.
        quats: `[T, N, 4]` wxyz.
        folder: the folder to create; replaced if it exists.
        stem: file names are `<stem>_0000.ply` and so on.

    Returns:
        The files, in order.
    """
    quats = aligned(quats)
    names = [f"{stem}_{frame:04d}.ply" for frame in range(len(means))]
    with atomic_folder(folder) as work:
        for name, centres, turns in zip(names, means, quats, strict=True):
            write_splats(asset, replace(splats, means=centres, quats=turns), work / name)
    return [folder / name for name in names]


def write_trajectories(
    asset: Asset, splats: SplatCloud, moved: SplatMotion, times: np.ndarray, folder: Path
) -> list[str]:
    """Write where every splat goes: `motion.npz`, and a PLY per frame in `splats/frames` unless that is too much.

    The archive holds `means [T, N, 3]` and `quats [T, N, 4]` (wxyz) in the frame of the user's file, and `times [T]`,
    seconds; rows are those of `splats/static.ply`.

    Args:
        asset: whose frame the files are in.
        splats: canonical, at frame 0.
        moved: canonical trajectories.
        times: of the frames.
        folder: of the bundle.

    Returns:
        What the user should know of the files.
    """
    means, quats = np.empty_like(moved.means), np.empty_like(moved.quats)
    bare = replace(splats, sh=splats.sh[:, :1])
    for frame in range(len(times)):
        there = splats_to_user(moved.at(frame, bare), asset.to_canonical)
        means[frame], quats[frame] = there.means, there.quats
    stream = io.BytesIO()
    np.savez_compressed(stream, means=means, quats=aligned(quats), times=np.asarray(times, np.float64))
    write_bytes(folder / "motion.npz", stream.getvalue())
    size = len(times) * len(splats.means) * 4 * (14 + 3 * splats.sh.shape[1])
    if size > MAX_SEQUENCE_BYTES:
        return [f"A PLY per frame would take {size / 1e9:.1f} GB: only motion.npz was written."]
    with atomic_folder(folder / "splats" / "frames") as work:
        for frame in range(len(times)):
            write_splats(asset, moved.at(frame, splats), work / f"frame_{frame:04d}.ply")
    return []


def move_splats(splats: SplatCloud, motion: GraphMotion, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Carry splats along with a mesh: each hangs on the nodes of its nearest vertex at rest.

    Args:
        splats: canonical, at frame 0.
        motion: fitted to `vertices`.
        vertices: `[N, 3]` canonical rest vertices.

    Returns:
        Centres `[T, S, 3]` and unit quaternions wxyz `[T, S, 4]`, both float32; frame 0 is the input.
    """
    _, nearest = cKDTree(vertices).query(splats.means)
    nodes, weights = motion.vertex_nodes[nearest], motion.vertex_weights[nearest].astype(np.float64)
    carried = replace(motion, vertex_nodes=nodes, vertex_weights=motion.vertex_weights[nearest])
    means = carried.apply(splats.means)
    own = Rotation.from_quat(splats.quats.astype(np.float64)[:, [1, 2, 3, 0]])
    quats = np.empty((len(means), len(splats.means), 4), np.float32)
    quats[0] = splats.quats
    turns = motion.rotation_matrices()
    for frame in range(1, len(means)):
        blended = np.einsum("sk,skij->sij", weights, turns[frame][nodes])
        left, _, right = np.linalg.svd(blended)
        left[:, :, 2] *= np.linalg.det(left @ right)[:, None]
        quats[frame] = (Rotation.from_matrix(left @ right) * own).as_quat()[:, [3, 0, 1, 2]]
    return means, aligned(quats)


def aligned(quats: np.ndarray) -> np.ndarray:
    """Flip the signs of `[T, N, 4]` quaternions so that neighbours in time never interpolate the long way round."""
    result = np.array(quats, np.float32)
    for frame in range(1, len(result)):
        result[frame] *= np.where((result[frame] * result[frame - 1]).sum(-1, keepdims=True) < 0, -1, 1)
    return result


def up_axis(asset: Asset) -> str:
    """Return the up axis ("y", "z" or "-y") of the frame the asset's file is in."""
    return next(up for up, turn in UP_ROTATIONS.items() if np.allclose(turn, asset.to_canonical.rotation))
