"""SPZ files, versions 1 to 4: splats quantised to some 20 bytes, attribute after attribute, compressed.

Versions 1 to 3 are one gzip stream of a 16-byte header and the attributes; version 4 has a plain 32-byte header, a
table of sizes, and one zstd stream per attribute. Order and coding of the attributes, little-endian:

- centres: 24-bit fixed point with the header's number of fractional bits (version 1: float16);
- opacities: a byte for [0, 1]; constant harmonics: a byte for 0.5 + 0.15 c;
- scales: a byte for (16 ln s + 160); versions 1 and 2: quaternion x y z, a byte each for [-1, 1], w positive;
- version 3 on: the three smaller components of the quaternion xyzw, 9 bits of magnitude and a sign each, below the two
  bits that number the largest;
- higher harmonics: a byte for 128 (c + 1), colour channels of a coefficient side by side.

The frame is right-handed, y up.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from animate4d.core.errors import AssetError
from animate4d.core.splats import SplatCloud
from animate4d.io.atomic import write_bytes
from animate4d.io.resources import read_bytes
from animate4d.io.splat_file import MAX_DEGREE, SplatFile, Up, check_count, sound_splats

GZIP = b"\x1f\x8b"
MAGIC = b"NGSP"
COLOR_SCALE = 0.15
"""SPZ's factor from constant harmonics to bytes: less than SH0, so that colours beyond [0, 1] fit."""

WRITTEN_VERSION = 2
"""The version every reader knows; its one weakness, coarse quaternions, is got around (`_upright`)."""

LARGEST_SCALE = float(np.exp(255 / 16 - 10))
"""Largest size the format can say; the smallest, exp(-10), is far below what a picture shows."""

_HEADER, _LONG_HEADER = struct.Struct("<4sIIBBBB"), struct.Struct("<4sIIBBBBI12x")
_FLAG_EXTENSIONS = 0x2
_AXES_EXTENSION = 0xADBE0003
"""Type of the extension by which a file says that its axes are not those of the format."""

_AXES: dict[int, Up] = {0: "y", 4: "y", 6: "-y"}
"""Axes of that extension we can read: unspecified, right-up-back (the format's own) and right-down-front (as PLY)."""

_MAX_EXTENSION_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Header:
    version: int
    count: int
    degree: int
    fractional_bits: int
    flags: int

    def sizes(self) -> list[int]:
        """Return the bytes of centres, opacities, colours, scales, rotations, harmonics."""
        per_splat = [6 if self.version == 1 else 9, 1, 3, 3, 4 if self.version >= 3 else 3]
        return [self.count * size for size in (*per_splat, 3 * ((self.degree + 1) ** 2 - 1))]


def is_spz(head: bytes) -> bool:
    """Whether a file that starts like this is SPZ: the magic number, plain or as the first bytes of a gzip stream."""
    if head[:2] != GZIP:
        return head[:4] == MAGIC
    try:
        return zlib.decompressobj(31).decompress(head, 4) == MAGIC
    except zlib.error:
        return False


def read_spz(path: Path) -> SplatFile:
    """Read an SPZ file.

    Raises:
        AssetError: it is cut, damaged, too large, of an unknown version, or has axes other than right-up-back.
    """
    path = Path(path)
    data = read_bytes(path)
    header, attributes, extensions = _read_long(path, data) if data[:4] == MAGIC else _read_gzip(path, data)
    centres, opacities, colors, scales, rotations, rest = (np.frombuffer(part, np.uint8) for part in attributes)
    degree = min(header.degree, MAX_DEGREE)
    sh = np.empty((header.count, (degree + 1) ** 2, 3), np.float32)
    sh[:, 0] = (colors.reshape(-1, 3) / np.float32(255) - 0.5) / COLOR_SCALE
    if degree:
        sh[:, 1:] = rest.reshape(header.count, -1, 3)[:, : sh.shape[1] - 1] / np.float32(128) - 1
    warnings = (
        (f"harmonics of degree {header.degree} are left out: {degree} are read",) if header.degree > degree else ()
    )
    with np.errstate(invalid="ignore"):
        return sound_splats(
            path,
            means=_centres(centres, header),
            quats=_smallest_three(rotations) if header.version >= 3 else _first_three(rotations),
            scales=np.exp(scales.reshape(-1, 3) / np.float32(16) - 10),
            opacities=opacities / np.float32(255),
            sh=sh,
            up=_up(path, extensions),
            warnings=warnings,
        )


