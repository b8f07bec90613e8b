"""Splats of every format as assets: one cloud, the same picture, whatever file it came in."""

import gzip
import json
import struct

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from animate4d.assets.load import load_asset
from animate4d.core.errors import AssetError
from animate4d.core.harmonics import harmonics
from animate4d.core.splats import SplatCloud
from animate4d.io.glb_builder import GlbBuilder
from animate4d.io.gltf import read_gltf, write_glb
from animate4d.io.ply import write_splat_ply

NAME = "KHR_gaussian_splatting"


def cloud(count=200, coefficients=4, seed=0):
    """A lopsided heap of splats within [-1, 1], twice as tall as wide, in a frame with y up."""
    rng = np.random.default_rng(seed)
    return SplatCloud(
        means=(rng.uniform(-1, 1, (count, 3)) * [0.3, 1.0, 0.5]).astype(np.float32),
        quats=Rotation.random(count, random_state=seed).as_quat()[:, [3, 0, 1, 2]].astype(np.float32),
        scales=rng.uniform(0.01, 0.05, (count, 3)).astype(np.float32),
        opacities=rng.uniform(0.3, 1.0, count).astype(np.float32),
        sh=rng.normal(0, 0.3, (count, coefficients, 3)).astype(np.float32),
    )


def covariances(splats):
    axes = Rotation.from_quat(splats.quats[:, [1, 2, 3, 0]].astype(np.float64)).as_matrix() * splats.scales[:, None, :]
    return axes @ axes.transpose(0, 2, 1)


def splat_bytes(splats):
    """The cloud as `.splat`, which has no harmonics."""
    rows = b""
    for k in range(len(splats.means)):
        rgb = (255 * (0.5 + 0.28209479 * splats.sh[k, 0])).clip(0, 255).astype(np.uint8)
        quat = (128 * splats.quats[k] + 128).clip(0, 255).astype(np.uint8)
        alpha = int(255 * splats.opacities[k])
        rows += struct.pack("<6f", *splats.means[k], *splats.scales[k]) + bytes([*rgb, alpha, *quat])
    return rows


def spz_bytes(splats):
    """The cloud as SPZ version 2 without harmonics."""
    count = len(splats.means)
    data = struct.pack("<IIIBBBB", 0x5053474E, 2, count, 0, 12, 0, 0)
    data += b"".join(struct.pack("<i", round(float(v) * 4096))[:3] for v in splats.means.ravel())
    data += (255 * splats.opacities).round().astype(np.uint8).tobytes()
    data += (255 * (0.5 + 0.15 * splats.sh[:, 0])).round().clip(0, 255).astype(np.uint8).tobytes()
    data += (16 * np.log(splats.scales) + 160).round().astype(np.uint8).tobytes()
    quats = splats.quats * np.where(splats.quats[:, :1] < 0, -1, 1)
    data += (127.5 * quats[:, 1:] + 127.5).round().astype(np.uint8).tobytes()
    return gzip.compress(data)


def add_splats(builder, splats, **node):
    """Append the cloud as a splat primitive on a node of its own."""
    names = {"POSITION": splats.means, f"{NAME}:ROTATION": splats.quats[:, [1, 2, 3, 0]]}
    names |= {f"{NAME}:SCALE": splats.scales, f"{NAME}:OPACITY": splats.opacities}
    for k in range(splats.sh.shape[1]):
        degree = int(np.sqrt(k))
        names[f"{NAME}:SH_DEGREE_{degree}_COEF_{k - degree**2}"] = splats.sh[:, k]
    attributes = {name: builder.add_accessor(np.ascontiguousarray(values)) for name, values in names.items()}
    primitive = {"mode": 0, "attributes": attributes, "extensions": {NAME: {"kernel": "ellipse"}}}
    mesh = builder.append("meshes", {"primitives": [primitive]})
    return builder.append("nodes", {"mesh": mesh, **node})


def save_scene(builder, path, roots):
    builder.append("scenes", {"nodes": roots})
    builder.save(path)
    return path


def flipped(splats):
    """The same object for a y-down format: half a turn about x."""
    turn = Rotation.from_rotvec([np.pi, 0, 0])
    quats = (turn * Rotation.from_quat(splats.quats[:, [1, 2, 3, 0]])).as_quat()[:, [3, 0, 1, 2]]
    means = turn.apply(splats.means).astype(np.float32)
    return SplatCloud(
        means=means, quats=quats.astype(np.float32), scales=splats.scales, opacities=splats.opacities, sh=splats.sh
    )


