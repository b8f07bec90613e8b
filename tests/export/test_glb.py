"""Animated GLBs: what the reader sees is what the motion says, and nothing of the user's is lost."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from animate4d.assets.load import load_asset
from animate4d.assets.procedural import generate_objects
from animate4d.assets.reskin import exact_weights, output_frame
from animate4d.core.errors import AssetError
from animate4d.core.motion import VertexMotion
from animate4d.export.glb import MORPH_BOUND, merge_influences, same_sign, write_animated_glb, write_morph_glb
from animate4d.io.gltf import read_accessor, read_gltf, view_bytes


def assert_same_motion(asset, motion, path):
    """Compare the exported file at every keyframe with the motion, in the file's own frame."""
    read = load_asset(path, clip=0)
    frame = output_frame(asset)
    diameter = 1.6 / frame.scale
    # Models that did not come from glTF are cut by material.
    order = np.arange(len(asset.mesh.faces)) if asset.parts else np.argsort(asset.mesh.face_material, kind="stable")
    corners = asset.mesh.faces[order]
    for time, vertices in zip(motion.times - motion.times[0], motion.apply(asset.mesh.vertices), strict=True):
        shown = read.to_canonical.invert(read.vertices_at(0, time).astype(np.float64))
        wanted = frame.invert(vertices.astype(np.float64))
        np.testing.assert_allclose(shown[read.mesh.faces], wanted[corners], atol=1e-5 * diameter, rtol=0)
    return read


def images_of(path):
    document = read_gltf(path)
    return [
        view_bytes(document, image["bufferView"]) if "bufferView" in image else document.read_uri(image["uri"])
        for image in document.json.get("images", [])
    ]


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return generate_objects(
        tmp_path_factory.mktemp("objects"), count=4, seed=11, families=("walker", "barrel", "snake", "tree")
    )


@pytest.mark.parametrize("number", range(4))
def test_round_trip_of_generated_objects(objects, tmp_path, make_motion, number):
    path = objects[number]
    asset = load_asset(path, clip=0, time=0.3)
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces)
    write_animated_glb(asset, motion, tmp_path / "out.glb", name="walk")
    read = assert_same_motion(asset, motion, tmp_path / "out.glb")
    assert [clip.name for clip in read.clips] == ["walk"]
    assert read.clips[0].duration == pytest.approx(motion.times[-1] - motion.times[0])
    np.testing.assert_array_equal(read.mesh.faces, asset.mesh.faces)
    np.testing.assert_allclose(read.mesh.uv, asset.mesh.uv)
    np.testing.assert_allclose(read.mesh.colors, asset.mesh.colors, atol=1e-6)
    source, written = read_gltf(path).json, read_gltf(tmp_path / "out.glb").json
    for kind in ("materials", "textures"):
        assert source.get(kind) == written.get(kind)
    assert [mesh["name"] for mesh in source["meshes"]] == [mesh["name"] for mesh in written["meshes"]]
    assert images_of(path) == images_of(tmp_path / "out.glb")


def test_skin_and_keyframes_are_clean(objects, tmp_path, make_motion):
    asset = load_asset(objects[0])
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces)
    spun = motion.rotations.copy()
    spun[1:] += np.linspace(0.5, 5.0, len(spun) - 1)[:, None, None] * np.array([0, 1, 0], np.float32)
    write_animated_glb(asset, replace(motion, rotations=spun), tmp_path / "out.glb")
    document = read_gltf(tmp_path / "out.glb")
    assert len(document.json["skins"]) == len(document.json["animations"]) == 1
    animation = document.json["animations"][0]
    for channel in animation["channels"]:
        values = read_accessor(document, animation["samplers"][channel["sampler"]]["output"])
        if channel["target"]["path"] == "rotation":
            np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-6)
            assert ((values[1:] * values[:-1]).sum(1) >= 0).all()
            np.testing.assert_allclose(values[0], [0, 0, 0, 1], atol=1e-7)
    for mesh in document.json["meshes"]:
        for primitive in mesh["primitives"]:
            weights = read_accessor(document, primitive["attributes"]["WEIGHTS_0"])
            joints = read_accessor(document, primitive["attributes"]["JOINTS_0"])
            np.testing.assert_allclose(weights.sum(1, dtype=np.float64), 1, atol=1.2e-7)
            assert (joints[weights == 0] == 0).all()
            normals = read_accessor(document, primitive["attributes"]["NORMAL"])
            np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)


