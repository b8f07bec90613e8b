"""OBJ files as people's tools write them."""

import numpy as np
import pytest
from PIL import Image

from animate4d.assets.load import load_asset
from animate4d.core.errors import AssetError

QUAD = "v 0 0 0\nv 2 0 0\nv 2 2 0\nv 0 2 0\n"


def written(folder, text, name="thing.obj"):
    (folder / name).write_text(text)
    return folder / name


def test_polygons_relative_indices_and_line_ends(tmp_path):
    text = (
        "# made by hand\r\n" + QUAD.replace("\n", "\r\n") + "vn 0 0 1\r\nf -4//1 -3//1 \\\r\n -2//1 -1//1\r\nl 1 2\r\n"
    )
    asset = load_asset(written(tmp_path, text))
    assert asset.mesh.faces.shape == (2, 3)
    assert "1 points, lines" in asset.warnings[0]
    corners = asset.to_canonical.invert(asset.mesh.vertices)[asset.mesh.faces]
    np.testing.assert_allclose(
        corners, [[[0, 0, 0], [2, 0, 0], [2, 2, 0]], [[0, 0, 0], [2, 2, 0], [0, 2, 0]]], atol=1e-6
    )


def test_y_is_up_and_z_is_front(tmp_path):
    asset = load_asset(written(tmp_path, "v 0 0 0\nv 2 0 0\nv 0 4 0\nv 0 0 6\nf 1 2 3\nf 1 3 4\n"))
    extent = np.ptp(asset.mesh.vertices, axis=0)
    np.testing.assert_allclose(extent / extent[1] * 2, [6, 2, 4], rtol=1e-5)
    assert asset.clips == ()


def test_materials_textures_and_seams(tmp_path):
    pixels = np.arange(16, dtype=np.uint8).reshape(2, 2, 4)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "my skin.png")
    (tmp_path / "thing.mtl").write_text(
        "newmtl painted\nKd 0 0 0\nmap_Kd -s 1 1 -clamp on my skin.png\nnewmtl glass\nKd 1 0.5 0\nd 0.25\n"
        "newmtl lost\nKd 1 1 1\nmap_Kd C:\\Users\\me\\wood.png\n"
    )
    text = "mtllib thing.mtl\n" + QUAD + "v 0 0 2\nvt 0 0\nvt 1 0\nvt 1 0.75\nvt 0.5 0.5\n"
    text += (
        "usemtl painted\nf 1/1 2/2 3/3\nusemtl glass\nf 1 3 4\nusemtl lost\nf 1/4 2/2 5/3\nusemtl nowhere\nf 2 3 5\n"
    )
    asset = load_asset(written(tmp_path, text))
    painted, glass, lost, nowhere = asset.mesh.materials
    np.testing.assert_array_equal(painted.texture, pixels)
    assert painted.base_color == (1, 1, 1, 1)
    assert glass.base_color == pytest.approx((1.0, 0.2140, 0.0, 0.25), abs=1e-4)
    assert glass.alpha_mode == "BLEND"
    assert lost.texture is None
    assert nowhere.base_color == (1, 1, 1, 1)
    assert any("wood.png" in warning for warning in asset.warnings)
    np.testing.assert_allclose(asset.mesh.uv[asset.mesh.faces[0]], [[0, 1], [1, 1], [1, 0.25]])
    np.testing.assert_allclose(asset.mesh.uv[asset.mesh.faces[2][0]], [0.5, 0.5])
    np.testing.assert_array_equal(asset.mesh.face_material, [0, 1, 2, 3])


def test_colors_behind_the_coordinates(tmp_path):
    asset = load_asset(written(tmp_path, "v 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 0 1 0 0.5 0.5 0.5\nf 1 2 3\n"))
    np.testing.assert_allclose(asset.mesh.colors[2], [0.2140, 0.2140, 0.2140, 1], atol=1e-4)


def test_faces_may_come_before_what_they_refer_to(tmp_path):
    asset = load_asset(written(tmp_path, "f 1/1 2/2 3/9\nvt 0 0\nvt 1 1\n" + QUAD))
    np.testing.assert_allclose(asset.mesh.uv[asset.mesh.faces[0]], [[0, 1], [1, 0], [0, 0]])
    assert asset.warnings == ("1 texture coordinates are missing: drawn without them",)


def test_materials_outside_the_folder_are_not_read(tmp_path):
    (tmp_path / "outside.mtl").write_text("newmtl red\nKd 1 0 0\n")
    inner = tmp_path / "inner"
    inner.mkdir()
    asset = load_asset(written(inner, "mtllib ../outside.mtl\n" + QUAD + "usemtl red\nf 1 2 3\n"))
    assert asset.mesh.materials[0].base_color == (1, 1, 1, 1)
    assert "outside.mtl" in asset.warnings[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (QUAD, "no triangles"),
        (QUAD + "f 1 2 9\n", "vertex 9 of 4"),
        (QUAD + "f -1 -2 -9\n", "line 5"),
        (QUAD + "f 1 2 0\n", "line 5"),
        (QUAD + "f 1 2 x\n", "line 5"),
        ("v 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "line 1"),
        ("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "NaN or infinite"),
    ],
)
def test_broken_files_say_where(tmp_path, text, expected):
    with pytest.raises(AssetError, match=expected):
        load_asset(written(tmp_path, text))