def write_spz(path: Path, splats: SplatCloud) -> None:
    """Write splats of a y-up frame as SPZ version 2, about 20 bytes each and less once compressed.

    Fixed-point positions get as many fractional bits as the farthest one leaves room for.

    Raises:
        ValueError: sizes beyond what the format can say.
    """
    largest = float(splats.scales.max())
    if largest > LARGEST_SCALE:
        raise ValueError(f"SPZ holds sizes up to {LARGEST_SCALE:.0f} units, these splats have {largest:.3g}")
    quats, scales = _upright(splats.quats, splats.scales)
    reach = max(float(np.abs(splats.means).max()), 1e-6)
    bits = int(np.clip(np.floor(np.log2((2**23 - 1) / reach)), 0, 23))
    fixed = np.round(splats.means.astype(np.float64) * 2.0**bits).astype("<i4")
    degree = round(np.sqrt(splats.sh.shape[1])) - 1
    parts = [
        fixed.reshape(-1, 1).view(np.uint8)[:, :3],
        255 * splats.opacities,
        127.5 + 255 * COLOR_SCALE * splats.sh[:, 0],
        16 * (np.log(np.maximum(scales, 1e-9)) + 10),
        127.5 + 127.5 * quats[:, 1:],
        128 * (splats.sh[:, 1:] + 1),
    ]
    header = _HEADER.pack(MAGIC, WRITTEN_VERSION, len(fixed), degree, bits, 0, 0)
    body = b"".join(np.round(part).clip(0, 255).astype(np.uint8).tobytes() for part in parts)
    write_bytes(Path(path), gzip.compress(header + body, mtime=0))


