"""Splat primitives of glTF, from JSON and bytes put together by hand."""

import json
import struct

import numpy as np
import pytest

from animate4d.core.errors import AssetError
from animate4d.core.harmonics import SH0
from animate4d.core.splats import SplatCloud
from animate4d.io.gltf import read_accessor, read_gltf
from animate4d.io.splat_glb import is_splat_primitive, read_splat_primitive, write_splat_glb

NAME = "KHR_gaussian_splatting"
FLOAT, BYTE, SHORT, UBYTE, USHORT = 5126, 5120, 5122, 5121, 5123
CODES = {FLOAT: "f", BYTE: "b", SHORT: "h", UBYTE: "B", USHORT: "H"}
TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


def splats(**changes):
    """Two splats: attribute name -> (component type, normalised, rows); None leaves one out."""
    entries = {
        "POSITION": (FLOAT, False, [[0, 1, 2], [3, 4, 5]]),
        f"{NAME}:ROTATION": (FLOAT, False, [[0.5, -0.5, 0.5, 0.5], [0, 0, 0, 1]]),
        f"{NAME}:SCALE": (FLOAT, False, [[0.1, 0.2, 0.3], [1, 0, 2]]),
        f"{NAME}:OPACITY": (FLOAT, False, [[0.25], [1.0]]),
        f"{NAME}:SH_DEGREE_0_COEF_0": (FLOAT, False, [[1, 0, -1], [0.5, 0.25, 0]]),
    }
    entries |= {f"{NAME}:{name}" if name.isupper() and name != "POSITION" else name: v for name, v in changes.items()}
    return {name: value for name, value in entries.items() if value is not None}


def glb(path, attributes, settings=None, **document):
    """Write a GLB of one splat primitive, by hand."""
    views, accessors, data = [], [], b""
    for kind, normalized, rows in attributes.values():
        stride = max(4, -(-struct.calcsize(f"<{len(rows[0])}{CODES[kind]}") // 4) * 4)
        payload = b"".join(struct.pack(f"<{len(row)}{CODES[kind]}", *row).ljust(stride, b"\0") for row in rows)
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": len(payload), "byteStride": stride})
        accessors.append(
            {
                "bufferView": len(views) - 1,
                "componentType": kind,
                "normalized": normalized,
                "count": len(rows),
                "type": TYPES[len(rows[0])],
            }
        )
        data += payload
    primitive = {
        "mode": 0,
        "attributes": {name: number for number, name in enumerate(attributes)},
        "extensions": {NAME: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"} | (settings or {})},
    }
    content = {
        "asset": {"version": "2.0"},
        "extensionsUsed": [NAME],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"byteLength": len(data)}],
        "bufferViews": views,
        "accessors": accessors,
        **document,
    }
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(data), 0x004E4942) + data
    path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body)
    return path


def read(path):
    document = read_gltf(path)
    return read_splat_primitive(document, document.json["meshes"][0]["primitives"][0])