def test_a_closed_motion_returns_to_the_first_frame(objects, tmp_path, make_motion):
    asset = load_asset(objects[1])
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces)
    write_animated_glb(asset, motion.closed(), tmp_path / "out.glb")
    read = assert_same_motion(asset, motion.closed(), tmp_path / "out.glb")
    step = motion.times[-1] - motion.times[-2]
    assert read.clips[0].duration == pytest.approx(motion.times[-1] - motion.times[0] + step)
    np.testing.assert_allclose(read.vertices_at(0, read.clips[0].duration), read.vertices_at(0, 0.0), atol=1e-5)


def test_a_single_frame_is_a_still(objects, tmp_path, make_motion):
    asset = load_asset(objects[1])
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces, frames=1)
    write_animated_glb(asset, motion, tmp_path / "out.glb", fps=30)
    assert_same_motion(asset, motion, tmp_path / "out.glb")


@pytest.mark.parametrize("form", ["skin", "morphs"])
def test_more_keyframes_do_not_change_the_motion(objects, tmp_path, make_motion, form):
    asset = load_asset(objects[1])
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces)
    if form == "morphs":
        motion = as_vertices(motion, asset)
    write_animated_glb(asset, motion, tmp_path / "few.glb")
    write_animated_glb(asset, motion, tmp_path / "many.glb", fps=25)
    few, many = (load_asset(tmp_path / name, clip=0) for name in ("few.glb", "many.glb"))
    document = read_gltf(tmp_path / "many.glb")
    times = read_accessor(document, document.json["animations"][0]["samplers"][0]["input"])
    np.testing.assert_allclose(times, np.arange(31) / 25, atol=1e-6)
    for time in np.arange(31) / 25:
        np.testing.assert_allclose(many.vertices_at(0, time), few.vertices_at(0, time), atol=2e-5)
    write_animated_glb(asset, motion, tmp_path / "odd.glb", fps=7)
    assert load_asset(tmp_path / "odd.glb").clips[0].duration == pytest.approx(1.2)


def as_vertices(motion, asset):
    poses = motion.apply(asset.mesh.vertices)
    return VertexMotion(offsets=poses - poses[:1], times=motion.times)


@pytest.mark.parametrize("number", [0, 1])
def test_other_motion_becomes_morph_targets_within_the_bound(objects, tmp_path, make_motion, number):
    asset = load_asset(objects[number], clip=0, time=0.3)
    motion = as_vertices(make_motion(asset.mesh.vertices, asset.mesh.faces), asset)
    write_animated_glb(asset, motion, tmp_path / "out.glb", name="walk")
    read = load_asset(tmp_path / "out.glb", clip=0)
    poses = motion.apply(asset.mesh.vertices)
    for frame, time in enumerate(motion.times - motion.times[0]):
        shown = asset.to_canonical.apply(read.to_canonical.invert(read.vertices_at(0, time).astype(np.float64)))
        error = np.linalg.norm(shown - poses[frame], axis=1).max()
        assert error <= (1e-6 if frame == 0 else MORPH_BOUND + 1e-5)
    document = read_gltf(tmp_path / "out.glb")
    assert "skins" not in document.json
    targets = [len(primitive["targets"]) for mesh in document.json["meshes"] for primitive in mesh["primitives"]]
    assert set(targets) == {len(document.json["meshes"][0]["weights"])}
    assert targets[0] < len(motion.times) - 1
    source = read_gltf(objects[number]).json
    for kind in ("materials", "textures"):
        assert source.get(kind) == document.json.get(kind)


def test_a_graph_may_be_written_as_morph_targets_too(objects, tmp_path, make_motion):
    asset = load_asset(objects[1])
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces)
    write_morph_glb(asset, motion, tmp_path / "morphs.glb")
    write_animated_glb(asset, motion, tmp_path / "skin.glb")
    morphs, skin = (load_asset(tmp_path / name, clip=0) for name in ("morphs.glb", "skin.glb"))
    for time in motion.times - motion.times[0]:
        error = np.linalg.norm(morphs.vertices_at(0, time) - skin.vertices_at(0, time), axis=1)
        assert error.max() < MORPH_BOUND + 1e-5


