"""Base colours, textures and texture coordinates of glTF files."""

import io

import numpy as np
import pytest
from PIL import Image

from animate4d.assets import textures
from animate4d.assets.load import load_asset
from animate4d.assets.textures import MAX_TEXTURE_SIDE
from animate4d.core.errors import AssetError

UV = np.array([[0, 0], [0.5, 0], [0, 0.5], [0.25, 0.25]], np.float32)
CHECKER = np.array([[[255, 0, 0, 255], [0, 255, 0, 128]], [[0, 0, 255, 255], [9, 9, 9, 0]]], np.uint8)


def encoded(image=CHECKER, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    return stream.getvalue()


def textured(model, *, slot=None, image=None, **material):
    """Add a tetrahedron with a texture."""
    data = encoded() if image is None else image
    model.append("images", {"bufferView": model.add_view(data), "mimeType": "image/png"})
    model.append("textures", {"source": 0})
    model.append("materials", {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0, **(slot or {})}}, **material})
    primitive = model.primitive(TEXCOORD_0=UV, TEXCOORD_1=UV + 0.5)
    model.node(mesh=model.mesh({**primitive, "material": 0}))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_texture_from_a_buffer_view(model, saved, kind):
    textured(model, image=encoded(kind=kind), alphaMode="MASK", alphaCutoff=0.25, doubleSided=True, name="skin")
    mesh = load_asset(saved(model)).mesh
    (material,) = mesh.materials
    np.testing.assert_array_equal(material.texture, CHECKER)
    assert (material.name, material.alpha_mode, material.alpha_cutoff, material.double_sided) == (
        "skin",
        "MASK",
        0.25,
        True,
    )
    np.testing.assert_array_equal(mesh.uv, UV)


def test_texture_transform_scales_then_turns_counter_clockwise_then_moves(model, saved):
    transform = {"scale": [2.0, 1.0], "rotation": np.pi / 2, "offset": [0.1, 0.2], "texCoord": 1}
    textured(model, slot={"extensions": {"KHR_texture_transform": transform}})
    u, v = ((UV + 0.5) * [2.0, 1.0]).T
    np.testing.assert_allclose(load_asset(saved(model)).mesh.uv, np.stack([v + 0.1, -u + 0.2], 1), atol=1e-6)


def test_second_texture_coordinates(model, saved):
    textured(model, slot={"texCoord": 1})
    np.testing.assert_array_equal(load_asset(saved(model)).mesh.uv, UV + 0.5)


def test_specular_glossiness_and_default_material(model, saved):
    model.append(
        "materials", {"extensions": {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [0.1, 0.2, 0.3, 1]}}}
    )
    first, second = model.primitive(), model.primitive()
    model.node(mesh=model.mesh({**first, "material": 0}, second))
    mesh = load_asset(saved(model)).mesh
    assert [material.base_color for material in mesh.materials] == [(0.1, 0.2, 0.3, 1.0), (1.0, 1.0, 1.0, 1.0)]
    np.testing.assert_array_equal(mesh.face_material, [0] * 4 + [1] * 4)


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        (np.array([[255, 0, 51, 255]] * 4, np.uint8), [1, 0, 0.2, 1]),
        (np.array([[65535, 0, 13107, 65535]] * 4, np.uint16), [1, 0, 0.2, 1]),
        (np.array([[0.5, 2.0, -1.0]] * 4, np.float32), [0.5, 1, 0, 1]),
    ],
)
def test_vertex_colors(model, saved, colors, expected):
    model.node(mesh=model.mesh(model.primitive(COLOR_0=colors)))
    np.testing.assert_allclose(load_asset(saved(model)).mesh.colors[2], expected, atol=1e-6)


def test_missing_texture_file_is_a_warning_and_an_outside_one_an_error(model, saved, tmp_path):
    textured(model)
    model.document["images"][0] = {"uri": "skin.png"}
    path = saved(model)
    asset = load_asset(path)
    assert asset.mesh.materials[0].texture is None
    assert "skin.png is missing" in asset.warnings[0]
    (tmp_path / "skin.png").write_bytes(encoded())
    assert load_asset(path).mesh.materials[0].texture.shape == (2, 2, 4)
    model.document["images"][0] = {"uri": "../skin.png"}
    with pytest.raises(AssetError, match="outside its own folder"):
        load_asset(saved(model, "outside.glb"))


def test_texture_in_a_data_uri(model, saved):
    import base64

    textured(model)
    model.document["images"][0] = {"uri": "data:image/png;base64," + base64.b64encode(encoded()).decode()}
    np.testing.assert_array_equal(load_asset(saved(model)).mesh.materials[0].texture, CHECKER)
    model.document["images"][0] = {"uri": "data:image/png;base64,@@@"}
    with pytest.raises(AssetError, match="base64"):
        load_asset(saved(model, "bad.glb"))


def test_huge_and_damaged_textures_are_refused(model, saved):
    textured(model, image=encoded(np.zeros((1, MAX_TEXTURE_SIDE + 1), np.uint8)))
    with pytest.raises(AssetError, match="8193 x 1 pixels"):
        load_asset(saved(model))
    model.document["images"][0] = {"bufferView": model.add_view(encoded()[:40]), "mimeType": "image/png"}
    with pytest.raises(AssetError, match="damaged"):
        load_asset(saved(model, "cut.glb"))
    model.document["images"][0] = {"bufferView": model.add_view(b"no image"), "mimeType": "image/png"}
    with pytest.raises(AssetError, match="not a PNG"):
        load_asset(saved(model, "text.glb"))


def test_bomb_of_many_blank_textures_is_refused(model, saved, monkeypatch):
    monkeypatch.setattr(textures, "MAX_TEXTURE_PIXELS", 1_000_000)
    blank = io.BytesIO()
    Image.new("1", (500, 500)).save(blank, "PNG")
    view = model.add_view(blank.getvalue())
    for number in range(5):
        model.append("images", {"bufferView": view})
        model.append("textures", {"source": number})
        model.append("materials", {"pbrMetallicRoughness": {"baseColorTexture": {"index": number}}})
        model.node(mesh=model.mesh({**model.primitive(TEXCOORD_0=UV), "material": number}))
    with pytest.raises(AssetError, match="Mpx"):
        load_asset(saved(model))


def test_texture_without_a_readable_source_is_left_out(model, saved):
    textured(model)
    model.document["textures"][0] = {"extensions": {"KHR_texture_basisu": {"source": 0}}}
    asset = load_asset(saved(model))
    assert asset.mesh.materials[0].texture is None
    assert "cannot be decoded" in asset.warnings[0]


def test_sixteen_bit_grey(model, saved):
    textured(model, image=encoded(np.array([[0, 65535], [257 * 100, 257]], np.uint16)))
    texture = load_asset(saved(model)).mesh.materials[0].texture
    np.testing.assert_array_equal(texture[..., 0], [[0, 255], [100, 1]])
