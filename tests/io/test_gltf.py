"""The glTF container: what is written is read, and what a file declares is checked against what it holds."""

import json
import struct
import time

import DracoPy
import numpy as np
import pytest

from animate4d.core.errors import AssetError
from animate4d.io.glb_builder import GlbBuilder
from animate4d.io.gltf import GltfDocument, read_accessor, read_gltf, read_primitive, view_bytes, write_glb


def document(**fields):
    """A document with 64 bytes 0..63 in its one buffer."""
    views = [{"buffer": 0, "byteLength": 64}, {"buffer": 0, "byteOffset": 8, "byteLength": 16, "byteStride": 4}]
    return GltfDocument(json={"buffers": [{}], "bufferViews": views, **fields}, buffers=[bytes(range(64))], folder=None)


def accessor(**fields):
    return document(accessors=[{"bufferView": 0, "count": 2, "type": "VEC3", "componentType": 5121, **fields}])


def test_write_then_read(tmp_path):
    path = tmp_path / "a.glb"
    content = {"asset": {"version": "2.0"}, "extras": {"name": "Füchsin"}, "buffers": [{"byteLength": 0}]}
    write_glb(path, content, b"12345")
    again = read_gltf(path)
    assert again.json["extras"] == content["extras"]
    assert again.buffers[0][:5] == b"12345"
    assert content["buffers"] == [{"byteLength": 0}], "the caller's JSON is not changed"
    assert path.stat().st_size % 4 == 0
    write_glb(path, {"asset": {"version": "2.0"}}, b"")
    assert read_gltf(path).buffers == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [[0, 1, 2], [3, 4, 5]]),
        ({"byteOffset": 2}, [[2, 3, 4], [5, 6, 7]]),
        ({"bufferView": 1, "count": 4, "type": "SCALAR"}, [8, 12, 16, 20]),
        ({"bufferView": 1, "componentType": 5120, "type": "VEC2"}, [[8, 9], [12, 13]]),
        ({"componentType": 5123, "count": 1}, [[0x0100, 0x0302, 0x0504]]),
        ({"normalized": True, "byteOffset": 51, "count": 1}, [[0.2, 52 / 255, 53 / 255]]),
    ],
)
def test_accessors(fields, expected):
    np.testing.assert_allclose(read_accessor(accessor(**fields), 0), expected, rtol=1e-6)


def test_normalised_signed_integers_reach_minus_one_once():
    values = GltfDocument(
        json={
            "buffers": [{}],
            "bufferViews": [{"buffer": 0, "byteLength": 3}],
            "accessors": [{"bufferView": 0, "count": 3, "type": "SCALAR", "componentType": 5120, "normalized": True}],
        },
        buffers=[struct.pack("3b", -128, -127, 127)],
        folder=None,
    )
    np.testing.assert_array_equal(read_accessor(values, 0), [-1, -1, 1])


def test_matrices_come_out_row_by_column():
    builder = GlbBuilder()
    matrices = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    index = builder.add_accessor(matrices.swapaxes(1, 2))
    values = GltfDocument(json=builder.document, buffers=[bytes(builder._binary)], folder=None)
    values.json["buffers"] = [{}]
    np.testing.assert_array_equal(read_accessor(values, index), matrices)


def test_sparse_accessors_over_zeros_and_over_data():
    sparse = {
        "count": 1,
        "indices": {"bufferView": 0, "byteOffset": 1, "componentType": 5121},
        "values": {"bufferView": 0, "byteOffset": 10},
    }
    np.testing.assert_array_equal(read_accessor(accessor(sparse=sparse), 0), [[0, 1, 2], [10, 11, 12]])
    bare = accessor(sparse=sparse)
    del bare.json["accessors"][0]["bufferView"]
    np.testing.assert_array_equal(read_accessor(bare, 0), [[0, 0, 0], [10, 11, 12]])
    sparse["indices"]["byteOffset"] = 9
    with pytest.raises(AssetError, match="replaces element 9"):
        read_accessor(accessor(sparse=sparse), 0)


def test_parsed_arrays_are_kept_and_cannot_be_changed():
    values = accessor()
    assert read_accessor(values, 0) is read_accessor(values, 0)
    with pytest.raises(ValueError, match="read-only"):
        read_accessor(values, 0)[0, 0] = 1


@pytest.mark.parametrize(
    "fields",
    [
        {"count": 22},
        {"count": 0},
        {"count": -3},
        {"byteOffset": -1},
        {"byteOffset": 60},
        {"bufferView": 9},
        {"type": "VEC9"},
        {"componentType": 1},
        {"bufferView": 1, "componentType": 5126},
        {"count": 10**9},
    ],
)
def test_accessors_that_do_not_fit(fields):
    with pytest.raises(AssetError, match=r"model\.glb"):
        read_accessor(accessor(**fields), 0)


