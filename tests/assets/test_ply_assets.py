"""PLY files as assets: meshes standing on z, splats turned with their harmonics."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from animate4d.assets.load import load_asset
from animate4d.assets.splat_frame import splats_to_canonical, splats_to_user
from animate4d.core.errors import AssetError
from animate4d.core.harmonics import harmonics
from animate4d.core.mesh import Similarity
from animate4d.core.splats import SplatCloud
from animate4d.io.ply import write_splat_ply

MESH = """ply
format ascii 1.0
element vertex 4
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face 2
property list uchar int vertex_indices
end_header
0 0 0 255 0 0
2 0 0 255 255 255
0 -6 0 188 188 188
0 0 4 0 0 0
3 0 1 2
4 0 1 2 3
"""


def cloud(coefficients=16, count=40):
    rng = np.random.default_rng(5)
    quats = rng.normal(size=(count, 4))
    return SplatCloud(
        means=rng.normal(size=(count, 3)).astype(np.float32),
        quats=(quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        scales=rng.uniform(0.01, 0.2, (count, 3)).astype(np.float32),
        opacities=rng.uniform(0.1, 0.99, count).astype(np.float32),
        sh=rng.normal(size=(count, coefficients, 3)).astype(np.float32),
    )


def covariances(splats):
    axes = Rotation.from_quat(splats.quats[:, [1, 2, 3, 0]].astype(np.float64)).as_matrix() * splats.scales[:, None, :]
    return axes @ axes.transpose(0, 2, 1)


def test_mesh_stands_on_z_and_faces_minus_y(tmp_path):
    path = tmp_path / "mesh.ply"
    path.write_text(MESH)
    asset = load_asset(path)
    extent = np.ptp(asset.mesh.vertices, axis=0)
    np.testing.assert_allclose(extent / extent[1] * 2, [6, 2, 4], rtol=1e-5)
    assert asset.mesh.vertices[2, 0] == asset.mesh.vertices[:, 0].max(), "the front (-y) looks along +x"
    np.testing.assert_array_equal(asset.mesh.faces, [[0, 1, 2], [0, 1, 2], [0, 2, 3]])
    np.testing.assert_allclose(asset.mesh.colors[[0, 2]], [[1, 0, 0, 1], [0.5029, 0.5029, 0.5029, 1]], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("3 0 1 2", "3 0 1 8"), "vertex outside"),
        (("0 0 4 0 0 0", "0 0 nan 0 0 0"), "NaN"),
        (("element face 2", "element face 0"), "no triangles"),
        (("property float z", "property float depth"), "no vertices"),
        (("3 0 1 2", "3 0 1"), "cut"),
    ],
)
def test_broken_meshes(tmp_path, change, expected):
    path = tmp_path / "mesh.ply"
    path.write_text(MESH.replace(*change))
    with pytest.raises(AssetError, match=expected):
        load_asset(path)


def test_splats_are_normalised_by_those_that_are_seen(tmp_path):
    splats = cloud()
    splats.means[0] = 50.0
    splats.opacities[0] = 0.001
    path = tmp_path / "scan.ply"
    write_splat_ply(path, splats)
    asset = load_asset(path)
    assert asset.mesh is None
    assert np.linalg.norm(asset.splats.means[1:], axis=1).max() == pytest.approx(0.8, abs=1e-5)
    np.testing.assert_allclose(asset.splats.scales, splats.scales * asset.to_canonical.scale, rtol=1e-4)
    assert asset.posed(None) is asset
    with pytest.raises(AssetError, match="no animations"):
        load_asset(path, clip=0)


def test_captured_splats_are_y_down_unless_the_header_tells(tmp_path):
    splats = cloud()
    write_splat_ply(tmp_path / "scan.ply", splats)
    down = load_asset(tmp_path / "scan.ply")
    assert np.argmax(down.splats.means[:, 2]) == np.argmin(splats.means[:, 1])
    write_splat_ply(tmp_path / "ours.ply", splats, up="y")
    assert np.argmax(load_asset(tmp_path / "ours.ply").splats.means[:, 2]) == np.argmax(splats.means[:, 1])
    told = load_asset(tmp_path / "ours.ply", up="z")
    assert np.argmax(told.splats.means[:, 2]) == np.argmax(splats.means[:, 2])


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_splats_turn_as_one_body(coefficients):
    splats = cloud(coefficients)
    turn = Rotation.random(random_state=1).as_matrix()
    similarity = Similarity(scale=2.5, rotation=turn, translation=np.array([1.0, -2.0, 3.0]))
    moved = splats_to_canonical(splats, similarity)
    expected = 2.5**2 * turn @ covariances(splats) @ turn.T
    np.testing.assert_allclose(covariances(moved), expected, rtol=1e-3, atol=1e-6)
    directions = np.random.default_rng(2).normal(size=(9, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    before = np.einsum("dk,nkc->ndc", harmonics(directions, coefficients), splats.sh)
    after = np.einsum("dk,nkc->ndc", harmonics(directions @ turn.T, coefficients), moved.sh)
    np.testing.assert_allclose(after, before, atol=1e-4)
    back = splats_to_user(moved, similarity)
    np.testing.assert_allclose(back.means, splats.means, atol=1e-5)
    np.testing.assert_allclose(back.sh, splats.sh, atol=1e-4)
    np.testing.assert_allclose(covariances(back), covariances(splats), rtol=1e-3, atol=1e-6)
