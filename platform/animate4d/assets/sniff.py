"""What a file really is, by its first bytes and never by its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from animate4d.core.errors import AssetError
from animate4d.io.resources import read_bytes
from animate4d.io.splat import looks_like_splats
from animate4d.io.spz import GZIP, is_spz

Format = Literal["gltf", "ply", "obj", "spz", "splat"]

READABLE = "GLB, glTF, OBJ (with MTL), PLY, SPZ or SPLAT"

_HEAD_BYTES = 1 << 16

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"PK\x03\x04", "a ZIP archive (unpack it first; a .usdz is one too)"),
    (GZIP, "a gzip file (unpack it first)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive (unpack it first)"),
    (b"Kaydara FBX Binary", "an FBX model (export it as GLB)"),
    (b"BLENDER", "a Blender file (export it as GLB)"),
    (b"PXR-USDC", "a USD model (export it as GLB)"),
    (b"#usda", "a USD model (export it as GLB)"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself (run git lfs pull)"),
    (b"solid ", "an STL model (export it as GLB)"),
)
_OBJ_LINE = re.compile(rb"^\s*(v\s+[-+.\d]\S*\s+[-+.\d]\S*\s+[-+.\d]|f\s+-?\d)", re.MULTILINE)


def detect_format(path: Path) -> Format:
    """Tell the format of a model.

    Raises:
        AssetError: missing, a folder, empty, unreadable, or no readable model; the message says what it is.
    """
    head = read_bytes(path, _HEAD_BYTES)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"glTF") or text.startswith(b"{"):
        return "gltf"
    if re.match(rb"ply\s", head):
        return "ply"
    if is_spz(head):
        return "spz"
    if looks_like_splats(head) and not _is_text(head):
        return "splat"
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            raise _foreign(path, what)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        raise _foreign(path, "a WebP image")
    if text[:1] == b"<":
        raise _foreign(path, "an HTML page" if re.match(rb"<(!doctype html|html)", text, re.I) else "an XML file")
    binary = b"\0" in head
    named_obj = path.suffix.lower() == ".obj" and re.search(rb"^\s*(mtllib|usemtl|vn|vt|vp|g|o)\s", head, re.MULTILINE)
    if not binary and (_OBJ_LINE.search(head) or named_obj):
        return "obj"
    raise _foreign(path, "binary data of an unknown kind" if binary or not _is_text(head) else "plain text")


def _foreign(path: Path, what: str) -> AssetError:
    suffix = path.suffix.lstrip(".").upper()
    names = {"GLB": "a GLB", "GLTF": "a glTF", "OBJ": "an OBJ", "PLY": "a PLY", "SPZ": "an SPZ", "SPLAT": "a SPLAT"}
    contrast = f"not {names.get(suffix, 'a 3D model that can be read')}"
    return AssetError(f"{path}: this is {what}, {contrast}; give one of {READABLE}")


def _is_text(head: bytes) -> bool:
    """Whether the head is UTF-8, a character cut at its end allowed."""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4
    return True
