"""PLY in its three encodings, and the splat layout both ways."""

import struct
import time
from dataclasses import replace

import numpy as np
import pytest

from animate4d.core.errors import AssetError
from animate4d.core.splats import SplatCloud
from animate4d.io.ply import is_splat_ply, read_ply, read_splat_ply, splats_of, write_splat_ply

ROWS = [(0.0, 0.5, -1.0, 255), (1.0, 0.0, 0.0, 7), (0.0, 1.0, 0.25, 0), (3.0, 2.0, 1.0, 9)]
TRIANGLES = [[0, 1, 2], [1, 2, 3]]
MIXED = [[0, 1, 2], [0, 1, 2, 3]]


def mesh_bytes(encoding, faces, line_end="\n"):
    header = ["ply", f"format {encoding} 1.0", "comment made by hand", f"element vertex {len(ROWS)}"]
    header += ["property float x", "property float y", "property double z", "property uchar red"]
    header += [
        f"element face {len(faces)}",
        "property uchar flag",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    head = "".join(line + line_end for line in header).encode()
    if encoding == "ascii":
        body = "".join(" ".join(map(str, row)) + line_end for row in ROWS)
        body += "".join(f"1 {len(face)} " + " ".join(map(str, face)) + line_end for face in faces)
        return head + body.encode()
    order = "<" if "little" in encoding else ">"
    body = b"".join(struct.pack(order + "ffdB", *row) for row in ROWS)
    body += b"".join(struct.pack(f"{order}BB{len(face)}i", 1, len(face), *face) for face in faces)
    return head + body


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("faces", [TRIANGLES, MIXED, []])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_all_encodings_read_alike(tmp_path, encoding, faces, line_end):
    path = tmp_path / "mesh.ply"
    path.write_bytes(mesh_bytes(encoding, faces, line_end))
    ply = read_ply(path)
    vertex = ply.elements["vertex"]
    np.testing.assert_array_equal([tuple(row) for row in vertex[["x", "y", "z", "red"]]], ROWS)
    assert vertex["z"].dtype.itemsize == 8
    lists = ply.lists["face", "vertex_indices"]
    np.testing.assert_array_equal(lists.counts, [len(face) for face in faces])
    np.testing.assert_array_equal(lists.values, [index for face in faces for index in face])
    assert ply.comments == ("made by hand",)
    assert not is_splat_ply(ply)


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("faces", [TRIANGLES, MIXED])
def test_every_cut_is_noticed(tmp_path, encoding, faces):
    data = mesh_bytes(encoding, faces)
    path = tmp_path / "cut.ply"
    for length in range(1, len(data) - 2, 3):
        path.write_bytes(data[:length])
        with pytest.raises(AssetError, match=r"cut\.ply"):
            read_ply(path)


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("element", ["property float x", "property list uchar int vertex_indices"])
def test_a_thousand_million_declared_rows_cost_nothing(tmp_path, encoding, element):
    path = tmp_path / "bomb.ply"
    path.write_bytes(
        f"ply\nformat {encoding} 1.0\nelement vertex 1000000000\n{element}\nend_header\n".encode() + b"1 2 3 "
    )
    started = time.process_time()
    with pytest.raises(AssetError, match="declares 1000000000 rows of vertex"):
        read_ply(path)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    "header",
    [
        "ply\nformat ascii 1.0\nelement vertex -1\nproperty float x\nend_header\n",
        "ply\nformat utf8 1.0\nelement vertex 1\nproperty float x\nend_header\n1",
        "ply\nformat ascii 1.0\nproperty float x\nend_header\n",
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty quad x\nend_header\n1",
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float x\nend_header\n1 1",
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty list float int x\nend_header\n1 1",
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\nhello",
        "ply\nelement vertex 1\nproperty float x\nend_header\n1",
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\n",
    ],
)
def test_bad_headers_and_text(tmp_path, header):
    path = tmp_path / "bad.ply"
    path.write_text(header)
    with pytest.raises(AssetError, match=r"bad\.ply"):
        read_ply(path)


