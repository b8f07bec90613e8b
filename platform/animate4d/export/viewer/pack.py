"""Arrays and pictures inside a page: one deflated block as base64 text, with a table of what lies where.

Integers of 16 bits are stored as a plane of low bytes and a plane of high bytes, and trajectories as differences from
frame to frame: together a quarter off what deflate alone makes of them. `data.js` is the other half.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

LEVEL = 9
ALIGNMENT = 4
_TYPES = {"uint8", "int8", "uint16", "int16", "uint32", "float32"}


def pack(arrays: Mapping[str, np.ndarray], moving: set[str]) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the table and the text.

    Args:
        arrays: by name; bytes of a file are an array of uint8.
        moving: names whose first axis is time.
    """
    table: dict[str, dict[str, Any]] = {}
    body = bytearray()
    for name, array in arrays.items():
        if array.dtype.name not in _TYPES:
            raise ValueError(f"{name} is {array.dtype}: a page holds {', '.join(sorted(_TYPES))}")
        stored = np.ascontiguousarray(array)
        if name in moving:
            # differences wrap around like the integers they are of
            stored = np.concatenate([stored[:1], stored[1:] - stored[:-1]])
        data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        if stored.itemsize == 2:
            data = np.frombuffer(data, np.uint8).reshape(-1, 2).T.tobytes()
        body += b"\0" * (-len(body) % ALIGNMENT)
        table[name] = {"type": array.dtype.name, "shape": list(array.shape), "at": len(body), "moving": name in moving}
        body += data
    return table, base64.b64encode(zlib.compress(bytes(body), LEVEL)).decode()


def unpack(table: Mapping[str, Mapping[str, Any]], text: str) -> dict[str, np.ndarray]:
    """Return the arrays again."""
    body = zlib.decompress(base64.b64decode(text))
    arrays = {}
    for name, entry in table.items():
        kind = np.dtype(entry["type"])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        data = np.frombuffer(body, np.uint8, count * kind.itemsize, entry["at"])
        if kind.itemsize == 2:
            data = np.ascontiguousarray(data.reshape(2, -1).T).ravel()
        array = data.view(kind.newbyteorder("<")).astype(kind).reshape(entry["shape"])
        arrays[name] = np.cumsum(array, axis=0, dtype=kind) if entry["moving"] else array
    return arrays
