"""Small GLBs put together by hand, so that every number in them is known."""

import numpy as np
import pytest

from animate4d.io.glb_builder import GlbBuilder

TETRAHEDRON = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
TETRAHEDRON_FACES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.uint16)


class Model(GlbBuilder):
    """A builder with short cuts for the meshes of these tests."""

    def __init__(self):
        super().__init__()
        self.document["scenes"] = [{"nodes": []}]

    def primitive(self, points=TETRAHEDRON, faces=TETRAHEDRON_FACES, **attributes):
        entry = {"attributes": {"POSITION": self.add_accessor(np.asarray(points, np.float32), bounds=True)}}
        if faces is not None:
            entry["indices"] = self.add_accessor(np.asarray(faces, np.uint16).reshape(-1))
        for name, values in attributes.items():
            normalized = np.asarray(values).dtype.kind in "ui" and not name.startswith("JOINTS")
            entry["attributes"][name] = self.add_accessor(np.asarray(values), normalized=normalized)
        return entry

    def mesh(self, *primitives, **extra):
        return self.append("meshes", {"primitives": list(primitives) or [self.primitive()], **extra})

    def node(self, *, root=True, **fields):
        number = self.append("nodes", fields)
        if root:
            self.document["scenes"][0]["nodes"].append(number)
        return number


@pytest.fixture
def model():
    """A fresh builder."""
    return Model()


@pytest.fixture
def saved(tmp_path):
    """Save a builder and return the path."""

    def save(builder, name="model.glb"):
        builder.save(tmp_path / name)
        return tmp_path / name

    return save
