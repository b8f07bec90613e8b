"""Named arrays as npz bytes, read back only when every name, dtype and shape is the expected one.

The header of each array is checked before its body is read, so a file that claims 10^12 elements costs nothing.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from animate4d.core.errors import ShardError

MAX_HEADER_BYTES = 10_000
"""Longest npy header that is looked at; numpy's own limit."""


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return npz bytes."""
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **dict(arrays))
    return stream.getvalue()


def unpack_arrays(data: bytes, expected: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> dict[str, np.ndarray]:
    """Read npz bytes.

    Args:
        data: the file.
        expected: name -> (dtype name, shape); a None in a shape accepts any length up to 10^6.

    Raises:
        ShardError: not an npz, a name is missing, or a dtype or shape differs.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: read_checked(archive, name, *spec) for name, spec in expected.items()}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, zlib.error, NotImplementedError) as error:
        raise ShardError(f"not a readable npz: {error}") from error


def array_names(data: bytes) -> frozenset[str]:
    """Return the names of the arrays in npz bytes; raises ShardError where it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError) as error:
        raise ShardError(f"not a readable npz: {error}") from error


def read_checked(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Read one array of an open npz after checking its header."""
    if f"{name}.npy" not in archive.namelist():
        raise ShardError(f"array '{name}' is missing")
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        size = stream.read(2 if version == (1, 0) else 4)
        header = stream.read(min(int.from_bytes(size, "little"), MAX_HEADER_BYTES))
        found_shape, fortran, found_dtype = parse_header(version, size + header)
        if found_dtype.hasobject or found_dtype != np.dtype(dtype) or fortran or not shape_fits(found_shape, shape):
            raise ShardError(f"array '{name}' is {found_dtype} {found_shape}, expected {dtype} {shape}")
        wanted = math.prod(found_shape) * found_dtype.itemsize
        body = stream.read(wanted + 1)
        if len(body) != wanted:
            raise ShardError(f"array '{name}' has {len(body)} bytes, its header promises {wanted}")
        return np.frombuffer(body, found_dtype).reshape(found_shape)


def shape_fits(found: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Return whether a shape is the wanted one; a None there stands for any length up to 10^6."""
    return len(found) == len(wanted) and all(
        have == want or (want is None and 0 <= have <= 10**6) for have, want in zip(found, wanted, strict=True)
    )


@lru_cache(maxsize=512)
def parse_header(version: tuple[int, int], header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, Fortran order and dtype that an npy header says; kept, because numpy takes 0.1 ms for each.

    Raises:
        ValueError: it is no header.
    """
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(io.BytesIO(header))
