"""Writing safetensors one tensor at a time, so that a model of any size costs one tensor of memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import torch

from animate4d.core.errors import ModelError
from animate4d.io.progress import Progress

CODES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
"""What safetensors calls the types we write."""


class ByteProgress:
    """A progress line that counts bytes, in megabytes; use as a context manager."""

    def __init__(self, total: int, label: str) -> None:
        self._bar = Progress(total >> 20, f"{label}, MB")
        self._last = -1

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)

    def __call__(self, done: int, note: str = "") -> None:
        """Say how many bytes are done."""
        if done >> 20 != self._last:
            self._last = done >> 20
            self._bar.update(self._last, note)


def write_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: Callable[[str], torch.dtype],
    progress: Callable[[int], None],
    *,
    origin: Callable[[str], str],
) -> int:
    """Write a safetensors file; each tensor is asked for once, converted, checked and written.

    Args:
        path: new file, written in place: write into a folder or under a name that is renamed when all went well.
        tensors: name -> tensor, best read lazily.
        shapes: name -> shape of what to write, in this order.
        dtype: name -> type to store it as.
        progress: called with the bytes written so far.
        origin: name -> where the tensor comes from, for the message about a bad one.

    Returns:
        The file's size in bytes.

    Raises:
        ModelError: a tensor holds NaN or infinities, or does in the type it is stored as.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + prod(shape) * dtype(name).itemsize
        header[name] = {"dtype": CODES[dtype(name)], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        written = 0
        for name, shape in shapes.items():
            value = tensors[name].to(dtype(name)).reshape(shape).contiguous()
            if value.is_floating_point() and not torch.isfinite(value).all():
                kind = str(dtype(name)).removeprefix("torch.")
                raise ModelError(f"{origin(name)}: {name} holds NaN or infinite numbers as {kind}; the file is damaged")
            stream.write(value.reshape(-1).view(torch.uint8).numpy().data)
            written += value.nbytes
            progress(written)
        stream.flush()
        os.fsync(stream.fileno())
    return 8 + len(text) + written


def total_bytes(shapes: Mapping[str, tuple[int, ...]], dtype: Callable[[str], torch.dtype]) -> int:
    """Return how much room the tensors take."""
    return sum(prod(shape) * dtype(name).itemsize for name, shape in shapes.items())