def test_floats_by_hand(tmp_path):
    values, warnings = read(glb(tmp_path / "a.glb", splats(), extensionsRequired=[NAME]))
    assert warnings == []
    np.testing.assert_allclose(values["means"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_allclose(values["quats"], [[0.5, 0.5, -0.5, 0.5], [1, 0, 0, 0]])
    np.testing.assert_allclose(values["scales"], [[0.1, 0.2, 0.3], [1, 0, 2]])
    np.testing.assert_allclose(values["opacities"], [0.25, 1.0])
    np.testing.assert_allclose(values["sh"], [[[1, 0, -1]], [[0.5, 0.25, 0]]])


def test_integers_by_hand(tmp_path):
    attributes = splats(
        ROTATION=(SHORT, True, [[0, 0, -32767, 0], [32767, 0, 0, 0]]),
        SCALE=(USHORT, True, [[65535, 0, 0], [6553, 0, 65535]]),
        OPACITY=(UBYTE, True, [[51], [255]]),
    )
    values, _ = read(glb(tmp_path / "a.glb", attributes))
    np.testing.assert_allclose(values["quats"], [[0, 0, 0, -1], [0, 1, 0, 0]])
    np.testing.assert_allclose(values["scales"], [[1, 0, 0], [0.1, 0, 1]], atol=1e-4)
    np.testing.assert_allclose(values["opacities"], [0.2, 1.0])


def harmonics_up_to(degree):
    rows = {}
    for k in range(1, degree + 1):
        for n in range(2 * k + 1):
            rows[f"SH_DEGREE_{k}_COEF_{n}"] = (FLOAT, False, [[k, n, 0], [k, n, 1]])
    return rows


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_harmonics_go_by_degree_and_order(tmp_path, degree):
    values, _ = read(glb(tmp_path / "a.glb", splats(**harmonics_up_to(degree))))
    assert values["sh"].shape == (2, (degree + 1) ** 2, 3)
    expected = [(k, n) for k in range(1, degree + 1) for n in range(2 * k + 1)]
    np.testing.assert_array_equal(values["sh"][1, 1:, :2], expected)


def test_linear_colors_become_srgb(tmp_path):
    row = [[(0.2140411 - 0.5) / SH0, (0 - 0.5) / SH0, (1 - 0.5) / SH0]] * 2
    attributes = splats(SH_DEGREE_0_COEF_0=(FLOAT, False, row), **harmonics_up_to(1))
    values, warnings = read(glb(tmp_path / "a.glb", attributes, {"colorSpace": "lin_rec709_display"}))
    np.testing.assert_allclose(0.5 + SH0 * values["sh"], [[[0.5, 0, 1]]] * 2, atol=1e-6)
    assert "linear colours" in warnings[0]


@pytest.mark.parametrize(
    ("changes", "settings", "expected"),
    [
        ({"SCALE": None}, {}, "lack the attributes KHR_gaussian_splatting:SCALE"),
        ({"SH_DEGREE_0_COEF_0": None}, {}, "SH_DEGREE_0_COEF_0"),
        ({"SH_DEGREE_1_COEF_0": (FLOAT, False, [[0] * 3] * 2)}, {}, "SH_DEGREE_1_COEF_1"),
        ({"SH_DEGREE_3_COEF_0": (FLOAT, False, [[0] * 3] * 2)}, {}, "SH_DEGREE_1_COEF_0"),
        ({"ROTATION": (FLOAT, False, [[0, 0, 0]] * 2)}, {}, r"ROTATION of its splats has shape \(2, 3\)"),
        ({"OPACITY": (FLOAT, False, [[0.5]] * 3)}, {}, r"OPACITY of its splats has shape \(3,\) for 2"),
        ({}, {"kernel": "disc"}, "of kind 'disc'"),
        (
            {},
            {"extensions": {"KHR_gaussian_splatting_compression_spz_2": {}}},
            "need the glTF extension KHR_gaussian_splatting_compression_spz_2",
        ),
    ],
)
def test_what_is_missing_or_foreign_is_named(tmp_path, changes, settings, expected):
    with pytest.raises(AssetError, match=expected):
        read(glb(tmp_path / "a.glb", splats(**changes), settings))


def test_very_many_declared_splats_are_refused_before_they_are_read(tmp_path):
    path = glb(tmp_path / "a.glb", splats())
    document = read_gltf(path)
    for accessor in document.json["accessors"]:
        accessor["count"] = 10**9
    with pytest.raises(AssetError, match="declares 1000000000 splats"):
        read_splat_primitive(document, document.json["meshes"][0]["primitives"][0])


def test_other_primitives_are_no_splats():
    assert not is_splat_primitive({"mode": 0, "attributes": {"POSITION": 0}})
    assert is_splat_primitive({"mode": 0, "extensions": {NAME: {}}})


@pytest.mark.parametrize("coefficients", [1, 16])
def test_what_is_written_reads_back_to_the_bit(tmp_path, coefficients):
    rng = np.random.default_rng(0)
    quats = rng.normal(size=(40, 4))
    cloud = SplatCloud(
        means=rng.normal(size=(40, 3)).astype(np.float32),
        quats=(quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        scales=rng.uniform(0.01, 0.4, (40, 3)).astype(np.float32),
        opacities=rng.uniform(0.05, 0.99, 40).astype(np.float32),
        sh=rng.normal(0, 0.4, (40, coefficients, 3)).astype(np.float32),
    )
    write_splat_glb(tmp_path / "a.glb", cloud, "a fox")
    document = read_gltf(tmp_path / "a.glb")
    (mesh,) = document.json["meshes"]
    (primitive,) = mesh["primitives"]
    assert (mesh["name"], primitive["mode"]) == ("a fox", 0)
    values, warnings = read_splat_primitive(document, primitive)
    assert not warnings
    for name, found in values.items():
        np.testing.assert_array_equal(found, getattr(cloud, name))
    # what a viewer without the extension shows
    points = read_accessor(document, primitive["attributes"]["COLOR_0"])
    np.testing.assert_allclose(points[:, :3], (0.5 + SH0 * cloud.sh[:, 0]).clip(0, 1), atol=0.51 / 255)
    assert "extensionsRequired" not in document.json
