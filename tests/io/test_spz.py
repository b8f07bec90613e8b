"""SPZ of every version, from bytes put together by hand after the format's description."""

import gzip
import struct
import time
from dataclasses import replace

import numpy as np
import pytest
from pyarrow import Codec
from scipy.spatial.transform import Rotation

from animate4d.core.errors import AssetError
from animate4d.core.splats import SplatCloud
from animate4d.io.spz import is_spz, read_spz, write_spz

DIMS = {0: 0, 1: 3, 2: 8, 3: 15, 4: 24}


def fixed(value, bits=12):
    """Three bytes of a signed fixed-point number."""
    return struct.pack("<i", round(value * 2**bits))[:3]


def attributes(version, degree, count=2, bits=12):
    """Splats at (1.5, -2, 0.25) and (-0.5, 0, 100) with known sizes, colours and quaternions."""
    places = [(1.5, -2.0, 0.25), (-0.5, 0.0, 100.0)][:count]
    if version == 1:
        centres = b"".join(struct.pack("<3e", *place) for place in places)
    else:
        centres = b"".join(fixed(value, bits) for place in places for value in place)
    if version < 3:
        # x = y = z = 0.5, so w = 0.5; then x = -1, w = 0
        rotations = bytes([191, 191, 191, 0, 128, 128])[: 3 * count]
    else:
        # largest y (number 1) with x = -0.5, z = 0.5, w = 0.5: magnitudes 361 of 511 times sqrt(1/2)
        first = 1 << 30 | 1 << 29 | 361 << 20 | 361 << 10 | 361
        # largest w (number 3), the others zero
        rotations = struct.pack("<2I", first, 3 << 30)[: 4 * count]
    rest = bytes((17 * k + 128) % 256 for k in range(3 * DIMS[degree] * count))
    return [
        centres,
        bytes([255, 51])[:count],
        bytes([255, 0, 128, 64, 64, 64])[: 3 * count],
        bytes([160, 128, 96, 176, 160, 160])[: 3 * count],
        rotations,
        rest,
    ]


def legacy(version=3, degree=0, count=2, bits=12, flags=0, tail=b"", parts=None):
    header = struct.pack("<IIIBBBB", 0x5053474E, version, count, degree, bits, flags, 0)
    return gzip.compress(header + b"".join(parts or attributes(version, degree, bits=bits)) + tail)


def modern(degree=0, count=2, flags=0, extensions=b"", version=4, cut=0):
    parts = [part for part in attributes(4, degree) if part]
    packed = [Codec("zstd").compress(part, asbytes=True) for part in parts]
    table = b"".join(struct.pack("<QQ", len(small), len(part)) for small, part in zip(packed, parts, strict=True))
    header = struct.pack(
        "<IIIBBBBI12x", 0x5053474E, version, count, degree, 12, flags, len(parts), 32 + len(extensions)
    )
    data = header + extensions + table + b"".join(packed)
    return data[: len(data) - cut]


def save(tmp_path, data):
    path = tmp_path / "scan.spz"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_every_version_and_degree(tmp_path, version, degree):
    data = modern(degree) if version == 4 else legacy(version, degree)
    assert is_spz(data[:64])
    file = read_spz(save(tmp_path, data))
    cloud = file.cloud
    assert file.up == "y"
    assert file.warnings == ()
    np.testing.assert_allclose(cloud.means, [[1.5, -2, 0.25], [-0.5, 0, 100]], atol=1e-6)
    np.testing.assert_allclose(cloud.opacities, [1.0, 0.2], atol=1e-6)
    np.testing.assert_allclose(np.log(cloud.scales), [[0, -2, -4], [1, 0, 0]], atol=1e-5)
    np.testing.assert_allclose(cloud.sh[0, 0], np.array([0.5, -0.5, 0.5 / 255]) / 0.15, atol=1e-5)
    expected = [[0.5, 0.5, 0.5, 0.5], [0, -1, 0, 0]] if version < 3 else [[0.5, -0.5, 0.5, 0.5], [1, 0, 0, 0]]
    np.testing.assert_allclose(cloud.quats, expected, atol=1e-2)
    assert cloud.sh.shape == (2, DIMS[degree] + 1, 3)
    rest = np.array([(17 * k + 128) % 256 for k in range(6 * DIMS[degree])]).reshape(2, -1, 3)
    np.testing.assert_allclose(cloud.sh[:, 1:], (rest - 128) / 128, atol=1e-6)


def test_fractional_bits_are_those_of_the_header(tmp_path):
    file = read_spz(save(tmp_path, legacy(bits=8)))
    np.testing.assert_allclose(file.cloud.means, [[1.5, -2, 0.25], [-0.5, 0, 100]])


def test_a_fourth_degree_is_left_out_and_said_so(tmp_path):
    file = read_spz(save(tmp_path, legacy(degree=4)))
    assert file.cloud.sh.shape == (2, 16, 3)
    assert "degree 4" in file.warnings[0]


AXES = struct.pack("<IIf", 0xADBE0002, 4, 1.0) + struct.pack("<III", 0xADBE0003, 4, 6)


