"""Poses of glTF files against closed forms and a plain, slow evaluator."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from animate4d.assets.gltf_scene import GltfScene
from animate4d.assets.load import load_asset
from animate4d.core.errors import AssetError
from animate4d.io.gltf import read_accessor, read_gltf, read_primitive

TURN_Z = Rotation.from_euler("z", 90, degrees=True).as_quat()


def world(path, clip=None, time=0.0):
    """User-frame vertices by the reader."""
    return GltfScene(read_gltf(path)).vertices(clip, time)


def plain_local(node, animated):
    """Local matrix of one node; `animated` overrides its properties."""
    if "matrix" in node and not animated:
        return np.array(node["matrix"]).reshape(4, 4).T
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(animated.get("rotation", node.get("rotation", [0, 0, 0, 1]))).as_matrix()
    matrix[:3, :3] *= np.array(animated.get("scale", node.get("scale", [1, 1, 1])))
    matrix[:3, 3] = animated.get("translation", node.get("translation", [0, 0, 0]))
    return matrix


def plain_pose(path, clip, key):
    """Vertices of every skinned primitive at a keyframe, by loops over vertices and joints."""
    document = read_gltf(path)
    nodes = document.json["nodes"]
    animated = {}
    animation = document.json["animations"][clip]
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        value = read_accessor(document, sampler["output"])[key]
        animated.setdefault(channel["target"]["node"], {})[channel["target"]["path"]] = value
    parents = {child: parent for parent, node in enumerate(nodes) for child in node.get("children", [])}

    def globally(number):
        local = plain_local(nodes[number], animated.get(number, {}))
        return globally(parents[number]) @ local if number in parents else local

    node = next(node for node in nodes if "skin" in node)
    skin = document.json["skins"][node["skin"]]
    binds = read_accessor(document, skin["inverseBindMatrices"])
    arrays = read_primitive(document, document.json["meshes"][node["mesh"]]["primitives"][0])
    result = []
    for point, joints, weights in zip(arrays["POSITION"], arrays["JOINTS_0"], arrays["WEIGHTS_0"], strict=True):
        moved = np.zeros(3)
        for joint, weight in zip(joints, weights, strict=True):
            if weight:
                matrix = globally(skin["joints"][joint]) @ binds[joint]
                moved += weight * (matrix @ np.append(point, 1.0))[:3]
        result.append(moved)
    return np.array(result)


@pytest.fixture
def skinned(model):
    """A skin under an armature scaled by 100 and turned, on a mesh node whose own transform must not count."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(12, 3)).astype(np.float32)
    weights = rng.random((12, 4)).astype(np.float32)
    weights /= weights.sum(1, keepdims=True)
    primitive = model.primitive(
        points, np.arange(12).reshape(4, 3), JOINTS_0=rng.integers(0, 3, (12, 4)).astype(np.uint8), WEIGHTS_0=weights
    )
    mesh = model.mesh(primitive)
    joints = [model.node(root=False, translation=rng.normal(size=3).tolist()) for _ in range(3)]
    model.document["nodes"][joints[0]]["children"] = [joints[1]]
    model.document["nodes"][joints[1]]["children"] = [joints[2]]
    armature = {"scale": [100, 100, 100], "rotation": Rotation.from_euler("x", -90, degrees=True).as_quat().tolist()}
    model.node(children=[joints[0]], **armature)
    model.node(mesh=mesh, skin=0, translation=[5, 6, 7], scale=[3, 3, 3])
    binds = np.stack([np.linalg.inv(plain_local({"translation": rng.normal(size=3), **armature}, {})) for _ in joints])
    columns = model.add_accessor(binds.swapaxes(1, 2).astype(np.float32))
    model.append("skins", {"joints": joints, "inverseBindMatrices": columns})
    times = np.array([0.0, 0.5, 1.25])
    turns = [Rotation.random(3, random_state=number).as_quat() for number in range(3)]
    channels = [(joint, "rotation", turn) for joint, turn in zip(joints, turns, strict=True)]
    channels += [(joints[0], "translation", rng.normal(size=(3, 3))), (joints[1], "scale", 1 + rng.random((3, 3)))]
    model.add_animation("move", times, channels)
    return model, times


