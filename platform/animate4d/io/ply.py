"""PLY files: any element and property of the three encodings, and the 3D Gaussian splatting layout both ways.

A splat file stores logarithms of the scales, logits of the opacities, quaternions wxyz of any length, and the higher
spherical harmonics channel by channel; `SplatCloud` holds them linear and coefficient by coefficient.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from animate4d.core.errors import AssetError
from animate4d.core.splats import SplatCloud
from animate4d.io.atomic import write_bytes
from animate4d.io.ply_body import BYTE_ORDERS, AsciiBody, BinaryBody, PlyElement, PlyList
from animate4d.io.ply_packed import unpack_splats
from animate4d.io.resources import read_bytes
from animate4d.io.splat_file import UP_AXES, SplatFile, check_count, sound_splats

MAX_HEADER_BYTES = 1 << 18
"""A 3DGS header has some 70 lines; 256 kB leaves room for long comments."""

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlyFile:
    """A parsed PLY.

    Attributes:
        path: the file.
        elements: structured array of the scalar properties, by element name.
        lists: list properties, by element and property name.
        comments: `comment` lines of the header.
    """

    path: Path
    elements: dict[str, np.ndarray]
    lists: dict[tuple[str, str], PlyList]
    comments: tuple[str, ...] = ()


def read_ply(path: Path) -> PlyFile:
    """Read a PLY file of any encoding.

    Raises:
        AssetError: not a PLY, malformed header, or fewer data than the header declares (checked before allocating).
    """
    path = Path(path)
    data = read_bytes(path)
    elements, encoding, comments, start = _read_header(path, data)
    body: BinaryBody | AsciiBody = (
        AsciiBody(path, data[start:]) if encoding == "ascii" else BinaryBody(path, data, start, encoding)
    )
    tables: dict[str, np.ndarray] = {}
    lists: dict[tuple[str, str], PlyList] = {}
    for element in elements:
        body.check_room(element)
        tables[element.name], found = body.read(element)
        lists.update({(element.name, name): values for name, values in found.items()})
    return PlyFile(path=path, elements=tables, lists=lists, comments=comments)


def is_splat_ply(ply: PlyFile) -> bool:
    """Whether the vertices carry the properties of 3D Gaussian splatting, plain or compressed (never told by name)."""
    names = set(ply.elements.get("vertex", np.zeros(0)).dtype.names or ())
    return {"f_dc_0", "opacity", "scale_0", "rot_0"} <= names or "packed_position" in names


def read_splat_ply(path: Path) -> SplatCloud:
    """Read a 3DGS PLY, plain or compressed, into linear units.

    Raises:
        AssetError: not a splat file, no splats, or most of them not finite.
    """
    return splats_of(read_ply(path)).cloud


def splats_of(ply: PlyFile) -> SplatFile:
    """Turn the vertices of a parsed 3DGS PLY into a cloud; see `read_splat_ply`.

    The frame is y-down unless a header comment says otherwise ("up y", as `write_splat_ply` notes).
    """
    path = ply.path
    if not is_splat_ply(ply):
        raise AssetError(f"{path}: this PLY holds no Gaussian splats (no f_dc, opacity, scale, rot properties)")
    check_count(path, len(ply.elements["vertex"]))
    if "packed_position" in (ply.elements["vertex"].dtype.names or ()):
        if "chunk" not in ply.elements:
            raise AssetError(f"{path}: this compressed splat PLY has no element chunk; export it again")
        values = unpack_splats(path, ply.elements)
    else:
        values = _plain_splats(path, ply.elements["vertex"])
    with np.errstate(over="ignore"):
        scales = np.exp(values["log_scales"])
    return sound_splats(
        path,
        means=values["means"],
        quats=values["quats"],
        scales=scales,
        opacities=values["opacities"],
        sh=values["sh"],
        up=next((axis for axis in UP_AXES if f"up {axis}" in ply.comments), "-y"),
    )


def _plain_splats(path: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return what `ply_packed.unpack_splats` does."""
    names = set(rows.dtype.names or ())
    rest = sorted((name for name in names if re.fullmatch(r"f_rest_\d+", name)), key=lambda name: int(name[7:]))
    if len(rest) not in (0, 9, 24, 45):
        raise AssetError(f"{path}: has {len(rest)} f_rest properties; expected 0, 9, 24 or 45 (degree 0 to 3)")
    needed = [*"xyz", *(f"f_dc_{k}" for k in range(3)), *(f"scale_{k}" for k in range(3))]
    needed += [f"rot_{k}" for k in range(4)]
    if absent := [name for name in needed if name not in names]:
        raise AssetError(f"{path}: this splat PLY lacks the properties {', '.join(absent)}")

    def columns(*wanted: str) -> np.ndarray:
        table = np.empty((len(rows), len(wanted)), np.float32)
        for column, name in enumerate(wanted):
            table[:, column] = rows[name]
        return table

    sh = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    if rest:
        sh = np.concatenate([sh, columns(*rest).reshape(len(rows), 3, -1).transpose(0, 2, 1)], axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        opacities = 1.0 / (1.0 + np.exp(-columns("opacity")[:, 0]))
    return {
        "means": columns("x", "y", "z"),
        "quats": columns("rot_0", "rot_1", "rot_2", "rot_3"),
        "log_scales": columns("scale_0", "scale_1", "scale_2"),
        "opacities": opacities,
        "sh": sh,
    }


def write_splat_ply(path: Path, splats: SplatCloud, *, up: str | None = None) -> None:
    """Write a binary 3DGS PLY; columns of zeros for normals, because some readers count on them.

    Args:
        path: the file to write.
        splats: in the frame the file is to have.
        up: up axis of that frame ("y", "z" or "-y"), noted as a comment so that our own reader need not assume it.
    """
    count, coefficients = splats.sh.shape[:2]
    rest = splats.sh[:, 1:].transpose(0, 2, 1).reshape(count, -1)
    opacities = np.clip(splats.opacities.astype(np.float64), 1e-6, 1 - 1e-6)
    columns = [
        (("x", "y", "z"), splats.means),
        (("nx", "ny", "nz"), np.zeros((count, 3))),
        (("f_dc_0", "f_dc_1", "f_dc_2"), splats.sh[:, 0]),
        (tuple(f"f_rest_{k}" for k in range(3 * (coefficients - 1))), rest),
        (("opacity",), np.log(opacities / (1 - opacities))[:, None]),
        (("scale_0", "scale_1", "scale_2"), np.log(np.maximum(splats.scales, np.finfo(np.float32).tiny))),
        (("rot_0", "rot_1", "rot_2", "rot_3"), splats.quats),
    ]
    names = [name for group, _ in columns for name in group]
    header = ["ply", "format binary_little_endian 1.0", *([f"comment up {up}"] if up else [])]
    header.append(f"element vertex {count}")
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    table = np.concatenate([np.asarray(values, "<f4") for _, values in columns], axis=1)
    write_bytes(Path(path), "\n".join(header).encode() + table.tobytes())


def _read_header(path: Path, data: bytes) -> tuple[list[PlyElement], str, tuple[str, ...], int]:
    """Return elements, encoding, comments and where the body starts."""
    if not re.match(rb"ply\s", data):
        raise AssetError(f"{path}: this is not a PLY file")
    end = re.search(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)", data[:MAX_HEADER_BYTES])
    if end is None:
        raise AssetError(f"{path}: the PLY header has no end; the file is cut")
    elements: list[PlyElement] = []
    comments: list[str] = []
    encoding = ""
    for line in re.split(r"[\r\n]+", data[: end.start()].decode("latin-1"))[1:]:
        words = line.split()
        if not words or words[0] == "obj_info":
            continue
        if words[0] == "comment":
            comments.append(line.partition("comment")[2].strip())
        elif words[0] == "format" and len(words) == 3 and words[1] in BYTE_ORDERS:
            encoding = words[1]
        elif words[0] == "element" and len(words) == 3 and words[2].isdecimal():
            elements.append(PlyElement(name=words[1], count=int(words[2])))
        elif words[0] == "property" and elements and len(words) == 3 and words[1] in _TYPES:
            elements[-1].properties.append((words[2], _TYPES[words[1]], None))
        elif (
            words[:2] == ["property", "list"]
            and elements
            and len(words) == 5
            and words[3] in _TYPES
            and _TYPES.get(words[2], "f")[0] in "iu"
        ):
            elements[-1].properties.append((words[4], _TYPES[words[3]], _TYPES[words[2]]))
        else:
            raise AssetError(f"{path}: the PLY header has a line that cannot be understood: {line[:60]!r}")
    names = [element.name for element in elements]
    if not encoding or len(set(names)) != len(names) or any(not element.properties for element in elements):
        raise AssetError(f"{path}: the PLY header is incomplete (format, or an element without properties)")
    if any(len({name for name, _, _ in element.properties}) != len(element.properties) for element in elements):
        raise AssetError(f"{path}: the PLY header names a property twice")
    return elements, encoding, tuple(comments), end.end()
