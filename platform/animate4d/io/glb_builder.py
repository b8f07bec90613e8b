"""Put a glTF document together piece by piece: accessors, images and keyframes packed into one binary chunk.

The builder only knows the container; callers append nodes, meshes, skins and animations to `document` themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from animate4d.io.gltf import write_glb

ARRAY_BUFFER = 34962
ELEMENT_ARRAY_BUFFER = 34963

COMPONENT_TYPES = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
SHAPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}


class GlbBuilder:
    """Collects the JSON and the binary chunk of one GLB file.

    Attributes:
        document: the glTF JSON; empty top-level lists are dropped when saving.
    """

    def __init__(self, generator: str = "animate4d") -> None:
        self.document: dict[str, Any] = {"asset": {"version": "2.0", "generator": generator}}
        self._binary = bytearray()

    def append(self, kind: str, item: dict[str, Any]) -> int:
        """Append to the top-level list `kind` ("nodes", "meshes", ...) and return the index."""
        items = self.document.setdefault(kind, [])
        items.append(item)
        return len(items) - 1

    def add_view(self, data: bytes, target: int | None = None) -> int:
        """Append bytes, aligned to 4, as a buffer view; returns its index."""
        self._binary += b"\0" * (-len(self._binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self._binary += data
        return self.append("bufferViews", view)

    def add_accessor(
        self, array: np.ndarray, *, target: int | None = None, bounds: bool = False, normalized: bool = False
    ) -> int:
        """Append an array as an accessor.

        Args:
            array: `[N]`, `[N, 2..4]` or `[N, 4, 4]` (column-major, as glTF stores it) of a glTF component type. Rows
                of 8- and 16-bit vertex attributes are padded to 4 bytes, as the format demands.
            target: ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER or None.
            bounds: write min and max (positions and keyframe times need them).
            normalized: integers stand for [0, 1] or [-1, 1].

        Returns:
            The accessor's index.
        """
        array = np.ascontiguousarray(array)
        row = array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
        data, stride = array.tobytes(), row
        if target == ARRAY_BUFFER and row % 4:
            stride = row + -row % 4
            data = np.pad(array.reshape(len(array), -1).view(np.uint8), ((0, 0), (0, stride - row))).tobytes()
        view = self.add_view(data, target)
        if stride != row:
            self.document["bufferViews"][view]["byteStride"] = stride
        accessor: dict[str, Any] = {
            "bufferView": view,
            "componentType": COMPONENT_TYPES[array.dtype.name],
            "count": len(array),
            "type": SHAPES[array.shape[1:]],
        }
        if normalized:
            accessor["normalized"] = True
        if bounds:
            accessor["min"] = np.atleast_1d(array.min(0)).tolist()
            accessor["max"] = np.atleast_1d(array.max(0)).tolist()
        return self.append("accessors", accessor)

    def add_image(self, data: bytes, mime_type: str, name: str = "") -> int:
        """Append an encoded image; returns its index."""
        image: dict[str, Any] = {"bufferView": self.add_view(data), "mimeType": mime_type}
        if name:
            image["name"] = name
        return self.append("images", image)

    def add_animation(
        self, name: str, times: np.ndarray, channels: list[tuple[int, str, np.ndarray]], interpolation: str = "LINEAR"
    ) -> int:
        """Append one animation whose channels share the keyframe times.

        Args:
            name: as viewers list it.
            times: `[K]` seconds, strictly increasing.
            channels: (node, "translation" | "rotation" | "scale", `[K, 3 or 4]` values; rotations are xyzw).
            interpolation: "LINEAR" or "STEP".

        Returns:
            The animation's index.
        """
        clock = self.add_accessor(times.astype(np.float32), bounds=True)
        animation: dict[str, Any] = {"name": name, "channels": [], "samplers": []}
        for node, path, values in channels:
            output = self.add_accessor(values.astype(np.float32))
            animation["channels"].append(
                {"sampler": len(animation["samplers"]), "target": {"node": node, "path": path}}
            )
            animation["samplers"].append({"input": clock, "interpolation": interpolation, "output": output})
        return self.append("animations", animation)

    def save(self, path: Path) -> None:
        """Write the GLB file."""
        binary = bytes(self._binary) + b"\0" * (-len(self._binary) % 4)
        self.document["buffers"] = [{"byteLength": len(binary)}]
        write_glb(path, self.document, binary)