def test_skin_matches_the_plain_evaluator_at_every_key(skinned, saved):
    model, times = skinned
    path = saved(model)
    for key, time in enumerate(times):
        np.testing.assert_allclose(world(path, 0, time), plain_pose(path, 0, key), rtol=1e-5, atol=1e-4)


def test_transform_of_a_skinned_mesh_node_is_ignored(skinned, saved):
    model, _ = skinned
    before = world(saved(model))
    model.document["nodes"][-1].update(translation=[-9, 0, 0], rotation=TURN_Z.tolist())
    np.testing.assert_allclose(world(saved(model, "moved.glb")), before)


def test_times_outside_the_clip_hold_the_first_and_last_pose(skinned, saved):
    model, times = skinned
    path = saved(model)
    np.testing.assert_allclose(world(path, 0, -3.0), world(path, 0, times[0]))
    np.testing.assert_allclose(world(path, 0, 99.0), world(path, 0, times[-1]))


def test_rotation_is_interpolated_along_the_shorter_arc(model, saved):
    node = model.node(mesh=model.mesh())
    quarter = Rotation.from_euler("z", 90, degrees=True).as_quat()
    model.add_animation("turn", np.array([0.0, 2.0]), [(node, "rotation", np.stack([[0, 0, 0, 1], -quarter]))])
    turned = world(saved(model), 0, 0.5)
    expected = Rotation.from_euler("z", 22.5, degrees=True).apply([1, 0, 0])
    np.testing.assert_allclose(turned[1], expected, atol=1e-6)