@pytest.mark.parametrize("format_", ["ply", "splat", "spz", "glb"])
def test_one_object_stands_the_same_from_every_format(tmp_path, format_):
    original = cloud(coefficients=1)
    path = tmp_path / "object.bin"
    if format_ == "ply":
        write_splat_ply(path, flipped(original))
    elif format_ == "glb":
        builder = GlbBuilder()
        save_scene(builder, path, [add_splats(builder, original)])
    else:
        path.write_bytes(splat_bytes(flipped(original)) if format_ == "splat" else spz_bytes(original))
    asset = load_asset(path)
    assert asset.mesh is None
    assert asset.warnings == ()
    np.testing.assert_allclose(
        asset.splats.means @ [0, 1, 0], asset.to_canonical.scale * original.means[:, 0], atol=0.02
    )
    extent = np.ptp(asset.splats.means, axis=0)
    assert extent[2] > extent[0] > extent[1], "tallest along z, deepest along x"
    np.testing.assert_allclose(asset.splats.opacities, original.opacities, atol=4e-3)
    np.testing.assert_allclose(asset.splats.sh, original.sh, atol=0.03)
    np.testing.assert_allclose(
        np.sort(np.linalg.eigvalsh(covariances(asset.splats)), 1),
        np.sort(np.square(original.scales * asset.to_canonical.scale), 1),
        rtol=0.1,
    )
    back = asset.to_canonical.invert(asset.splats.means)
    down = format_ in ("ply", "splat")
    np.testing.assert_allclose(back, flipped(original).means if down else original.means, atol=1e-3)


def test_nodes_carry_their_splats(tmp_path):
    """Two nodes, one below a turned and scaled parent, and harmonics that turn with them."""
    builder = GlbBuilder()
    first, second = cloud(30, 4, 1), cloud(20, 9, 2)
    turn = Rotation.from_rotvec([0.3, -0.8, 0.5])
    child = add_splats(builder, first, translation=[1.0, 0.0, 0.0])
    parent = builder.append(
        "nodes", {"children": [child], "rotation": turn.as_quat().tolist(), "scale": [2.0, 2.0, 2.0]}
    )
    other = add_splats(builder, second)
    asset = load_asset(save_scene(builder, tmp_path / "scene.glb", [parent, other]))
    world = asset.to_canonical.invert(asset.splats.means)
    np.testing.assert_allclose(world[:30], turn.apply(first.means + np.eye(3)[0]) * 2, atol=1e-5)
    np.testing.assert_allclose(world[30:], second.means, atol=1e-5)
    assert asset.splats.sh.shape == (50, 9, 3)
    scale, rotation = asset.to_canonical.scale, asset.to_canonical.rotation
    matrix = rotation @ turn.as_matrix()
    expected = (2 * scale) ** 2 * matrix @ covariances(first) @ matrix.T
    np.testing.assert_allclose(covariances(asset.splats)[:30], expected, rtol=1e-3, atol=1e-7)
    look = np.array([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]])
    seen = np.einsum("dk,nkc->ndc", harmonics(look @ matrix.T, 9), asset.splats.sh[:30])
    np.testing.assert_allclose(seen, np.einsum("dk,nkc->ndc", harmonics(look, 4), first.sh), atol=1e-5)


def test_a_stretched_node_stretches_its_splats(tmp_path):
    builder = GlbBuilder()
    original = cloud(30, 1)
    node = add_splats(builder, original, scale=[3.0, 1.0, 0.5])
    asset = load_asset(save_scene(builder, tmp_path / "scene.glb", [node]))
    matrix = asset.to_canonical.scale * asset.to_canonical.rotation @ np.diag([3.0, 1.0, 0.5])
    np.testing.assert_allclose(
        covariances(asset.splats), matrix @ covariances(original) @ matrix.T, rtol=2e-3, atol=1e-7
    )


def test_triangles_win_over_splats_and_say_so(model, saved):
    model.node(mesh=model.mesh())
    model.document["scenes"][0]["nodes"].append(add_splats(model, cloud(5, 1)))
    asset = load_asset(saved(model))
    assert asset.splats is None
    assert any("Gaussian splats beside triangles" in warning for warning in asset.warnings)


def test_a_scene_that_draws_none_of_its_splats(tmp_path):
    builder = GlbBuilder()
    add_splats(builder, cloud(5, 1))
    empty = builder.append("nodes", {})
    with pytest.raises(AssetError, match="draws none of its splats"):
        load_asset(save_scene(builder, tmp_path / "scene.glb", [empty]))


def test_animated_nodes_of_splats_are_left_out_with_a_warning(tmp_path):
    builder = GlbBuilder()
    node = add_splats(builder, cloud(5, 1))
    builder.add_animation("spin", np.array([0.0, 1.0]), [(node, "translation", np.zeros((2, 3)))])
    asset = load_asset(save_scene(builder, tmp_path / "scene.glb", [node]))
    assert asset.clips == ()
    assert "animations" in asset.warnings[0]