def test_zeros_that_no_byte_stands_for_are_refused_at_once():
    bare = accessor(count=10**9)
    del bare.json["accessors"][0]["bufferView"]
    started = time.process_time()
    with pytest.raises(AssetError, match="far above its size"):
        read_accessor(bare, 0)
    assert time.process_time() - started < 0.1


def test_views_past_the_end_of_their_buffer():
    values = document()
    values.json["bufferViews"][0]["byteLength"] = 65
    with pytest.raises(AssetError, match="ends at byte 65"):
        view_bytes(values, 0)


@pytest.mark.parametrize(
    ("mode", "indices", "expected"),
    [
        (4, [0, 1, 2, 2, 1, 3, 3], [[0, 1, 2], [2, 1, 3]]),
        (5, [0, 1, 2, 3, 0], [[0, 1, 2], [1, 3, 2], [2, 3, 0]]),
        (6, [3, 0, 1, 2], [[3, 0, 1], [3, 1, 2]]),
        (5, [0, 1], np.zeros((0, 3))),
        (4, None, [[0, 1, 2]]),
        (6, None, [[0, 1, 2], [0, 2, 3]]),
    ],
)
def test_lists_strips_and_fans_become_triangles(mode, indices, expected):
    builder = GlbBuilder()
    primitive = {"mode": mode, "attributes": {"POSITION": builder.add_accessor(np.eye(4, 3, dtype=np.float32))}}
    if indices is not None:
        primitive["indices"] = builder.add_accessor(np.array(indices, np.uint8))
    values = GltfDocument(json={**builder.document, "buffers": [{}]}, buffers=[bytes(builder._binary)], folder=None)
    np.testing.assert_array_equal(read_primitive(values, primitive)["indices"], expected)


def test_attributes_of_unequal_length():
    builder = GlbBuilder()
    attributes = {"POSITION": builder.add_accessor(np.eye(3, dtype=np.float32))}
    attributes["NORMAL"] = builder.add_accessor(np.eye(2, 3, dtype=np.float32))
    values = GltfDocument(json={**builder.document, "buffers": [{}]}, buffers=[bytes(builder._binary)], folder=None)
    with pytest.raises(AssetError, match="NORMAL has 2 entries for 3 vertices"):
        read_primitive(values, {"attributes": attributes})


def draco_document(data):
    builder = GlbBuilder()
    view = builder.add_view(data)
    for kind in ("VEC3", "SCALAR"):
        builder.append("accessors", {"componentType": 5126, "count": 4, "type": kind})
    primitive = {
        "attributes": {"POSITION": 0},
        "indices": 1,
        "extensions": {"KHR_draco_mesh_compression": {"bufferView": view, "attributes": {"POSITION": 0}}},
    }
    values = GltfDocument(json={**builder.document, "buffers": [{}]}, buffers=[bytes(builder._binary)], folder=None)
    return values, primitive


def test_draco_round_trip_and_damage():
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.uint32)
    data = DracoPy.encode(points, faces, quantization_bits=14)
    values, primitive = draco_document(data)
    arrays = read_primitive(values, primitive)
    centres = arrays["POSITION"][arrays["indices"]].mean(1)
    distances = np.linalg.norm(centres[:, None] - points[faces].mean(1), axis=2)
    np.testing.assert_allclose(distances.min(0), 0, atol=1e-3)
    for broken in (data[:20], b"DRACO" + b"\xff" * 60, b"nothing at all"):
        with pytest.raises(AssetError, match="Draco"):
            read_primitive(*draco_document(broken))


@pytest.mark.parametrize(
    ("chunk_length", "version", "total"), [(10**9, 2, None), (None, 1, None), (None, 2, 10**6), (None, 77, None)]
)
def test_headers_that_lie(tmp_path, chunk_length, version, total):
    text = json.dumps({"asset": {"version": "2.0"}}).encode()
    text += b" " * (-len(text) % 4)
    data = struct.pack("<II", chunk_length or len(text), 0x4E4F534A) + text
    path = tmp_path / "lie.glb"
    path.write_bytes(b"glTF" + struct.pack("<II", version, total or 12 + len(data)) + data)
    with pytest.raises(AssetError, match=r"cut|version"):
        read_gltf(path)


def test_gltf_json_with_byte_order_mark(tmp_path):
    path = tmp_path / "a.gltf"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"asset": {"version": "2.0"}}).encode())
    assert read_gltf(path).json["asset"]["version"] == "2.0"
