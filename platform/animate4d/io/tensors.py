"""Named arrays with a note in front, as safetensors bytes: opened in microseconds, unlike an npz.

Nothing in such a file can run code, and one that claims more than it holds is refused before anything is allocated.
The format has no checksum, so a CRC-32 of the arrays stands before the note; in one entry with it, because the library
writes several entries in random order and equal arrays are to give equal bytes.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping
from typing import IO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from animate4d.core.errors import ShardError
from animate4d.io.arrays import shape_fits

ENTRY = "note"
MAX_HEADER_BYTES = 100_000
"""Longest header that is looked at; ours have a few hundred bytes."""


def pack_tensors(arrays: Mapping[str, np.ndarray], note: str) -> bytes:
    """Return safetensors bytes with a note in their metadata."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(arrays, metadata={ENTRY: checksum(arrays) + note})


def read_note(stream: IO[bytes]) -> str:
    """Return a file's note without reading the arrays; raises ShardError where there is none, or the file is cut."""
    return _entry(stream)[8:]


def unpack_tensors(
    data: bytes, expected: Mapping[str, tuple[str, tuple[int | None, ...]]]
) -> tuple[dict[str, np.ndarray], str]:
    """Return the expected arrays of what `pack_tensors` made, and its note.

    Args:
        data: the file.
        expected: name -> (dtype name, shape); a None in a shape accepts any length up to 10^6.

    Raises:
        ShardError: damaged, a name is missing, or a dtype or shape differs.
    """
    entry = _entry(io.BytesIO(data))
    try:
        found = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ShardError(f"not readable as safetensors: {error}") from error
    for name, (dtype, shape) in expected.items():
        if name not in found:
            raise ShardError(f"array '{name}' is missing")
        array = found[name]
        if array.dtype != np.dtype(dtype) or not shape_fits(array.shape, shape):
            raise ShardError(f"array '{name}' is {array.dtype} {array.shape}, expected {dtype} {shape}")
    if checksum(found) != entry[:8]:
        raise ShardError("its checksum does not hold")
    return {name: found[name] for name in expected}, entry[8:]


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the CRC-32 of the arrays' bytes, in the order of their names."""
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].data, total)
    return f"{total:08x}"


def _entry(stream: IO[bytes]) -> str:
    size = int.from_bytes(stream.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise ShardError("not readable as safetensors: its header is out of all proportion")
    try:
        header = json.loads(stream.read(size))
        note = str(header.pop("__metadata__")[ENTRY])
        end = 8 + size + max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ShardError(f"not readable as safetensors with a note: {type(error).__name__}") from error
    place, length = stream.tell(), stream.seek(0, io.SEEK_END)
    stream.seek(place)
    if length != end:
        raise ShardError(f"not readable as safetensors: it has {length} bytes, its header says {end}")
    return note