@pytest.mark.parametrize("version", [3, 4])
def test_axes_noted_in_the_file_are_followed(tmp_path, version):
    data = modern(flags=2, extensions=AXES) if version == 4 else legacy(flags=2, tail=AXES)
    assert read_spz(save(tmp_path, data)).up == "-y"
    other = AXES[:-4] + struct.pack("<I", 8)
    data = modern(flags=2, extensions=other) if version == 4 else legacy(flags=2, tail=other)
    with pytest.raises(AssetError, match="right-up-back"):
        read_spz(save(tmp_path, data))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (legacy(count=10**9), "declares 1000000000 splats"),
        (legacy(count=10**6), "1000000 splats need 20000000 bytes"),
        (legacy(count=0), "no splats"),
        (legacy(version=0), "header is damaged"),
        (legacy(version=7, parts=attributes(3, 0)), "version 7"),
        (legacy(degree=4, parts=attributes(3, 0)), "is cut"),
        (legacy(bits=99, parts=attributes(3, 0)), "99 fractional bits"),
        (legacy()[:20], "is cut"),
        (legacy()[:-30], "is cut"),
        (gzip.compress(b"NGSP"), "inside its header"),
        (b"NGSP" + bytes(8), "inside its header"),
        (modern(version=5), "version 5"),
        (modern(count=10**9), "declares 1000000000 splats"),
        (modern(count=4_000_000), "do not have the size"),
        (modern(cut=3), "cut or damaged"),
        (modern()[:60], "table"),
        (modern()[:112] + bytes(len(modern()) - 112), "damaged"),
    ],
    ids=lambda value: "file" if isinstance(value, bytes) else None,  # gzip puts the time into the bytes
)
def test_broken_files_cost_nothing_and_are_named(tmp_path, data, expected):
    path = save(tmp_path, data)
    started = time.process_time()
    with pytest.raises(AssetError, match=expected) as caught:
        read_spz(path)
    assert time.process_time() - started < 1
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_unpacked_no_further_than_its_header_promises(tmp_path):
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, 2, 0, 12, 0, 0)
    path = save(tmp_path, gzip.compress(header + b"".join(attributes(3, 0)) + bytes(200 << 20), 1))
    started = time.process_time()
    assert len(read_spz(path).cloud.means) == 2
    assert time.process_time() - started < 0.5


def test_other_gzip_files_are_not_spz():
    assert not is_spz(gzip.compress(b"hello, this is a text"))
    assert not is_spz(b"\x1f\x8b but not a stream")
    assert not is_spz(b"")


def cloud(count=300, coefficients=9, seed=0):
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4))
    return SplatCloud(
        means=rng.normal(size=(count, 3)).astype(np.float32),
        quats=(quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        scales=rng.uniform(0.01, 0.4, (count, 3)).astype(np.float32),
        opacities=rng.uniform(0.05, 0.99, count).astype(np.float32),
        sh=rng.uniform(-0.9, 0.9, (count, coefficients, 3)).astype(np.float32),
    )


def covariances(splats):
    factor = Rotation.from_quat(splats.quats[:, [1, 2, 3, 0]]).as_matrix() * splats.scales[:, None]
    return factor @ factor.swapaxes(1, 2)


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_what_is_written_reads_back_within_a_step_of_each_attribute(tmp_path, coefficients):
    splats = cloud(coefficients=coefficients)
    write_spz(tmp_path / "a.spz", splats)
    assert gzip.decompress((tmp_path / "a.spz").read_bytes())[4] == 2
    file = read_spz(tmp_path / "a.spz")
    assert file.up == "y"
    read = file.cloud
    np.testing.assert_allclose(read.means, splats.means, atol=1e-6)
    np.testing.assert_allclose(read.opacities, splats.opacities, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(read.sh[:, 0], splats.sh[:, 0], atol=0.51 / 255 / 0.15)
    np.testing.assert_allclose(read.sh[:, 1:], splats.sh[:, 1:], atol=0.51 / 128)
    # 1/16 of a natural logarithm for sizes, half a degree for turns
    error = np.linalg.norm(covariances(read) - covariances(splats), axis=(1, 2))
    assert (error / np.linalg.norm(covariances(splats), axis=(1, 2))).max() < 0.08


def test_half_turns_keep_their_axes(tmp_path):
    """The format drops w, and w near zero would lose ten degrees."""
    axes = np.random.default_rng(3).normal(size=(200, 3))
    quats = np.column_stack([np.full(200, 1e-4), axes / np.linalg.norm(axes, axis=1, keepdims=True)])
    splats = replace(cloud(200), quats=quats.astype(np.float32), scales=np.tile(np.float32([0.3, 0.1, 0.01]), (200, 1)))
    write_spz(tmp_path / "a.spz", splats)
    read = read_spz(tmp_path / "a.spz").cloud
    thin = [np.linalg.eigh(covariances(one))[1][:, :, 0] for one in (splats, read)]
    angle = np.degrees(np.arccos(np.abs((thin[0] * thin[1]).sum(1)).clip(0, 1)))
    assert angle.max() < 1.0


def test_far_places_keep_24_bits_and_huge_sizes_are_refused(tmp_path):
    splats = cloud(50)
    far = replace(splats, means=splats.means * np.float32(3000))
    write_spz(tmp_path / "far.spz", far)
    np.testing.assert_allclose(read_spz(tmp_path / "far.spz").cloud.means, far.means, atol=2e-3)
    with pytest.raises(ValueError, match="up to 379 units"):
        write_spz(tmp_path / "huge.spz", replace(splats, scales=splats.scales * np.float32(1e5)))
    assert not (tmp_path / "huge.spz").exists()
