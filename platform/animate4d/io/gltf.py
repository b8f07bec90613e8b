"""glTF 2.0 containers: `.glb` and `.gltf` in, `.glb` out; accessors and primitives as numpy arrays.

What the arrays mean (scene, skin, animation) is the business of `assets`. Every size a file declares is checked against
the bytes that are there before anything is allocated.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from animate4d.core.errors import AssetError
from animate4d.io.atomic import write_bytes
from animate4d.io.draco import decode_draco
from animate4d.io.resources import is_file, read_bytes, read_uri, sibling_path

MAX_SPARE_BYTES, MAX_EXPANSION = 128 << 20, 16
"""Memory for accessors: 128 MB (zeros under a sparse accessor) plus 16 times the buffers (a byte as a float is 4)."""

SUPPORTED_EXTENSIONS = frozenset(
    {
        "KHR_draco_mesh_compression",
        "KHR_gaussian_splatting",
        "KHR_lights_punctual",
        "KHR_mesh_quantization",
        "KHR_texture_transform",
        "KHR_xmp_json_ld",
        "EXT_texture_webp",
    }
)
"""Extensions a file may require, besides the `KHR_materials_` family, of which the base colour is used."""

_MAGIC = b"glTF"
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942
_COMPONENTS: dict[int, np.dtype] = {
    5120: np.dtype("i1"),
    5121: np.dtype("u1"),
    5122: np.dtype("<i2"),
    5123: np.dtype("<u2"),
    5125: np.dtype("<u4"),
    5126: np.dtype("<f4"),
}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6


@dataclass
class GltfDocument:
    """A parsed glTF file with all its binary buffers in memory.

    Attributes:
        json: the glTF JSON object.
        buffers: bytes of every entry of `json["buffers"]`.
        folder: where sibling files are looked for.
        path: the file itself, for messages.
        siblings: other files that were read, in order.
    """

    json: dict[str, Any]
    buffers: list[bytes]
    folder: Path
    path: Path = field(default_factory=lambda: Path("model.glb"))
    siblings: list[Path] = field(default_factory=list)
    _accessors: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    _parsed_bytes: int = field(default=0, repr=False)

    def reserve(self, size: int) -> None:
        """Count `size` bytes that are about to be allocated for an accessor against what a file of this size may need.

        Raises:
            AssetError: accessors that overlap, or that declare zeros, add up to far more than the file holds.
        """
        self._parsed_bytes += size
        allowed = MAX_SPARE_BYTES + MAX_EXPANSION * sum(map(len, self.buffers))
        if self._parsed_bytes > allowed:
            raise AssetError(f"{self.path}: its accessors declare more than {allowed / 1e6:.0f} MB, far above its size")

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        """Return entry `index` of the top-level array `kind`.

        Raises:
            AssetError: there is no such entry.
        """
        entries = self.json.get(kind, [])
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(entries):
            raise AssetError(f"{self.path}: refers to {kind}[{index}], but the file has {len(entries)} of them")
        return entries[index]

    def is_missing(self, uri: str) -> bool:
        """Whether `uri` names a file beside this one that is not there (an unsafe name is an error, not missing)."""
        return not uri.startswith("data:") and not is_file(sibling_path(self.path, uri))

    def read_uri(self, uri: str) -> bytes:
        """Return the bytes behind a `data:` URI or a file beside this one."""
        data, path = read_uri(self.path, uri)
        if path is not None and path not in self.siblings:
            self.siblings.append(path)
        return data


def read_gltf(path: Path) -> GltfDocument:
    """Read a `.glb` or `.gltf` file (told apart by content) and its buffers.

    Raises:
        AssetError: not a glTF 2.0 file, cut short, an extension is required that we lack, or a buffer is missing.
    """
    path = Path(path)
    data = read_bytes(path)
    text, binary = _split_glb(path, data) if data[:4] == _MAGIC else (data, None)
    try:
        content = json.loads(text.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise AssetError(f"{path}: its glTF JSON cannot be parsed ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("asset"), dict):
        raise AssetError(f"{path}: this is JSON, but not a glTF file (it has no 'asset' entry)")
    version = str(content["asset"].get("version", "missing"))
    if not version.startswith("2."):
        raise AssetError(f"{path}: glTF version {version} is not supported; re-export it as glTF 2.0")
    required = content.get("extensionsRequired", [])
    unknown = [name for name in required if name not in SUPPORTED_EXTENSIONS and not name.startswith("KHR_materials_")]
    if unknown:
        raise AssetError(
            f"{path}: requires the glTF extension {', '.join(unknown)}, which is not supported; re-export without it"
        )
    document = GltfDocument(json=content, buffers=[], folder=path.parent, path=path)
    for number, buffer in enumerate(content.get("buffers", [])):
        if "uri" in buffer:
            payload = document.read_uri(buffer["uri"])
        elif number == 0 and binary is not None:
            payload = binary
        else:
            raise AssetError(f"{path}: buffers[{number}] has neither a uri nor a binary chunk")
        if len(payload) < buffer["byteLength"]:
            raise AssetError(
                f"{path}: the file is cut: buffers[{number}] declares {buffer['byteLength']} bytes, has {len(payload)}"
            )
        document.buffers.append(payload)
    return document


def write_glb(path: Path, json: dict[str, Any], binary: bytes) -> None:
    """Write a GLB; `json["buffers"][0]["byteLength"]` is set to the length of `binary`.

    Args:
        path: the file to write.
        json: the glTF JSON object; not changed.
        binary: content of buffer 0; may be empty.
    """
    document = dict(json)
    if binary:
        document["buffers"] = [{**(json.get("buffers") or [{}])[0], "byteLength": len(binary)}]
    text = _dump(document)
    text += b" " * (-len(text) % 4)
    padded = binary + b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<II", len(text), _JSON_CHUNK) + text
    if binary:
        chunks += struct.pack("<II", len(padded), _BINARY_CHUNK) + padded
    write_bytes(Path(path), _MAGIC + struct.pack("<II", 2, 12 + len(chunks)) + chunks)


def view_bytes(document: GltfDocument, index: int) -> bytes:
    """Return the bytes of `bufferViews[index]`.

    Raises:
        AssetError: the view reaches past its buffer.
    """
    view = document.item("bufferViews", index)
    document.item("buffers", view["buffer"])
    buffer = document.buffers[view["buffer"]]
    start, length = view.get("byteOffset", 0), view["byteLength"]
    if start < 0 or length < 0 or start + length > len(buffer):
        raise AssetError(
            f"{document.path}: bufferViews[{index}] ends at byte {start + length} of a buffer of {len(buffer)}"
        )
    return buffer[start : start + length]


def read_accessor(document: GltfDocument, index: int) -> np.ndarray:
    """Return an accessor as a read-only array, parsed once per document.

    Returns:
        `[count]` for scalars, `[count, n]` for vectors, `[count, 4, 4]` (row, column) for matrices; the stored type,
        or float32 where the accessor is normalised (glTF 2.0 section 3.11: unsigned to [0, 1], signed to [-1, 1]).

    Raises:
        AssetError: it is malformed or reaches past its buffer.
    """
    if index not in document._accessors:
        values = _parse_accessor(document, index)
        values.flags.writeable = False
        document._accessors[index] = values
    return document._accessors[index]


def is_surface(primitive: dict[str, Any]) -> bool:
    """Whether a primitive is made of triangles, strips or fans (not points or lines)."""
    return primitive.get("mode", _TRIANGLES) in (_TRIANGLES, _STRIP, _FAN)


def read_primitive(document: GltfDocument, primitive: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return a primitive's attributes by name, and its triangles as `"indices"` `[F, 3]` int64.

    Draco is decoded, strips and fans become triangles, a primitive without indices gets consecutive ones.

    Raises:
        AssetError: not a surface, no positions, attributes of different length, or an index out of range.
    """
    if not is_surface(primitive):
        raise AssetError(f"{document.path}: a primitive of mode {primitive.get('mode')} is not made of triangles")
    draco = primitive.get("extensions", {}).get("KHR_draco_mesh_compression")
    arrays: dict[str, np.ndarray] = {}
    indices: np.ndarray | None = None
    names = dict(primitive["attributes"])
    if draco is not None:
        arrays, triangles = decode_draco(view_bytes(document, draco["bufferView"]), draco["attributes"], document.path)
        for name in arrays:
            if document.item("accessors", names.pop(name)).get("normalized"):
                arrays[name] = _normalise(arrays[name])
        indices = triangles.reshape(-1)
    elif "indices" in primitive:
        indices = read_accessor(document, primitive["indices"])
    arrays.update({name: read_accessor(document, accessor) for name, accessor in names.items()})
    if "POSITION" not in arrays:
        raise AssetError(f"{document.path}: a primitive has no POSITION attribute")
    count = len(arrays["POSITION"])
    for name, values in arrays.items():
        if len(values) != count:
            raise AssetError(f"{document.path}: {name} has {len(values)} entries for {count} vertices")
    if indices is None:
        indices = np.arange(count)
    if indices.ndim != 1 or indices.dtype.kind not in "ui":
        raise AssetError(f"{document.path}: the indices of a primitive are not integers")
    if indices.size and int(indices.max()) >= count:
        raise AssetError(f"{document.path}: a triangle refers to vertex {int(indices.max())} of {count}")
    mode = _TRIANGLES if draco is not None else primitive.get("mode", _TRIANGLES)
    arrays["indices"] = _triangles(indices.astype(np.int64), mode)
    return arrays


