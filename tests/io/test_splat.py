"""The headerless 32-byte records, by hand, and how they are told from other bytes."""

import struct

import numpy as np
import pytest
from PIL import Image

from animate4d.core.errors import AssetError
from animate4d.core.harmonics import SH0
from animate4d.io.splat import looks_like_splats, read_splat


def record(centre=(1.0, -2.0, 0.5), scales=(0.1, 0.02, 0.3), rgba=(255, 0, 128, 204), quat=(128, 128, 255, 128)):
    return struct.pack("<6f4B4B", *centre, *scales, *rgba, *quat)


def test_a_record_by_hand(tmp_path):
    path = tmp_path / "one.splat"
    path.write_bytes(record() + record(quat=(192, 192, 64, 64), rgba=(0, 0, 0, 255)))
    file = read_splat(path)
    cloud = file.cloud
    assert file.up == "-y"
    np.testing.assert_allclose(cloud.means[0], [1, -2, 0.5])
    np.testing.assert_allclose(cloud.scales[0], [0.1, 0.02, 0.3], rtol=1e-6)
    np.testing.assert_allclose(cloud.quats, [[0, 0, 1, 0], [0.5, 0.5, -0.5, -0.5]], atol=1e-6)
    np.testing.assert_allclose(cloud.opacities, [0.8, 1.0])
    assert cloud.sh.shape == (2, 1, 3)
    np.testing.assert_allclose(0.5 + SH0 * cloud.sh[0, 0], [1, 0, 128 / 255], atol=1e-6)


def test_damaged_records_are_left_out_and_mostly_damaged_files_refused(tmp_path):
    path = tmp_path / "some.splat"
    path.write_bytes(record() * 3 + record(centre=(np.nan, 0, 0)) + record(scales=(np.inf, 1, 1)))
    file = read_splat(path)
    assert len(file.cloud.means) == 3
    assert file.warnings == ("2 of 5 splats hold NaN or infinite numbers: left out",)
    path.write_bytes(record() + record(centre=(np.nan, 0, 0)) * 2)
    with pytest.raises(AssetError, match=r"some\.splat: 2 of 3 splats hold NaN"):
        read_splat(path)


def test_a_cut_record_is_named(tmp_path):
    path = tmp_path / "cut.splat"
    path.write_bytes(record() * 2 + b"\0")
    with pytest.raises(AssetError, match=r"65 bytes.*cut"):
        read_splat(path)


def test_zero_quaternions_and_negative_scales_are_defined(tmp_path):
    path = tmp_path / "odd.splat"
    path.write_bytes(record(quat=(128,) * 4, scales=(-0.1, 0.0, 1.0)))
    cloud = read_splat(path).cloud
    np.testing.assert_array_equal(cloud.quats, [[1, 0, 0, 0]])
    np.testing.assert_allclose(cloud.scales, [[0.1, 0, 1]])


def test_other_bytes_do_not_look_like_splats(tmp_path):
    rng = np.random.default_rng(0)
    quats = rng.normal(size=(500, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    real = b"".join(record(centre=rng.normal(size=3), quat=(128 * q + 128).clip(0, 255).astype(int)) for q in quats)
    assert looks_like_splats(real)
    assert looks_like_splats(real[:1000])
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    for other in (
        b"",
        b"short",
        bytes(4096),
        b"\xff" * 4096,
        rng.bytes(65536),
        (tmp_path / "a.png").read_bytes(),
        rng.normal(size=9000).astype("<f4").tobytes(),
        b"0.123 4.567 8.9\n" * 400,
        b"ABCDEFGH" * 400,
    ):
        assert not looks_like_splats(other), other[:8]