def cloud(coefficients, count=50):
    rng = np.random.default_rng(4)
    quats = rng.normal(size=(count, 4))
    return SplatCloud(
        means=rng.normal(size=(count, 3)).astype(np.float32),
        quats=(quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        scales=np.exp(rng.normal(-4, 1, (count, 3))).astype(np.float32),
        opacities=rng.uniform(0.01, 0.99, count).astype(np.float32),
        sh=rng.normal(size=(count, coefficients, 3)).astype(np.float32),
    )


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_splats_survive_the_round_trip(tmp_path, coefficients):
    path = tmp_path / "splats.ply"
    original = cloud(coefficients)
    write_splat_ply(path, original)
    again = read_splat_ply(path)
    for name in ("means", "quats", "scales", "opacities", "sh"):
        np.testing.assert_allclose(getattr(again, name), getattr(original, name), rtol=1e-5, atol=1e-6)
    assert path.stat().st_size < 50 * 4 * (17 + 3 * (coefficients - 1)) + 3000


def test_higher_harmonics_are_stored_channel_by_channel(tmp_path):
    path = tmp_path / "splats.ply"
    original = cloud(4)
    write_splat_ply(path, original)
    rows = read_ply(path).elements["vertex"]
    np.testing.assert_array_equal(rows["f_rest_0"], original.sh[:, 1, 0])
    np.testing.assert_array_equal(rows["f_rest_2"], original.sh[:, 3, 0])
    np.testing.assert_array_equal(rows["f_rest_3"], original.sh[:, 1, 1])
    np.testing.assert_allclose(rows["scale_1"], np.log(original.scales[:, 1]), rtol=1e-6)


def test_opacities_of_zero_and_one_stay_finite(tmp_path):
    path = tmp_path / "splats.ply"
    original = cloud(1, 2)
    original.opacities[:] = [0.0, 1.0]
    original.scales[0] = 0.0
    write_splat_ply(path, original)
    np.testing.assert_allclose(read_splat_ply(path).opacities, [0, 1], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("means", np.nan), ("scales", np.inf), ("sh", np.nan), ("quats", np.inf), ("opacities", np.nan)],
)
def test_splats_that_are_not_finite_are_left_out_and_counted(tmp_path, name, value):
    path = tmp_path / "splats.ply"
    original = cloud(4)
    getattr(original, name)[3] = value
    write_splat_ply(path, original)
    file = splats_of(read_ply(path))
    assert file.warnings == ("1 of 50 splats hold NaN or infinite numbers: left out",)
    np.testing.assert_allclose(file.cloud.means, np.delete(original.means, 3, axis=0))
    getattr(original, name)[:26] = value
    write_splat_ply(path, original)
    with pytest.raises(AssetError, match="26 of 50 splats hold NaN"):
        read_splat_ply(path)


def test_scales_that_overflow_count_as_not_finite(tmp_path):
    path = tmp_path / "splats.ply"
    write_splat_ply(path, cloud(1))
    data = bytearray(path.read_bytes())
    data[-28:-24] = struct.pack("<f", 90.0)
    path.write_bytes(data)
    assert "1 of 50" in splats_of(read_ply(path)).warnings[0]


def test_up_axis_is_that_of_captures_unless_noted(tmp_path):
    path = tmp_path / "splats.ply"
    for noted, expected in ((None, "-y"), ("y", "y"), ("z", "z"), ("-y", "-y")):
        write_splat_ply(path, cloud(1), up=noted)
        assert splats_of(read_ply(path)).up == expected


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_tiny_and_huge_splats_survive(tmp_path, scale):
    original = cloud(1)
    original = replace(original, means=original.means * np.float32(scale), scales=original.scales * np.float32(scale))
    write_splat_ply(tmp_path / "splats.ply", original)
    again = read_splat_ply(tmp_path / "splats.ply")
    np.testing.assert_allclose(again.scales, original.scales, rtol=1e-5)
    np.testing.assert_allclose(again.means, original.means, rtol=1e-6)


def test_other_plys_are_not_splats(tmp_path):
    path = tmp_path / "mesh.ply"
    path.write_bytes(mesh_bytes("ascii", TRIANGLES))
    with pytest.raises(AssetError, match="no Gaussian splats"):
        read_splat_ply(path)
