"""The bytes of models that are damaged, lie about their size, or are no models at all."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

SPLAT_NAMES = (
    *"xyz",
    *(f"f_dc_{channel}" for channel in range(3)),
    "opacity",
    *(f"scale_{axis}" for axis in range(3)),
    *(f"rot_{part}" for part in range(4)),
)
TRIANGLE = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)
CORNERS = struct.pack("<6f", 0, 0, 1, 0, 0, 1)


def splat_ply(declared: int, rows: int) -> bytes:
    """Return a 3DGS PLY whose header declares so many splats and whose body has so many."""
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {declared}"]
    head += [f"property float {name}" for name in SPLAT_NAMES]
    return "\n".join([*head, "end_header", ""]).encode() + struct.pack("<14f", *range(14)) * rows


def mesh_ply(vertices: Sequence[Sequence[Any]], faces: Sequence[Sequence[int]]) -> bytes:
    """Return an ASCII PLY; a coordinate may be any word."""
    rows = [f"{x} {y} {z}" for x, y, z in vertices] + [f"3 {a} {b} {c}" for a, b, c in faces]
    head = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}", *(f"property float {axis}" for axis in "xyz")]
    head += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    return "\n".join([*head, *rows, ""]).encode()


def glb(document: dict[str, Any], binary: bytes = b"") -> bytes:
    """Return a GLB of a JSON document and a buffer."""
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text
    if binary:
        body += struct.pack("<II", len(binary), 0x004E4942) + binary
    return b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body


def triangle_glb(scale: float = 1.0, **changes: Any) -> bytes:
    """Return one triangle; `changes` replace top-level entries of the JSON."""
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": 36}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": [{"mesh": 0, "scale": [scale] * 3}],
        "scenes": [{"nodes": [0]}],
    }
    return glb(document | changes, TRIANGLE)


def textured_glb(picture: str) -> bytes:
    """Return a triangle whose texture is the file of that name beside it."""
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": 60}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}, {"buffer": 0, "byteOffset": 36, "byteLength": 24}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC2"},
        ],
        "images": [{"uri": picture}],
        "textures": [{"source": 0}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
    }
    return glb(document, TRIANGLE + CORNERS)


def png(side: int) -> bytes:
    """Return the header of a square PNG with a body of a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def spz(count: int) -> bytes:
    """Return an SPZ that declares so many splats and holds ten."""
    return gzip.compress(struct.pack("<IIIBBBB", 0x5053474E, 3, count, 0, 12, 0, 0) + bytes(200))