def _split_glb(path: Path, data: bytes) -> tuple[bytes, bytes | None]:
    """Return the JSON text and the binary chunk of a GLB."""
    if len(data) < 20:
        raise AssetError(f"{path}: the GLB is cut: {len(data)} bytes is less than its header")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise AssetError(f"{path}: GLB version {version} is not supported; re-export it as glTF 2.0")
    if length > len(data):
        raise AssetError(f"{path}: the GLB is cut: its header declares {length} bytes, the file has {len(data)}")
    chunks: dict[int, bytes] = {}
    offset = 12
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        if offset + 8 + size > length:
            raise AssetError(f"{path}: the GLB is cut: a chunk declares {size} bytes, {length - offset - 8} are left")
        chunks.setdefault(kind, data[offset + 8 : offset + 8 + size])
        offset += 8 + size
    if _JSON_CHUNK not in chunks:
        raise AssetError(f"{path}: the GLB has no JSON chunk")
    return chunks[_JSON_CHUNK], chunks.get(_BINARY_CHUNK)


def _parse_accessor(document: GltfDocument, index: int) -> np.ndarray:
    accessor = document.item("accessors", index)
    count, kind, component = accessor["count"], accessor["type"], accessor["componentType"]
    if kind not in _WIDTHS or component not in _COMPONENTS:
        raise AssetError(f"{document.path}: accessors[{index}] has type {kind} of component {component}")
    if isinstance(count, bool) or not isinstance(count, int) or count <= 0:
        raise AssetError(f"{document.path}: accessors[{index}] declares {count} elements")
    dtype, width = _COMPONENTS[component], _WIDTHS[kind]
    document.reserve(count * width * dtype.itemsize)
    if "bufferView" in accessor:
        values = _strided(document, accessor["bufferView"], accessor.get("byteOffset", 0), count, dtype, width, index)
    else:
        values = np.zeros((count, width), dtype)
    if "sparse" in accessor:
        sparse = accessor["sparse"]
        slots, filler = sparse["indices"], sparse["values"]
        if slots["componentType"] not in (5121, 5123, 5125) or not 0 < sparse["count"] <= count:
            raise AssetError(f"{document.path}: the sparse part of accessors[{index}] is malformed")
        at, amount = _COMPONENTS[slots["componentType"]], sparse["count"]
        rows = _strided(document, slots["bufferView"], slots.get("byteOffset", 0), amount, at, 1, index)[:, 0]
        if int(rows.max()) >= count:
            raise AssetError(f"{document.path}: the sparse part of accessors[{index}] replaces element {rows.max()}")
        values = values.copy()
        values[rows] = _strided(
            document, filler["bufferView"], filler.get("byteOffset", 0), amount, dtype, width, index
        )
    if accessor.get("normalized"):
        values = _normalise(values)
    if kind == "SCALAR":
        return values[:, 0].copy()
    if kind == "MAT4":
        return values.reshape(count, 4, 4).swapaxes(1, 2).copy()
    return values.copy()


