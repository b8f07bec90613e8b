"""Compressed splat PLYs, from bits put together by hand."""

import struct

import numpy as np
import pytest

from animate4d.core.errors import AssetError
from animate4d.core.harmonics import SH0
from animate4d.io.ply import is_splat_ply, read_ply, read_splat_ply, splats_of

RANGES = [f"{side}_{axis}" for side in ("min", "max") for axis in "xyz"]
RANGES += [f"{side}_scale_{axis}" for side in ("min", "max") for axis in "xyz"]
COLORS = [f"{side}_{channel}" for side in ("min", "max") for channel in "rgb"]
PACKED = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]


def bits(x, y, z):
    return round(x * 2047) << 21 | round(y * 1023) << 11 | round(z * 2047)


def packed_ply(count=300, colors=True, degree=0, chunks=None, packed=PACKED, sh_count=None):
    """Splat k stands at k / (count - 1) of its chunk's range on x; the chunks' ranges differ."""
    chunks = -(-count // 256) if chunks is None else chunks
    ranges = RANGES + (COLORS if colors else [])
    rest = 3 * ((degree + 1) ** 2 - 1)
    lines = ["ply", "format binary_little_endian 1.0", f"element chunk {chunks}"]
    lines += [f"property float {name}" for name in ranges]
    lines += [f"element vertex {count}"] + [f"property uint {name}" for name in packed]
    if rest:
        lines += [f"element sh {count if sh_count is None else sh_count}"]
        lines += [f"property uchar f_rest_{k}" for k in range(rest)]
    data = "\n".join([*lines, "end_header", ""]).encode()
    for chunk in range(chunks):
        row = [-1.0, -2.0, -3.0, 1.0, 2.0, 3.0 + chunk, -6.0, -5.0, -4.0, -2.0, -1.0, 0.0]
        data += struct.pack(f"<{len(ranges)}f", *row, *([0.25, 0.0, 0.5, 0.75, 1.0, 1.5] if colors else []))
    for k in range(count):
        position = bits(k / (count - 1), 0.5, 1.0)
        # the largest component is w (number 0); x = -0.5 sqrt(1/2), y = 0, z = sqrt(1/2) of the 10-bit range
        rotation = 0 << 30 | 256 << 20 | round(0.5 * 1023) << 10 | 1023
        words = [position, rotation, bits(0.0, 1.0, 0.5), 255 << 24 | 0 << 16 | 51 << 8 | 204]
        data += struct.pack(f"<{len(packed)}I", *words[: len(packed)])
    return data + bytes(range(rest)) * (count if sh_count is None else sh_count)


def save(tmp_path, data):
    path = tmp_path / "packed.ply"
    path.write_bytes(data)
    return path


def test_bits_by_hand(tmp_path):
    path = save(tmp_path, packed_ply())
    assert is_splat_ply(read_ply(path))
    cloud = read_splat_ply(path)
    share = np.round(np.arange(300) / 299 * 2047) / 2047
    np.testing.assert_allclose(cloud.means[:, 0], 2 * share - 1, atol=1e-6)
    np.testing.assert_allclose(cloud.means[:, 1], 0, atol=4e-3)
    np.testing.assert_allclose(cloud.means[[0, 255, 256], 2], [3, 3, 4])
    np.testing.assert_allclose(np.log(cloud.scales[0]), [-6, -1, -2], atol=2e-3)
    np.testing.assert_allclose(cloud.opacities, 0.8)
    np.testing.assert_allclose(0.5 + SH0 * cloud.sh[0, 0], [0.75, 0.0, 0.7], atol=1e-6)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(cloud.quats[0], [np.sqrt(1 - 0.125 - 0.5), -half / 2, 0, half], atol=2e-3)
    assert splats_of(read_ply(path)).up == "-y"


def test_every_component_can_be_the_largest(tmp_path):
    data = bytearray(packed_ply(4))
    start = len(data) - 4 * 16
    for k in range(4):
        data[start + 16 * k + 4 : start + 16 * k + 8] = struct.pack("<I", k << 30 | 511 << 20 | 511 << 10 | 511)
    quats = read_splat_ply(save(tmp_path, data)).quats
    np.testing.assert_allclose(quats, np.eye(4), atol=2e-3)


def test_files_without_color_ranges(tmp_path):
    cloud = read_splat_ply(save(tmp_path, packed_ply(colors=False)))
    np.testing.assert_allclose(0.5 + SH0 * cloud.sh[0, 0], [1.0, 0.0, 0.2], atol=1e-6)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_harmonics_are_stored_channel_by_channel(tmp_path, degree):
    cloud = read_splat_ply(save(tmp_path, packed_ply(5, degree=degree)))
    each = (degree + 1) ** 2 - 1
    assert cloud.sh.shape == (5, each + 1, 3)
    np.testing.assert_allclose(cloud.sh[2, 1, 0], -4)
    np.testing.assert_allclose(cloud.sh[2, 2, 0], (1.5 / 256 - 0.5) * 8)
    np.testing.assert_allclose(cloud.sh[2, 1, 1], ((each + 0.5) / 256 - 0.5) * 8)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"chunks": 1}, "1 chunks for 300 splats"),
        ({"packed": PACKED[:3]}, "lacks the properties packed_color"),
        ({"degree": 1, "sh_count": 3}, "harmonics for 3 of 300"),
    ],
)
def test_parts_that_do_not_fit(tmp_path, change, expected):
    with pytest.raises(AssetError, match=expected):
        read_splat_ply(save(tmp_path, packed_ply(**change)))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"element chunk", b"element lumps", "no element chunk"),
        (b"property uint packed_scale", b"property int packed_scale ", "not of type uint"),
        (b"property float min_scale_x", b"property float min_scale_w", "lacks the properties min_scale_x"),
        (b"property uchar f_rest_8", b"property uchar f_rest_9", "9, 24 or 45 bytes"),
    ],
)
def test_headers_that_lie(tmp_path, old, new, expected):
    data = packed_ply(degree=1)
    assert old in data
    with pytest.raises(AssetError, match=expected):
        read_splat_ply(save(tmp_path, data.replace(old, new)))
