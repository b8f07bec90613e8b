"""What the builder packs, the reader unpacks."""

import itertools

import numpy as np
import pytest

from animate4d.io.glb_builder import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, GlbBuilder
from animate4d.io.gltf import read_accessor, read_gltf, view_bytes

VECTORS = [(7,), (7, 2), (7, 3), (7, 4)]
KINDS = ["int8", "uint8", "int16", "uint16", "uint32", "float32"]


@pytest.mark.parametrize(("dtype", "shape"), [*itertools.product(KINDS, VECTORS), ("float32", (7, 4, 4))])
def test_arrays_survive(tmp_path, dtype, shape):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    builder = GlbBuilder()
    builder.add_view(b"x")
    index = builder.add_accessor(values, target=ARRAY_BUFFER)
    builder.save(tmp_path / "a.glb")
    read = read_accessor(read_gltf(tmp_path / "a.glb"), index)
    # The reader gives matrices as (row, column); the builder takes them as stored, column by column.
    np.testing.assert_array_equal(read, values.swapaxes(1, 2) if len(shape) == 3 else values)
    assert read.dtype == values.dtype


def test_vertex_attributes_are_padded_to_four_bytes(tmp_path):
    builder = GlbBuilder()
    colors = np.random.default_rng(0).integers(0, 255, (5, 3), dtype=np.uint8)
    builder.add_accessor(colors, target=ARRAY_BUFFER, normalized=True)
    faces = builder.add_accessor(np.arange(6, dtype=np.uint16), target=ELEMENT_ARRAY_BUFFER)
    assert builder.document["bufferViews"][0]["byteStride"] == 4
    assert "byteStride" not in builder.document["bufferViews"][faces]
    builder.save(tmp_path / "a.glb")
    document = read_gltf(tmp_path / "a.glb")
    np.testing.assert_allclose(read_accessor(document, 0), colors / 255, atol=1e-6)


def test_bounds_images_and_animations(tmp_path):
    builder = GlbBuilder()
    points = np.array([[0, 1, 2], [3, -1, 5]], np.float32)
    accessor = builder.add_accessor(points, bounds=True)
    assert builder.document["accessors"][accessor]["min"] == [0, -1, 2]
    assert builder.document["accessors"][accessor]["max"] == [3, 1, 5]
    image = builder.add_image(b"12345", "image/png", "paint")
    builder.append("nodes", {"name": "a"})
    builder.add_animation("go", np.array([0.0, 1.5]), [(0, "translation", points), (0, "scale", points)])
    builder.save(tmp_path / "a.glb")
    document = read_gltf(tmp_path / "a.glb")
    assert view_bytes(document, document.json["images"][image]["bufferView"]) == b"12345"
    animation = document.json["animations"][0]
    inputs = {sampler["input"] for sampler in animation["samplers"]}
    assert len(inputs) == 1
    np.testing.assert_allclose(read_accessor(document, inputs.pop()), [0, 1.5])
    assert [channel["target"]["path"] for channel in animation["channels"]] == ["translation", "scale"]