def test_compressed_splats_in_gltf_are_refused_by_name(tmp_path):
    builder = GlbBuilder()
    save_scene(builder, tmp_path / "scene.glb", [add_splats(builder, cloud(5, 1))])
    document = read_gltf(tmp_path / "scene.glb")
    document.json["extensionsRequired"] = [NAME, f"{NAME}_compression_spz_2"]
    write_glb(tmp_path / "scene.glb", document.json, document.buffers[0])
    with pytest.raises(AssetError, match="requires the glTF extension KHR_gaussian_splatting_compression_spz_2"):
        load_asset(tmp_path / "scene.glb")


def test_buffers_beside_a_splat_gltf_count_for_its_hash(tmp_path):
    builder = GlbBuilder()
    document = read_gltf(save_scene(builder, tmp_path / "scene.glb", [add_splats(builder, cloud(5, 1))]))
    document.json["buffers"][0]["uri"] = "scene.bin"
    (tmp_path / "scene.gltf").write_text(json.dumps(document.json))
    (tmp_path / "scene.bin").write_bytes(document.buffers[0])
    first = load_asset(tmp_path / "scene.gltf").source_sha256
    (tmp_path / "scene.bin").write_bytes(document.buffers[0] + bytes(4))
    assert load_asset(tmp_path / "scene.gltf").source_sha256 != first


def test_strays_do_not_make_the_object_small(tmp_path):
    splats = cloud(500, 1)
    splats.means[:3] = [[90, 0, 0], [0, -400, 0], [0, 0, 7]]
    write_splat_ply(tmp_path / "scan.ply", splats)
    asset = load_asset(tmp_path / "scan.ply")
    radius = np.linalg.norm(asset.splats.means, axis=1)
    assert np.sort(radius)[-4] == pytest.approx(0.8, abs=1e-5)
    assert "3 splats far from all others" in asset.warnings[0]
    assert len(asset.splats.means) == 500


def test_splats_that_would_overflow_are_left_out(tmp_path):
    splats = cloud(50, 1)
    splats.means[7], splats.scales[8] = 1e30, 1e20
    write_splat_ply(tmp_path / "scan.ply", splats)
    asset = load_asset(tmp_path / "scan.ply")
    assert len(asset.splats.means) == 48
    assert any("2 splats lie or reach beyond 1250 times" in warning for warning in asset.warnings)
    assert np.isfinite(asset.splats.means).all()


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_size_of_the_scan_does_not_matter(tmp_path, size):
    write_splat_ply(tmp_path / "one.ply", cloud())
    splats = cloud()
    splats.means[:] *= np.float32(size)
    splats.scales[:] *= np.float32(size)
    write_splat_ply(tmp_path / "other.ply", splats)
    one, other = load_asset(tmp_path / "one.ply").splats, load_asset(tmp_path / "other.ply").splats
    np.testing.assert_allclose(other.means, one.means, atol=1e-5)
    np.testing.assert_allclose(other.scales, one.scales, rtol=1e-4)


def test_splats_in_one_place_have_no_size(tmp_path):
    splats = cloud(5, 1)
    splats.means[:] = 2.0
    write_splat_ply(tmp_path / "scan.ply", splats)
    with pytest.raises(AssetError, match="no size"):
        load_asset(tmp_path / "scan.ply")


def test_content_wins_over_the_name(tmp_path):
    for name, data in (("a.ply", spz_bytes(cloud())), ("b.glb", splat_bytes(cloud()))):
        (tmp_path / name).write_bytes(data)
        assert load_asset(tmp_path / name).splats is not None
    (tmp_path / "c.spz").write_bytes(gzip.compress(b"a letter"))
    with pytest.raises(AssetError, match=r"this is a gzip file .unpack it first., not an SPZ"):
        load_asset(tmp_path / "c.spz")
    (tmp_path / "d.splat").write_text("some words and nothing else\n" * 9)
    with pytest.raises(AssetError, match=r"this is plain text, not a SPLAT; give one of .*SPZ"):
        load_asset(tmp_path / "d.splat")


def test_damaged_splat_files_never_raise_anything_but_asset_errors(tmp_path):
    builder = GlbBuilder()
    save_scene(builder, tmp_path / "a.glb", [add_splats(builder, cloud(20))])
    write_splat_ply(tmp_path / "a.ply", cloud(20))
    sources = [
        (tmp_path / "a.glb").read_bytes(),
        (tmp_path / "a.ply").read_bytes(),
        splat_bytes(cloud(20)),
        gzip.decompress(spz_bytes(cloud(20))),
    ]
    rng = np.random.default_rng(11)
    readable = refused = 0
    for number, data in enumerate(sources * 40):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 30)):
            changed[at] = rng.integers(256)
        path = tmp_path / "damaged"
        path.write_bytes(gzip.compress(changed, 1) if number % 4 == 3 else changed)
        try:
            splats = load_asset(path).splats
        except AssetError:
            refused += 1
        else:
            assert splats is None or all(np.isfinite(getattr(splats, name)).all() for name in splats.__slots__)
            readable += 1
    assert readable > 30
    assert refused > 30
