"""The one door for models: canonical frame, formats told by content, and what is said of files that cannot be read."""

import contextlib
import json
import os

import numpy as np
import pytest

from animate4d.assets import gltf_scene
from animate4d.assets.load import load_asset
from animate4d.core.errors import AssetError
from animate4d.io.gltf import read_gltf


def message(path, **options):
    """The one-line error of loading a file."""
    with pytest.raises(AssetError) as caught:
        load_asset(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    return text


@pytest.fixture
def box(model, saved):
    """A model with a unique extent along every axis: 2 in x, 4 in y, 6 in z (front)."""
    points = np.array([[-1, 0, 0], [1, 0, 0], [0, 4, 0], [0, 0, 6]], np.float32)
    node = model.node(mesh=model.mesh(model.primitive(points)))
    model.add_animation("go", np.array([0.0, 1.0]), [(node, "scale", np.array([[1, 1, 1], [3, 3, 3]]))])
    return saved(model, "box.glb")


def test_front_is_x_up_is_z_and_the_sphere_is_canonical(box):
    asset = load_asset(box)
    extent = asset.mesh.vertices.max(0) - asset.mesh.vertices.min(0)
    np.testing.assert_allclose(extent / extent[1] * 2, [6, 2, 4], rtol=1e-5)
    np.testing.assert_allclose(asset.mesh.vertices.max(0), -asset.mesh.vertices.min(0), atol=1e-6)
    assert np.linalg.norm(asset.mesh.vertices, axis=1).max() == pytest.approx(0.8, abs=1e-6)
    back = asset.to_canonical.invert(asset.mesh.vertices)
    np.testing.assert_allclose(back, [[-1, 0, 0], [1, 0, 0], [0, 4, 0], [0, 0, 6]], atol=1e-5)


def test_a_clip_is_normalised_once_from_the_pose_asked_for(box):
    asset = load_asset(box, clip="go", time=0.5)
    np.testing.assert_array_equal(asset.mesh.vertices, asset.vertices_at(0, 0.5))
    sizes = [np.ptp(asset.vertices_at(0, moment), axis=0)[0] for moment in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(np.array(sizes) / sizes[0], [1, 2, 3], rtol=1e-5)
    again = load_asset(box).posed("go", 0.5)
    np.testing.assert_array_equal(again.mesh.vertices, asset.mesh.vertices)


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_size_of_the_file_does_not_matter(model, saved, size):
    model.node(mesh=model.mesh())
    reference = load_asset(saved(model, "one.glb")).mesh.vertices
    model.document["nodes"][0]["scale"] = [size] * 3
    np.testing.assert_allclose(load_asset(saved(model, "other.glb")).mesh.vertices, reference, atol=1e-6)


def test_up_axis_can_be_told(box):
    told = load_asset(box, up="z")
    extent = np.ptp(told.mesh.vertices, axis=0)
    np.testing.assert_allclose(extent / extent[0] * 4, [4, 2, 6], rtol=1e-5)
    assert "up axis 'w'" in message(box, up="w")


def test_gltf_with_data_uri_reads_as_the_glb_does(box, tmp_path):
    import base64

    document = read_gltf(box)
    document.json["buffers"] = [
        {
            "byteLength": len(document.buffers[0]),
            "uri": "data:;base64," + base64.b64encode(document.buffers[0]).decode(),
        }
    ]
    path = tmp_path / "box.gltf"
    path.write_text(json.dumps(document.json))
    np.testing.assert_array_equal(load_asset(path).mesh.vertices, load_asset(box).mesh.vertices)


def test_sibling_files_are_read_and_count_for_the_hash(box, tmp_path):
    document = read_gltf(box)
    document.json["buffers"] = [{"byteLength": len(document.buffers[0]), "uri": "my%20data.bin"}]
    path = tmp_path / "box.gltf"
    path.write_text(json.dumps(document.json))
    assert "my%20data.bin" in message(path)
    document.json["buffers"][0]["uri"] = "x" * 9000
    (tmp_path / "long.gltf").write_text(json.dumps(document.json))
    assert "not beside it" in message(tmp_path / "long.gltf")
    (tmp_path / "my data.bin").write_bytes(document.buffers[0])
    first = load_asset(path)
    (tmp_path / "my data.bin").write_bytes(document.buffers[0] + b"\0\0\0\0")
    assert load_asset(path).source_sha256 != first.source_sha256


FOREIGN = ["../secret.bin", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/a.bin", "..%2Fsecret.bin"]
FOREIGN += ["a/../../secret.bin", "..\\secret.bin", "C:\\secret.bin", "link.bin"]


@pytest.mark.parametrize("uri", FOREIGN)
def test_references_out_of_the_folder_are_refused(box, tmp_path, uri):
    (tmp_path / "secret.bin").write_bytes(read_gltf(box).buffers[0])
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    document = read_gltf(box)
    document.json["buffers"] = [{"byteLength": len(document.buffers[0]), "uri": uri}]
    (folder / "box.gltf").write_text(json.dumps(document.json))
    assert "beside" in message(folder / "box.gltf")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"Hello, this is a note.\n", "this is plain text, not a GLB"),
        (b"\x89PNG\r\n\x1a\n....", "this is a PNG image, not a GLB"),
        (b"PK\x03\x04....", "ZIP archive"),
        (b"Kaydara FBX Binary  \x00", "FBX"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\x00\x01\x02\x03" * 9, "binary data of an unknown kind"),
        (b"{}", "not a glTF file"),
        (b'{"asset": {"version": "1.0"}}', "re-export it as glTF 2.0"),
        (b"{" * 100_000, "cannot be parsed"),
        (b"glTF\x02\x00", "the GLB is cut"),
        (b'{"asset": {"version": "2.0"}}', "no triangles"),
        (b'{"asset": {"version": "2.0"}, "nodes": 7, "meshes": null}', "malformed"),
    ],
)
def test_other_content_is_named(tmp_path, content, expected):
    path = tmp_path / "thing.glb"
    path.write_bytes(content)
    assert expected in message(path)


def test_missing_file_and_folder(tmp_path):
    assert "no such file" in message(tmp_path / "absent.glb")
    assert "not a file" in message(tmp_path)
    os.mkfifo(tmp_path / "pipe.glb")
    assert "not a file" in message(tmp_path / "pipe.glb")
    assert "cannot be read" in message(tmp_path / ("x" * 300 + ".glb"))
    with pytest.raises(AssetError, match="cannot be read"):
        load_asset(tmp_path / "a\0b.glb")


def test_content_wins_over_the_name(box, tmp_path):
    renamed = tmp_path / "box.obj"
    renamed.write_bytes(box.read_bytes())
    assert len(load_asset(renamed).clips) == 1


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_cut_glb(box, share):
    data = box.read_bytes()
    path = box.with_name("cut.glb")
    path.write_bytes(data[: int(len(data) * share)])
    assert "cut" in message(path)


def test_positions_that_are_not_finite(model, saved):
    points = np.array([[0, 0, 0], [1, 0, 0], [0, np.nan, 0], [0, 0, 1]], np.float32)
    primitive = model.primitive(points)
    for accessor in model.document["accessors"]:
        accessor.pop("min", None), accessor.pop("max", None)
    model.node(mesh=model.mesh(primitive))
    assert "1 vertex positions are NaN" in message(saved(model))


def test_model_without_size(model, saved):
    model.node(mesh=model.mesh(model.primitive(np.ones((4, 3), np.float32))))
    assert "no size" in message(saved(model))


def test_flat_and_single_triangles_are_fine(model, saved):
    model.node(mesh=model.mesh(model.primitive([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [0, 1, 2])))
    assert load_asset(saved(model)).mesh.faces.shape == (1, 3)


def test_points_and_lines_are_left_out_with_a_warning(model, saved):
    lines = model.primitive(faces=[0, 1])
    lines["mode"] = 1
    model.node(mesh=model.mesh(lines))
    assert "no triangles" in message(saved(model, "lines.glb"))
    model.node(mesh=model.mesh(lines, model.primitive()))
    asset = load_asset(saved(model))
    assert len(asset.mesh.faces) == 4
    assert "points or lines" in asset.warnings[0]


def test_unknown_required_extension(model, saved):
    model.node(mesh=model.mesh())
    model.document["extensionsRequired"] = ["KHR_materials_unlit", "EXT_meshopt_compression"]
    assert "requires the glTF extension EXT_meshopt_compression" in message(saved(model))


def test_required_extension_is_named_before_its_place_holder_buffer(tmp_path):
    path = tmp_path / "packed.gltf"
    content = {"asset": {"version": "2.0"}, "extensionsRequired": ["EXT_meshopt_compression"]}
    path.write_text(json.dumps({**content, "buffers": [{"byteLength": 4}]}))
    assert "EXT_meshopt_compression" in message(path)


def test_unknown_clip_of_a_static_model(model, saved):
    model.node(mesh=model.mesh())
    assert "has no animations" in message(saved(model), clip="walk")


@pytest.mark.parametrize("children", [{0: [1], 1: [0]}, {0: [2], 1: [2]}, {0: [0]}, {0: [99]}])
def test_broken_node_trees(model, saved, children):
    mesh = model.mesh()
    for number in range(3):
        model.node(mesh=mesh, **({"children": children[number]} if number in children else {}))
    message(saved(model))


def test_indices_out_of_range(model, saved):
    model.node(mesh=model.mesh(model.primitive(faces=[0, 1, 9])))
    assert "vertex 9 of 4" in message(saved(model))


def test_skin_with_too_few_joints(model, saved):
    joints, weights = np.full((4, 4), 5, np.uint8), np.full((4, 4), 0.25, np.float32)
    mesh = model.mesh(model.primitive(JOINTS_0=joints, WEIGHTS_0=weights))
    model.append("skins", {"joints": [model.node()]})
    model.node(mesh=mesh, skin=0)
    assert "joint" in message(saved(model))


def test_one_mesh_drawn_by_very_many_nodes_is_refused(model, saved, monkeypatch):
    monkeypatch.setattr(gltf_scene, "MAX_VERTICES", 100_000)
    mesh = model.mesh(model.primitive(np.random.default_rng(0).random((5000, 3)), np.arange(3000)))
    for _ in range(20):
        model.node(mesh=mesh)
    assert len(load_asset(saved(model)).mesh.vertices) == 100_000
    model.node(mesh=mesh)
    assert "simplify" in message(saved(model, "more.glb"))


def test_keys_that_run_backwards_or_do_not_fit(model, saved):
    node = model.node(mesh=model.mesh())
    model.add_animation("back", np.array([1.0, 0.0]), [(node, "translation", np.zeros((2, 3)))])
    assert "backwards" in message(saved(model, "a.glb"))
    model.document["animations"].clear()
    model.add_animation("short", np.array([0.0, 1.0, 2.0]), [(node, "translation", np.zeros((2, 3)))])
    assert "'short'" in message(saved(model, "b.glb"))


def test_damaged_files_never_raise_anything_but_asset_errors(box):
    rng = np.random.default_rng(11)
    data = box.read_bytes()
    path = box.with_name("damaged.glb")
    readable = 0
    for _ in range(300):
        changed = bytearray(data)
        for at in rng.integers(12, len(data), rng.integers(1, 8)):
            changed[at] = rng.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(AssetError):
            load_asset(path)
            readable += 1
    assert 0 < readable < 200
