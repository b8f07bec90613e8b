"""Compressed splat PLYs (as PlayCanvas and SuperSplat write them): bits per splat, ranges per chunk of 256.

Positions and logarithms of scales are 11-10-11 bits within their chunk's range, colour and opacity 8 bits each (newer
files give a colour range as well), rotations the three smaller components of a quaternion wxyz, 10 bits each, with the
number of the largest in the top two. Harmonics are bytes for -4 to 4, channel by channel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from animate4d.core.errors import AssetError
from animate4d.core.harmonics import SH0

CHUNK = 256
_AXES = ("x", "y", "z")
_RANGES = {
    "position": [f"{side}_{axis}" for side in ("min", "max") for axis in _AXES],
    "scale": [f"{side}_scale_{axis}" for side in ("min", "max") for axis in _AXES],
    "color": [f"{side}_{channel}" for side in ("min", "max") for channel in "rgb"],
}
_PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")


def unpack_splats(path: Path, elements: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Unpack the elements "chunk", "vertex" and, where there is one, "sh".

    Returns:
        means `[N, 3]`, quats `[N, 4]` wxyz, log_scales `[N, 3]`, opacities `[N]` in [0, 1], sh `[N, K, 3]`, float32.

    Raises:
        AssetError: properties are missing, or there are not as many chunks or harmonics as the splats need.
    """
    chunk, rows = elements["chunk"], elements.get("vertex", np.zeros(0))
    sh = elements.get("sh")
    names, found = set(chunk.dtype.names or ()), set(rows.dtype.names or ())
    absent = [name for name in (*_RANGES["position"], *_RANGES["scale"]) if name not in names]
    absent += [name for name in _PACKED if name not in found]
    if absent:
        raise AssetError(f"{path}: this compressed splat PLY lacks the properties {', '.join(absent)}")
    if any(rows[name].dtype.kind != "u" or rows[name].dtype.itemsize != 4 for name in _PACKED):
        raise AssetError(f"{path}: the packed properties of this compressed splat PLY are not of type uint")
    if len(chunk) != -(-len(rows) // CHUNK):
        raise AssetError(f"{path}: this compressed splat PLY has {len(chunk)} chunks for {len(rows)} splats")
    number = np.arange(len(rows)) // CHUNK

    def spread(share: np.ndarray, kind: str) -> np.ndarray:
        low, high = (np.stack([chunk[name] for name in _RANGES[kind][k : k + 3]], -1)[number] for k in (0, 3))
        return low + (high - low) * share

    rgba = _bits(rows["packed_color"], (24, 8), (16, 8), (8, 8), (0, 8))
    rgb = spread(rgba[:, :3], "color") if set(_RANGES["color"]) <= names else rgba[:, :3]
    return {
        "means": spread(_bits(rows["packed_position"], (21, 11), (11, 10), (0, 11)), "position"),
        "log_scales": spread(_bits(rows["packed_scale"], (21, 11), (11, 10), (0, 11)), "scale"),
        "quats": _smallest_three(rows["packed_rotation"]),
        "opacities": rgba[:, 3],
        "sh": np.concatenate([((rgb - 0.5) / np.float32(SH0))[:, None], _harmonics(path, sh, len(rows))], axis=1),
    }


def _bits(words: np.ndarray, *fields: tuple[int, int]) -> np.ndarray:
    """Return `[N, fields]` float32 in [0, 1] of (shift, width) bit fields."""
    shares = [((words >> np.uint32(shift)) & np.uint32(2**width - 1)) / (2**width - 1) for shift, width in fields]
    return np.stack(shares, -1).astype(np.float32)


def _smallest_three(words: np.ndarray) -> np.ndarray:
    """Return quaternions wxyz `[N, 4]`; the largest component is positive."""
    small = (_bits(words, (20, 10), (10, 10), (0, 10)) - 0.5) * np.float32(np.sqrt(2))
    largest = (words >> np.uint32(30)).astype(np.intp)
    quats = np.empty((len(words), 4), np.float32)
    places = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    np.put_along_axis(quats, places, small, 1)
    rest = np.sqrt(np.maximum(0, 1 - np.square(small).sum(1, keepdims=True)))
    np.put_along_axis(quats, largest[:, None], rest, 1)
    return quats


def _harmonics(path: Path, sh: np.ndarray | None, count: int) -> np.ndarray:
    """Return the coefficients after the constant one, `[N, K - 1, 3]`."""
    names = () if sh is None else sh.dtype.names or ()
    if sh is None or not names:
        return np.zeros((count, 0, 3), np.float32)
    wanted = [f"f_rest_{k}" for k in range(len(names))]
    if len(names) not in (9, 24, 45) or set(names) != set(wanted) or any(sh[name].dtype != np.uint8 for name in names):
        raise AssetError(f"{path}: the harmonics of this compressed splat PLY are not 9, 24 or 45 bytes f_rest_0...")
    if len(sh) != count:
        raise AssetError(f"{path}: this compressed splat PLY has harmonics for {len(sh)} of {count} splats")
    table = np.arange(256, dtype=np.float32) + 0.5
    # the first and last byte stand for the ends of the range, the others for the middle of their step
    table[0], table[-1] = 0, 256
    table = (table / 256 - 0.5) * 8
    return np.stack([table[sh[name]] for name in wanted], -1).reshape(count, 3, -1).transpose(0, 2, 1)