def _upright(quats: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the same ellipsoids with w as large as can be, at least 0.85: w is not stored, and 0 would be read badly.

    An ellipsoid does not mind which of its axes comes first: 24 turns of a cube, with sizes swapped alike, are one.
    """
    from scipy.spatial.transform import Rotation

    turns = Rotation.create_group("O")
    own = Rotation.from_quat(quats.astype(np.float64)[:, [1, 2, 3, 0]])
    xyzw, cube = own.as_quat(), turns.as_quat()
    w = xyzw[:, 3:] * cube[:, 3] - xyzw[:, :3] @ cube[:, :3].T
    best = np.abs(w).argmax(1)
    turned = (own * turns[best]).as_quat()
    turned *= np.where(turned[:, 3:] < 0, -1.0, 1.0)
    axes = np.abs(turns.as_matrix()).argmax(1)
    return turned[:, [3, 0, 1, 2]], np.take_along_axis(scales, axes[best], 1)


def _read_gzip(path: Path, data: bytes) -> tuple[_Header, list[bytes], bytes]:
    """Return header, attributes and extensions of versions 1 to 3; unpacks no more than the header promises."""
    stream = zlib.decompressobj(31)
    try:
        head = stream.decompress(data, _HEADER.size)
        if len(head) < _HEADER.size:
            raise AssetError(f"{path}: the SPZ file is cut inside its header")
        header = _checked(path, *_HEADER.unpack(head)[1:6])
        if header.version > 3:
            raise AssetError(f"{path}: SPZ version {header.version} inside a gzip stream is unknown; save it again")
        body = stream.decompress(stream.unconsumed_tail, sum(header.sizes()) + _MAX_EXTENSION_BYTES)
    except zlib.error as error:
        raise AssetError(f"{path}: the SPZ file is damaged ({error}); download or export it again") from error
    attributes, at = [], 0
    for size in header.sizes():
        attributes.append(body[at : at + size])
        at += size
    if at > len(body):
        raise AssetError(f"{path}: the SPZ file is cut: {header.count} splats need {at} bytes, {len(body)} are there")
    return header, attributes, body[at:] if header.flags & _FLAG_EXTENSIONS else b""


def _read_long(path: Path, data: bytes) -> tuple[_Header, list[bytes], bytes]:
    """Return header, attributes and extensions of version 4."""
    from pyarrow import ArrowException, Codec

    if len(data) < _LONG_HEADER.size:
        raise AssetError(f"{path}: the SPZ file is cut inside its header")
    _, version, count, degree, bits, flags, streams, table = _LONG_HEADER.unpack_from(data)
    if version != 4:
        raise AssetError(f"{path}: SPZ version {version} is not known; save it as version 3 or 4")
    header = _checked(path, version, count, degree, bits, flags)
    sizes = [size for size in header.sizes() if size]
    at = table + 16 * streams
    if streams != len(sizes) or table < _LONG_HEADER.size or at > len(data):
        raise AssetError(f"{path}: the table of the SPZ file is damaged; download or export it again")
    parts = []
    for number, size in enumerate(sizes):
        packed, unpacked = struct.unpack_from("<QQ", data, table + 16 * number)
        if unpacked != size or at + packed > len(data):
            raise AssetError(f"{path}: the SPZ file is cut or damaged: its attributes do not have the size they need")
        try:
            parts.append(Codec("zstd").decompress(data[at : at + packed], decompressed_size=size, asbytes=True))
        except (ArrowException, OSError) as error:
            raise AssetError(f"{path}: the SPZ file is damaged ({error}); download or export it again") from error
        at += packed
    return (
        header,
        parts + [b""] * (6 - len(parts)),
        data[_LONG_HEADER.size : table] if flags & _FLAG_EXTENSIONS else b"",
    )


def _checked(path: Path, version: int, count: int, degree: int, bits: int, flags: int) -> _Header:
    if version < 1 or degree > 4 or bits > 24:
        raise AssetError(
            f"{path}: the SPZ header is damaged (version {version}, degree {degree}, {bits} fractional bits)"
        )
    check_count(path, count)
    return _Header(version=version, count=count, degree=degree, fractional_bits=bits, flags=flags)


def _centres(data: np.ndarray, header: _Header) -> np.ndarray:
    if header.version == 1:
        return data.view("<f2").astype(np.float32).reshape(-1, 3)
    words = np.zeros((len(data) // 3, 4), np.uint8)
    # in the three upper bytes of a word the sign is where it belongs
    words[:, 1:] = data.reshape(-1, 3)
    fixed = words.view("<i4")[:, 0] >> 8
    return (fixed * np.float32(0.5**header.fractional_bits)).reshape(-1, 3)


def _first_three(data: np.ndarray) -> np.ndarray:
    """Return quaternions wxyz of the bytes of versions 1 and 2."""
    xyz = data.reshape(-1, 3) / np.float32(127.5) - 1
    w = np.sqrt(np.maximum(0, 1 - np.square(xyz).sum(1, keepdims=True)))
    return np.concatenate([w, xyz], 1)


def _smallest_three(data: np.ndarray) -> np.ndarray:
    """Return quaternions wxyz of the words of version 3 on."""
    words = data.view("<u4")
    fields = np.stack([(words >> np.uint32(shift)) & np.uint32(1023) for shift in (20, 10, 0)], -1)
    small = (fields & 511) * np.float32(np.sqrt(0.5) / 511) * np.where(fields >> 9, np.float32(-1), np.float32(1))
    largest = (words >> np.uint32(30)).astype(np.intp)
    xyzw = np.empty((len(words), 4), np.float32)
    np.put_along_axis(xyzw, np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest], small, 1)
    np.put_along_axis(xyzw, largest[:, None], np.sqrt(np.maximum(0, 1 - np.square(small).sum(1, keepdims=True))), 1)
    return xyzw[:, [3, 0, 1, 2]]


def _up(path: Path, extensions: bytes) -> Up:
    """Return the up axis, from the records (type, length, content) of the extensions where one of them tells."""
    at = 0
    while at + 8 <= len(extensions):
        kind, length = struct.unpack_from("<II", extensions, at)
        at += 8
        if kind == _AXES_EXTENSION and length == 4 and at + 4 <= len(extensions):
            axes = struct.unpack_from("<I", extensions, at)[0]
            if axes not in _AXES:
                raise AssetError(f"{path}: its axes are number {axes} of the SPZ axes extension; save it right-up-back")
            return _AXES[axes]
        at += length
    return "y"