def test_what_stands_still_needs_no_shapes(objects, tmp_path):
    asset = load_asset(objects[1])
    still = VertexMotion(offsets=np.zeros((4, len(asset.mesh.vertices), 3), np.float32), times=np.arange(4) / 8)
    write_animated_glb(asset, still, tmp_path / "out.glb")
    document = read_gltf(tmp_path / "out.glb").json
    assert not any("targets" in primitive for mesh in document["meshes"] for primitive in mesh["primitives"])
    np.testing.assert_allclose(load_asset(tmp_path / "out.glb").mesh.vertices, asset.mesh.vertices, atol=1e-5)


def test_wavefront_model_gets_its_materials(tmp_path, make_motion):
    picture = np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "wood.png")
    (tmp_path / "m.mtl").write_text("newmtl wood\nmap_Kd wood.png\nnewmtl iron\nKd 0.2 0.3 0.4\n")
    (tmp_path / "m.obj").write_text(
        "mtllib m.mtl\nv 0 0 0\nv 2 0 0\nv 2 3 0\nv 0 3 0\nv 1 1 2\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
        "usemtl wood\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\nusemtl iron\nf 1/1 2/2 5/3\nf 2/1 3/2 5/3\n"
    )
    asset = load_asset(tmp_path / "m.obj")
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces)
    write_animated_glb(asset, motion, tmp_path / "out.glb")
    read = assert_same_motion(asset, motion, tmp_path / "out.glb")
    by_name = {material.name: material for material in read.mesh.materials}
    np.testing.assert_array_equal(by_name["wood"].texture[..., :3], picture)
    for name in ("wood", "iron"):
        source = next(material for material in asset.mesh.materials if material.name == name)
        np.testing.assert_allclose(by_name[name].base_color, source.base_color, atol=1e-6)


def test_separate_files_are_packed_and_a_missing_texture_shows_the_colour(objects, tmp_path, make_motion):
    source = read_gltf(objects[1])
    content = json.loads(json.dumps(source.json))
    buffer = base64.b64encode(source.buffers[0]).decode()
    content["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{buffer}"
    content.setdefault("images", [])[:] = [{"uri": "there.jpg", "name": "bark"}, {"uri": "lost.png"}]
    content["textures"] = [{"source": 0}, {"source": 1}]
    content["materials"] = [{"name": "a", "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}},
                            {"name": "b", "pbrMetallicRoughness": {"baseColorTexture": {"index": 1}}}]  # fmt: skip
    (tmp_path / "m.gltf").write_text(json.dumps(content))
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "there.jpg")
    asset = load_asset(tmp_path / "m.gltf")
    write_animated_glb(asset, make_motion(asset.mesh.vertices, asset.mesh.faces), tmp_path / "out.glb")
    written = read_gltf(tmp_path / "out.glb").json
    assert images_of(tmp_path / "out.glb")[0] == (tmp_path / "there.jpg").read_bytes()
    assert [image["mimeType"] for image in written["images"]] == ["image/jpeg", "image/png"]
    assert written["images"][0]["name"] == "bark"
    assert not any("uri" in image for image in written["images"])
    assert not load_asset(tmp_path / "out.glb").warnings


def test_point_up_formats_are_written_upright(tmp_path, make_motion):
    (tmp_path / "m.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nelement face 3\n"
        "property list uchar int vertex_indices\nend_header\n"
        "0 0 0 255 0 0\n1 0 0 0 255 0\n0 1 0 0 0 255\n0 0 5 9 9 9\n3 0 1 3\n3 1 2 3\n3 2 0 3\n"
    )
    asset = load_asset(tmp_path / "m.ply")
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces)
    write_animated_glb(asset, motion, tmp_path / "out.glb")
    read = assert_same_motion(asset, motion, tmp_path / "out.glb")
    # z-up in the PLY, y-up in the GLB, and the same way up for our reader; still five units tall.
    np.testing.assert_allclose(read.mesh.vertices, asset.mesh.vertices, atol=1e-5)
    assert np.ptp(read.to_canonical.invert(read.mesh.vertices)[:, 1]) == pytest.approx(5, rel=1e-5)
    np.testing.assert_allclose(read.mesh.colors, asset.mesh.colors, atol=1e-6)


