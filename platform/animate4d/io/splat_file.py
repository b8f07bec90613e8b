"""What every splat format comes down to: a cloud in the file's own frame, which way is up there, and what was mended.

One rule holds for all formats. A splat of which any number is not finite, or too large for a float32, cannot be drawn:
it is left out, and a warning says how many were. A file that is mostly of that kind is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from animate4d.core.errors import AssetError
from animate4d.core.splats import SplatCloud

Up = Literal["y", "z", "-y"]
"""Which way is up in a file. "y": glTF, OBJ and SPZ, front +z. "z": Blender and mesh PLY, front -y. "-y": captured
splats, front -z (x right, y down, z away from the viewer)."""

UP_AXES: tuple[Up, ...] = get_args(Up)

MAX_SPLATS = 5_000_000
"""Most splats of a file: captures of whole rooms have 1 to 5 million; with all harmonics that is 1.2 GB in memory."""

MAX_DEGREE = 3
"""Highest degree of harmonics kept; the basis of a fourth is not agreed on between formats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplatFile:
    """Splats as a file holds them.

    Attributes:
        path: the file.
        cloud: in the file's frame and units.
        up: up axis of the format, or the one the file notes.
        warnings: what was left out or mended, one sentence each.
    """

    path: Path
    cloud: SplatCloud
    up: Up
    warnings: tuple[str, ...] = ()


def check_count(path: Path, count: int) -> None:
    """Look at a declared number of splats before anything is allocated for them.

    Raises:
        AssetError: there are none, or more than `MAX_SPLATS`.
    """
    if count < 1:
        raise AssetError(f"{path}: this splat file holds no splats")
    if count > MAX_SPLATS:
        raise AssetError(f"{path}: declares {count} splats, more than {MAX_SPLATS}; crop or thin out the scene first")


def sound_splats(
    path: Path,
    *,
    means: np.ndarray,
    quats: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    sh: np.ndarray,
    up: Up,
    warnings: tuple[str, ...] = (),
) -> SplatFile:
    """Make a cloud of what a reader decoded, leaving out splats that cannot be drawn (see the module).

    Args:
        path: the file.
        means: `[N, 3]`.
        quats: `[N, 4]` wxyz of any length; zero stands for no rotation.
        scales: `[N, 3]` linear; signs do not matter.
        opacities: `[N]`, cut to [0, 1].
        sh: `[N, K, 3]`, K = 1, 4, 9 or 16.
        up: up axis of the file's frame.
        warnings: of the reader.

    Raises:
        AssetError: no splats, or more than half of them damaged.
    """
    check_count(path, len(means))
    with np.errstate(all="ignore"):
        length = np.linalg.norm(quats.astype(np.float64), axis=1, keepdims=True)
        unit = np.where(length > 0, quats / np.where(length > 0, length, 1.0), [1.0, 0.0, 0.0, 0.0])
        arrays = {"means": means, "quats": unit, "scales": np.abs(scales), "opacities": opacities.clip(0, 1), "sh": sh}
        arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in arrays.items()}
    sound = np.ones(len(means), bool)
    for values in arrays.values():
        sound &= np.isfinite(values).reshape(len(sound), -1).all(1)
    bad = int((~sound).sum())
    if 2 * bad > len(sound):
        raise AssetError(f"{path}: {bad} of {len(sound)} splats hold NaN or infinite numbers; re-export the scene")
    if bad:
        arrays = {name: values[sound] for name, values in arrays.items()}
        warnings = (*warnings, f"{bad} of {len(sound)} splats hold NaN or infinite numbers: left out")
    return SplatFile(path=path, cloud=SplatCloud(**arrays), up=up, warnings=warnings)
