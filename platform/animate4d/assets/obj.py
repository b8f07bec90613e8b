"""Wavefront OBJ with its MTL materials and textures.

OBJ says nothing of axes; y-up is assumed, as nearly all exporters write it. Kd and vertex colours are display values
(sRGB), as in the viewers that show them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from animate4d.assets.textures import TextureDecoder, srgb_to_linear
from animate4d.core.errors import AssetError
from animate4d.core.mesh import Material, Mesh
from animate4d.io.resources import is_file, read_bytes, sibling_path

_MAP_OPTIONS = {"-blendu": 1, "-blendv": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1, "-texres": 1, "-bm": 1, "-boost": 1}
_MAP_OPTIONS |= {"-type": 1, "-colorspace": 1, "-mm": 2, "-o": 3, "-s": 3, "-t": 3}
"""Options before the file name of a map, with how many values each takes (-o, -s, -t: one to three)."""


@dataclass
class ObjFile:
    """A parsed OBJ.

    Attributes:
        mesh: vertices as in the file (float64).
        warnings: what was left out.
        siblings: material and texture files that were read.
    """

    mesh: Mesh
    warnings: list[str]
    siblings: list[Path]


@dataclass
class _Lines:
    """What the lines of an OBJ hold. A corner is (vertex, texture vertex or -1)."""

    points: list[list[float]] = field(default_factory=list)
    uvs: list[list[float]] = field(default_factory=list)
    corners: list[tuple[int, int]] = field(default_factory=list)
    face_material: list[int] = field(default_factory=list)
    materials: dict[str, int] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)
    left_out: int = 0


def read_obj(path: Path) -> ObjFile:
    """Read an OBJ, its materials and textures; polygons become triangle fans.

    A missing material file or texture is a warning, because the shape is still whole.

    Raises:
        AssetError: no faces, an index out of range, or something that is not a number.
    """
    lines = _read_lines(path, read_bytes(path).decode("utf-8", errors="replace"))
    if not lines.corners:
        raise AssetError(f"{path}: holds no triangles that could be drawn")
    warnings: list[str] = []
    if lines.left_out:
        warnings.append(f"{lines.left_out} points, lines or curves are left out")
    library = _Library(path, warnings)
    for name in lines.libraries:
        library.read(name)
    corners, first = np.unique(np.array(lines.corners, np.int64), axis=0, return_inverse=True)
    if int(corners[:, 0].max()) >= len(lines.points):
        raise AssetError(f"{path}: a face refers to vertex {int(corners[:, 0].max()) + 1} of {len(lines.points)}")
    loose = corners[:, 1] >= len(lines.uvs)
    if loose.any():
        corners[loose, 1] = -1
        warnings.append(f"{int(loose.sum())} texture coordinates are missing: drawn without them")
    points = np.array([point[:3] for point in lines.points], np.float64)
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points)).any(1).sum())
        raise AssetError(f"{path}: {bad} vertex positions are NaN or infinite; repair and re-export the model")
    uv = np.zeros((len(corners), 2), np.float32)
    textured = corners[:, 1] >= 0
    if textured.any():
        stored = np.nan_to_num(np.array(lines.uvs, np.float64))[corners[textured, 1]]
        uv[textured] = np.stack([stored[:, 0], 1.0 - stored[:, 1]], axis=1)
    mesh = Mesh(
        vertices=points[corners[:, 0]],
        faces=first.reshape(-1, 3).astype(np.int32),
        face_material=np.array(lines.face_material, np.int32),
        materials=tuple(library.material(name) for name in lines.materials),
        uv=uv,
        colors=_colors(lines.points)[corners[:, 0]],
        part_of_vertex=np.zeros(len(corners), np.int32),
    )
    return ObjFile(mesh=mesh, warnings=warnings, siblings=library.siblings)


def _read_lines(path: Path, text: str) -> _Lines:
    lines = _Lines()
    material = ""
    for number, line in enumerate(re.sub(r"\\\r?\n", " ", text).splitlines(), start=1):
        word, rest = (*line.split(None, 1), "", "")[:2]
        try:
            if word == "v":
                lines.points.append([float(value) for value in rest.split()])
                if len(lines.points[-1]) < 3:
                    raise ValueError("fewer than three coordinates")
            elif word == "vt":
                values = [float(value) for value in rest.split()[:2]]
                lines.uvs.append(values if len(values) == 2 else [*values, 0.0][:2])
            elif word == "f":
                _add_face(lines, rest.split(), material)
            elif word == "usemtl":
                material = rest.strip()
            elif word == "mtllib":
                lines.libraries.append(rest.strip())
            elif word in ("p", "l", "curv", "surf"):
                lines.left_out += 1
        except (ValueError, IndexError) as error:
            raise AssetError(f"{path}: line {number} cannot be understood ({error}): {line.strip()[:60]!r}") from error
    return lines


def _add_face(lines: _Lines, words: list[str], material: str) -> None:
    corners = []
    for word in words:
        fields = word.split("/")
        point = _index(fields[0], len(lines.points))
        uv = _index(fields[1], len(lines.uvs)) if len(fields) > 1 and fields[1] else -1
        corners.append((point, uv))
    used = lines.materials.setdefault(material, len(lines.materials))
    for second in range(1, len(corners) - 1):
        lines.corners.extend((corners[0], corners[second], corners[second + 1]))
        lines.face_material.append(used)


def _index(text: str, count: int) -> int:
    """Turn a 1-based index, which may refer to a later line, or one counted back from here, into a position."""
    value = int(text)
    position = value - 1 if value > 0 else count + value
    if value == 0 or position < 0:
        raise IndexError(f"index {value} of {count}")
    return position


def _colors(points: list[list[float]]) -> np.ndarray:
    """Return `[N, 4]` linear colours written behind the coordinates (`v x y z r g b`), ones where there are none."""
    colors = np.ones((len(points), 4), np.float32)
    rows = [row for row, point in enumerate(points) if len(point) >= 6]
    if rows:
        values = np.nan_to_num(np.array([points[row][3:6] for row in rows], np.float64))
        values = values / 255.0 if values.max() > 1.0 else values  # some scanners write bytes
        colors[rows, :3] = srgb_to_linear(values.clip(0.0, 1.0))
    return colors


class _Library:
    """Materials of the MTL files an OBJ names."""

    def __init__(self, owner: Path, warnings: list[str]) -> None:
        self.siblings: list[Path] = []
        self._owner, self._warnings = owner, warnings
        self._entries: dict[str, dict[str, str]] = {}
        self._textures: dict[str, np.ndarray | None] = {}
        self._decoder = TextureDecoder()

    def read(self, name: str) -> None:
        """Add the materials of a material file beside the OBJ."""
        data = self._sibling(name, "material file")
        entry: dict[str, str] = {}
        for line in (data or b"").decode("utf-8", errors="replace").splitlines():
            words = line.split(None, 1)
            if len(words) == 2 and words[0] == "newmtl":
                entry = self._entries.setdefault(words[1].strip(), {})
            elif len(words) == 2:
                entry[words[0].lower()] = words[1].strip()

    def material(self, name: str) -> Material:
        """Return a material; white and opaque where the OBJ names none or one that is nowhere defined."""
        entry = self._entries.get(name, {})
        texture = self._texture(_map_name(entry["map_kd"])) if "map_kd" in entry else None
        color = srgb_to_linear(np.clip(self._numbers(name, entry, "kd", 3, [1.0, 1.0, 1.0]), 0.0, 1.0))
        if texture is not None and not color.any():
            color = np.ones(3)  # exporters that write "Kd 0 0 0" beside a map mean the map alone
        alpha = self._numbers(name, entry, "d", 1, [1.0])[0]
        if "d" not in entry and "tr" in entry:
            alpha = 1.0 - self._numbers(name, entry, "tr", 1, [0.0])[0]
        alpha = alpha if 0.0 < alpha < 1.0 else 1.0  # nobody models the invisible: "d 0" and "Tr 1" mean the opposite
        return Material(
            name=name,
            base_color=(float(color[0]), float(color[1]), float(color[2]), float(alpha)),
            texture=texture,
            double_sided=True,
            alpha_mode="BLEND" if alpha < 1.0 else "OPAQUE",
        )

    def _numbers(self, name: str, entry: dict[str, str], key: str, count: int, default: list[float]) -> list[float]:
        if key not in entry:
            return default
        try:
            values = [float(word) for word in entry[key].split()[:count]]
        except ValueError:
            values = []
        if len(values) != count or not np.isfinite(values).all():
            self._warnings.append(f"material {name!r}: {key} {entry[key][:40]!r} cannot be understood: left out")
            return default
        return values

    def _texture(self, name: str) -> np.ndarray | None:
        if name not in self._textures:
            data = self._sibling(name, "texture")
            self._textures[name] = None if data is None else self._decoder.decode(data, f"{self._owner}: {name}")
        return self._textures[name]

    def _sibling(self, name: str, what: str) -> bytes | None:
        """Return a file beside the OBJ; None with a warning where it is missing or outside the folder.

        Paths of the exporting machine are common in MTL files and no reason to refuse the shape; they are not followed.
        """
        try:
            path = sibling_path(self._owner, name)
        except AssetError:
            self._warnings.append(f"the {what} {name[:80]!r} is not in the model's folder: drawn without it")
            return None
        if not is_file(path):
            self._warnings.append(f"the {what} {name[:80]!r} is missing: drawn without it")
            return None
        self.siblings.append(path)
        return read_bytes(path)


def _map_name(value: str) -> str:
    """Return the file name of a `map_Kd` value, without its options; names may hold spaces."""
    words = value.split()
    while words and words[0].lower() in _MAP_OPTIONS:
        option = words.pop(0).lower()
        for taken in range(_MAP_OPTIONS[option]):
            if taken and not re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?", words[0] if words else "", re.I):
                break
            words = words[1:]
    return " ".join(words)