def _strided(
    document: GltfDocument, view: int, offset: int, count: int, dtype: np.dtype, width: int, accessor: int
) -> np.ndarray:
    """Return `[count, width]` elements of a buffer view, honouring its stride."""
    data = view_bytes(document, view)
    size = dtype.itemsize * width
    stride = document.item("bufferViews", view).get("byteStride") or size
    if stride < size or offset < 0:
        raise AssetError(
            f"{document.path}: accessors[{accessor}] has a stride of {stride} for elements of {size} bytes"
        )
    needed = offset + (count - 1) * stride + size
    if needed > len(data):
        raise AssetError(
            f"{document.path}: damaged: accessors[{accessor}] needs {needed} bytes of a bufferView of {len(data)}"
        )
    return np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize))


def _normalise(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return values
    return np.maximum(values.astype(np.float32) / np.iinfo(values.dtype).max, -1.0)


def _triangles(indices: np.ndarray, mode: int) -> np.ndarray:
    """Return `[F, 3]` triangles of a list, strip or fan; left-over indices of a list are dropped."""
    if mode == _TRIANGLES:
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    if len(indices) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == _FAN:
        rim = indices[1:]
        return np.stack([np.full(len(rim) - 1, indices[0]), rim[:-1], rim[1:]], axis=1)
    strip = np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1)
    strip[1::2] = strip[1::2][:, [0, 2, 1]]
    return strip


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