def test_step_jumps_at_the_key_and_cubic_splines_follow_hermite(model, saved):
    stepped, curved = model.node(mesh=model.mesh()), model.node(mesh=model.mesh())
    times = np.array([0.0, 1.0, 3.0])
    places = np.array([[0, 0, 0], [5, 0, 0], [9, 0, 0]], np.float32)
    model.add_animation("both", times, [(stepped, "translation", places)], "STEP")
    keys = np.array(
        [[[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[4, 0, 0], [3, 0, 0], [-1, 0, 0]], [[0.5, 0, 0], [7, 0, 0], [0, 0, 0]]]
    )
    animation = model.document["animations"][0]
    output = model.add_accessor(keys.reshape(-1, 3).astype(np.float32))
    animation["samplers"].append(
        {"input": animation["samplers"][0]["input"], "interpolation": "CUBICSPLINE", "output": output}
    )
    animation["channels"].append({"sampler": 1, "target": {"node": curved, "path": "translation"}})
    path = saved(model)
    assert world(path, 0, 0.999)[0, 0] == 0.0
    assert world(path, 0, 1.0)[0, 0] == 5.0
    from scipy.interpolate import CubicHermiteSpline

    left = CubicHermiteSpline([0.0, 1.0], [1, 3], [2, 4])
    right = CubicHermiteSpline([1.0, 3.0], [3, 7], [-1, 0.5])
    for time in (0.0, 0.3, 0.9):
        assert world(path, 0, time)[4, 0] == pytest.approx(left(time))
    for time in (1.0, 1.7, 3.0):
        assert world(path, 0, time)[4, 0] == pytest.approx(right(time))


def test_morph_targets_add_up_by_default_and_animated_weights(model, saved):
    primitive = model.primitive()
    grow = np.zeros((4, 3), np.float32)
    grow[1, 0] = 1.0
    lift = np.full((4, 3), 0.0, np.float32)
    lift[:, 2] = 2.0
    primitive["targets"] = [{"POSITION": model.add_accessor(grow)}, {"POSITION": model.add_accessor(lift)}]
    mesh = model.mesh(primitive, weights=[0.5, 0.0])
    first, second = model.node(mesh=mesh), model.node(mesh=mesh, weights=[0.0, 0.25])
    clock = model.add_accessor(np.array([0.0, 1.0], np.float32))
    weights = model.add_accessor(np.array([0, 0, 1, 0.5], np.float32))
    channel = {"sampler": 0, "target": {"node": second, "path": "weights"}}
    model.append("animations", {"channels": [channel], "samplers": [{"input": clock, "output": weights}]})
    path = saved(model)
    rest = world(path)
    assert rest[1, 0] == 1.5
    np.testing.assert_allclose(rest[4:, 2], [0.5, 0.5, 0.5, 1.5])
    moved = world(path, 0, 0.5)
    assert moved[1, 0] == 1.5, "the other node keeps the mesh's default weights"
    np.testing.assert_allclose(moved[4:], rest[:4] * [1, 1, 1] + [[0, 0, 0.5]] * 4, atol=1e-6)
    assert first != second


def test_nested_matrix_nodes_and_instances(model, saved):
    mesh = model.mesh()
    matrix = np.eye(4)
    matrix[:3, 3] = [1, 2, 3]
    child = model.node(root=False, mesh=mesh, scale=[2, 2, 2])
    model.node(children=[child], matrix=matrix.T.reshape(-1).tolist())
    model.node(mesh=mesh, translation=[-1, 0, 0])
    path = saved(model)
    vertices = world(path)
    np.testing.assert_allclose(vertices[:4], vertices[4:] * 2 + [3, 2, 3])
    asset = load_asset(path)
    assert [(part.node, part.vertex_start, part.vertex_count) for part in asset.parts] == [(0, 0, 4), (2, 4, 4)]
    np.testing.assert_array_equal(asset.mesh.part_of_vertex, [0] * 4 + [1] * 4)


def test_animation_of_a_matrix_node_replaces_only_what_it_names(model, saved):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(TURN_Z).as_matrix() * 2.0
    node = model.node(mesh=model.mesh(), matrix=matrix.T.reshape(-1).tolist())
    model.add_animation("slide", np.array([0.0, 1.0]), [(node, "translation", np.array([[0, 0, 0], [4, 0, 0]]))])
    np.testing.assert_allclose(world(saved(model), 0, 1.0)[1], [4, 2, 0], atol=1e-6)


def test_faces_of_a_mirrored_node_stay_outward(model, saved):
    mesh = model.mesh()
    model.node(mesh=mesh)
    model.node(mesh=mesh, scale=[-1, 1, 1], translation=[-3, 0, 0])
    asset = load_asset(saved(model))
    assert [part.flipped for part in asset.parts] == [False, True]
    for part in asset.parts:
        corners = asset.mesh.vertices[asset.mesh.faces[part.face_start : part.face_start + part.face_count]]
        volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum()
        assert volume > 0


def test_only_the_default_scene_is_drawn(model, saved):
    mesh = model.mesh()
    model.node(mesh=mesh)
    hidden = model.node(mesh=mesh, root=False, translation=[99, 0, 0])
    model.document["scenes"].append({"nodes": [hidden]})
    assert len(world(saved(model))) == 4
    model.document["scene"] = 1
    assert world(saved(model, "other.glb")).min() > -1
    assert world(saved(model, "other.glb"))[:, 0].max() == 100


def test_several_clips_are_told_apart_by_name_and_number(model, saved):
    node = model.node(mesh=model.mesh())
    for name, place in (("walk", 1.0), ("run", 2.0), ("run", 3.0)):
        model.add_animation(name, np.array([0.0, place]), [(node, "translation", np.array([[0, 0, 0], [place, 0, 0]]))])
    asset = load_asset(saved(model))
    assert [(clip.name, clip.duration) for clip in asset.clips] == [("walk", 1.0), ("run", 2.0), ("run", 3.0)]
    assert asset.clip_number("walk") == 0
    assert asset.clip_number("2") == 2
    with pytest.raises(AssetError, match="give the number"):
        asset.clip_number("run")
    with pytest.raises(AssetError, match=r"no animation 'fly'; it has 0 'walk', 1 'run'"):
        asset.posed("fly")


def test_skin_with_damaged_weights_is_drawn_with_a_warning(skinned, saved):
    model, _ = skinned
    weights = np.full((12, 4), 0.25, np.float32)
    weights[3] = np.nan
    weights[4] = 0.0
    model.document["meshes"][0]["primitives"][0]["attributes"]["WEIGHTS_0"] = model.add_accessor(weights)
    asset = load_asset(saved(model))
    assert np.isfinite(asset.mesh.vertices).all()
    assert any("damaged skin weights" in warning for warning in asset.warnings)


@pytest.mark.parametrize("time", [np.nan, np.inf])
def test_a_time_that_is_no_number_is_refused(skinned, saved, time):
    asset = load_asset(saved(skinned[0]))
    with pytest.raises(AssetError, match="seconds"):
        asset.vertices_at(0, time)
