"""`motion.npz`, the lossless master of a motion: what was fitted, to the bit, from which every other export follows.

All positions are canonical (z up, front on +x, bounding sphere of radius 0.8); canonical = scale * rotation @ user +
translation leads back to the asset's own frame.

| key | shape and type | what |
|---|---|---|
| `schema` | int64 | 1 |
| `times` | `[T]` float64 | seconds |
| `scale`, `rotation`, `translation` | float64, `[3, 3]`, `[3]` | user's frame -> canonical |
| `splat_means` | `[T, N, 3]` float32 | centres; row n is one splat at all times |
| `splat_quats` | `[T, N, 4]` float32 | wxyz, unit length, no flips of sign from frame to frame |
| `splat_scales` | `[N, 3]` or `[T, N, 3]` float32 | standard deviations, linear |
| `splat_opacities` | `[N]` float32 | in (0, 1) |
| `splat_sh` | `[N, K, 3]` float32 | harmonics of frame 0; RGB = 0.5 + 0.28209479 * sh[:, 0] |
| `splat_sh_moving` | `[T, N, 3]` float32 | only where colours change: the constant harmonic |
| `vertices` | `[T, M, 3]` float32 | of the mesh, in the order of its file; only where there is a mesh |
| `nodes` | `[G, 3]` float32 | rest positions; only for a deformation graph, like all that follow |
| `node_rotations`, `node_translations` | `[T, G, 3]` float32 | axis-angle in radians; frame 0 is zero |
| `vertex_nodes`, `vertex_weights` | `[M, 4]` int32, float32 | of the mesh's vertices, or of the splats without one |
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from animate4d.core.motion import GraphMotion
from animate4d.export.moving_object import MovingObject
from animate4d.io.atomic import write_bytes

SCHEMA = 1


def write_motion(path: Path, thing: MovingObject) -> None:
    """Write the archive atomically."""
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **motion_arrays(thing))
    write_bytes(path, stream.getvalue())


def motion_arrays(thing: MovingObject) -> dict[str, np.ndarray]:
    """Return the arrays of the archive by name."""
    cloud, splats, motion, frame = thing.cloud, thing.splats, thing.motion, thing.asset.to_canonical
    arrays = {
        "schema": np.int64(SCHEMA),
        "times": np.asarray(motion.times, np.float64),
        "scale": np.float64(frame.scale),
        "rotation": np.asarray(frame.rotation, np.float64),
        "translation": np.asarray(frame.translation, np.float64),
        "splat_means": splats.means,
        "splat_quats": splats.quats,
        "splat_scales": cloud.scales if splats.scales is None else splats.scales,
        "splat_opacities": cloud.opacities,
        "splat_sh": cloud.sh,
    }
    if splats.sh is not None:
        arrays["splat_sh_moving"] = splats.sh
    if thing.vertices is not None:
        arrays["vertices"] = thing.vertices
    if isinstance(motion, GraphMotion):
        arrays |= {"nodes": motion.nodes, "vertex_nodes": motion.vertex_nodes, "vertex_weights": motion.vertex_weights}
        arrays |= {"node_rotations": motion.rotations, "node_translations": motion.translations}
    return {name: np.asarray(values) for name, values in arrays.items()}


def read_motion(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an archive by name; pickles are refused.

    Raises:
        ValueError: not an archive of ours, or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as a motion archive ({error})") from error
    if int(arrays.get("schema", -1)) != SCHEMA:
        raise ValueError(f"{path} is not a motion archive of schema {SCHEMA}")
    return arrays
