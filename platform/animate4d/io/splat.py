"""`.splat` files: 32 bytes a splat and nothing else, no header and no harmonics.

A record is the centre and the linear scales as six float32, colour and opacity as four bytes, and the quaternion wxyz
as four bytes, (byte - 128) / 128. The frame is that of 3DGS PLY files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from animate4d.core.errors import AssetError
from animate4d.core.harmonics import SH0
from animate4d.io.resources import read_bytes
from animate4d.io.splat_file import SplatFile, check_count, sound_splats

RECORD = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])

_LIKELY = 0.9
"""Share of records that must look like splats; other bytes, images or text, score below a quarter."""


def looks_like_splats(head: bytes) -> bool:
    """Whether a file that starts so is `.splat`, told by finite centres, positive scales and unit quaternions."""
    if len(head) < RECORD.itemsize:
        return False
    rows = np.frombuffer(head, RECORD, len(head) // RECORD.itemsize)
    with np.errstate(all="ignore"):
        length = np.linalg.norm((rows["quats"].astype(np.float32) - 128) / 128, axis=1)
        centre, scale = np.abs(rows["means"]).max(1), rows["scales"]
        likely = (np.abs(length - 1) < 0.05) & (centre < 1e9) & (scale >= 0).all(1) & (scale < 1e9).all(1)
    return bool(likely.mean() >= _LIKELY)


def read_splat(path: Path) -> SplatFile:
    """Read a `.splat` file.

    Raises:
        AssetError: it is empty, cut inside a record, or too large.
    """
    path = Path(path)
    data = read_bytes(path)
    if len(data) % RECORD.itemsize:
        raise AssetError(
            f"{path}: {len(data)} bytes are no whole number of {RECORD.itemsize}-byte splats; the file is cut"
        )
    check_count(path, len(data) // RECORD.itemsize)
    rows = np.frombuffer(data, RECORD)
    rgba = rows["rgba"].astype(np.float32) / 255
    return sound_splats(
        path,
        means=rows["means"],
        quats=(rows["quats"].astype(np.float32) - 128) / 128,
        scales=rows["scales"],
        opacities=rgba[:, 3],
        sh=((rgba[:, :3] - 0.5) / SH0)[:, None],
        up="-y",
    )