def test_misfits_are_refused(objects, tmp_path, make_motion):
    asset, other = load_asset(objects[0]), load_asset(objects[1])
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces)
    with pytest.raises(ValueError, match="vertices"):
        write_animated_glb(other, motion, tmp_path / "x.glb")
    bad = motion.translations.copy()
    bad[2, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        write_animated_glb(asset, replace(motion, translations=bad), tmp_path / "x.glb")
    wide = replace(
        motion, vertex_nodes=np.tile(motion.vertex_nodes, 2), vertex_weights=np.tile(motion.vertex_weights / 2, 2)
    )
    with pytest.raises(ValueError, match="4"):
        write_animated_glb(asset, wide, tmp_path / "x.glb")
    with pytest.raises(AssetError, match="splats"):
        write_animated_glb(replace(asset, mesh=None), motion, tmp_path / "x.glb")
    assert not (tmp_path / "x.glb").exists()


def test_weights_and_influences():
    rng = np.random.default_rng(0)
    weights = exact_weights(rng.random((5000, 4)).astype(np.float32) ** 4)
    assert np.abs(weights.astype(np.float64).sum(1) - 1).max() < 1e-7
    nodes = np.array([[3, 3, 1, 3], [0, 1, 2, 2]])
    joints, merged = merge_influences(nodes, np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0, 0]]))
    np.testing.assert_allclose(merged, [[0.7, 0, 0.3, 0], [0.5, 0.5, 0, 0]])
    np.testing.assert_array_equal(joints, [[3, 0, 1, 0], [0, 1, 0, 0]])
    joints, merged = merge_influences(np.array([[2]]), np.ones((1, 1)))
    assert joints.shape == merged.shape == (1, 4)


def test_same_sign():
    quats = np.random.default_rng(0).normal(size=(20, 5, 4))
    fixed = same_sign(quats)
    assert ((fixed[1:] * fixed[:-1]).sum(-1) >= 0).all()
    np.testing.assert_allclose(np.abs(fixed), np.abs(quats))


REAL = ["animated/khronos__Fox", "animated/khronos__CesiumMilkTruck", "animated/threejs__RobotExpressive",
        "animated/ultimate_space__Enemy_Small", "static/buildings_3__2Story_Sign_Mat", "static/ships__Lifeboat",
        "animated/platformer_game__Bee"]  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_models(real_assets, tmp_path, make_motion, name):
    path = real_assets / f"{name}.glb"
    asset = load_asset(path)
    if asset.clips:
        asset = load_asset(path, clip=0, time=0.2)
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces)
    write_animated_glb(asset, motion, tmp_path / "out.glb")
    read = assert_same_motion(asset, motion, tmp_path / "out.glb")
    source, written = read_gltf(path).json, read_gltf(tmp_path / "out.glb").json
    for kind in ("materials", "textures"):
        assert source.get(kind) == written.get(kind)
    assert images_of(path) == images_of(tmp_path / "out.glb")
    assert "KHR_draco_mesh_compression" not in written.get("extensionsUsed", [])
    np.testing.assert_allclose(read.mesh.uv, asset.mesh.uv, atol=1e-6)
    np.testing.assert_allclose(read.mesh.colors, asset.mesh.colors, atol=1e-6)


def test_normals_of_a_still_model_are_the_files_own(real_assets, tmp_path, make_motion):
    path = real_assets / "static" / "ships__Lifeboat.glb"
    asset = load_asset(path)
    write_animated_glb(asset, make_motion(asset.mesh.vertices, asset.mesh.faces), tmp_path / "out.glb")
    document = read_gltf(tmp_path / "out.glb")
    corners = asset.to_canonical.invert(asset.mesh.vertices.astype(np.float64))[asset.mesh.faces]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.concatenate(
        [
            read_accessor(document, primitive["attributes"]["NORMAL"])
            for mesh in document.json["meshes"]
            for primitive in mesh["primitives"]
        ]
    )
    assert ((normals[asset.mesh.faces].sum(1) * faces).sum(1) > 0).mean() > 0.99
