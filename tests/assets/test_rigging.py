"""Static models get a spine and keep everything else."""

import numpy as np
import pytest

from animate4d.assets.load import load_asset
from animate4d.assets.procedural import generate_objects
from animate4d.assets.rigging import animate_static, caption_of, gerund, noun_of
from animate4d.assets.verbs import WHOLE_BODY_VERBS
from animate4d.core.errors import AssetError, ConfigError
from animate4d.core.splats import SplatCloud
from animate4d.io.gltf import read_gltf, view_bytes
from animate4d.io.ply import write_splat_ply


def image_bytes(path):
    document = read_gltf(path)
    return [view_bytes(document, image["bufferView"]) for image in document.json.get("images", [])]


@pytest.fixture(scope="module")
def props(tmp_path_factory):
    return generate_objects(
        tmp_path_factory.mktemp("props"), count=4, seed=2, families=("barrel", "ship", "house", "dog")
    )


def test_props_keep_shape_materials_and_textures(props, tmp_path):
    for path in props:
        rows = animate_static(path, tmp_path / path.name, seed=3)
        source, rigged = load_asset(path), load_asset(tmp_path / path.name)
        assert [clip.name for clip in rigged.clips] == [clip for _, clip, _ in rows]
        assert {clip.name.split()[0] for clip in rigged.clips} == set(WHOLE_BODY_VERBS)
        np.testing.assert_allclose(rigged.mesh.vertices, source.mesh.vertices, atol=1e-5)
        np.testing.assert_array_equal(rigged.mesh.faces, source.mesh.faces)
        np.testing.assert_allclose(rigged.mesh.uv, source.mesh.uv)
        np.testing.assert_allclose(rigged.mesh.colors, source.mesh.colors, atol=1e-6)
        assert image_bytes(path) == image_bytes(tmp_path / path.name)
        assert read_gltf(path).json["materials"] == read_gltf(tmp_path / path.name).json["materials"]
        for number, clip in enumerate(rigged.clips):
            poses = [rigged.vertices_at(number, share * clip.duration) for share in (0, 0.125, 0.5, 0.75)]
            np.testing.assert_allclose(poses[0], source.mesh.vertices, atol=2e-5)
            assert max(np.abs(pose - poses[0]).max() for pose in poses) > 0.04


def test_seed_and_content_decide(props, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        animate_static(props[0], tmp_path / f"{name}.glb", seed=seed, clips=9)
    a, b, c = ((tmp_path / f"{name}.glb").read_bytes() for name in "abc")
    assert a == b != c
    assert len(load_asset(tmp_path / "a.glb").clips) == 9


def test_real_static_models(real_assets, tmp_path):
    for path in sorted((real_assets / "static").glob("*.glb"))[::6]:
        animate_static(path, tmp_path / path.name, verbs=("bend", "spin"))
        source, rigged = load_asset(path), load_asset(tmp_path / path.name)
        np.testing.assert_allclose(rigged.vertices_at(0, 0.0), source.mesh.vertices, atol=2e-5)
        assert [m.name for m in rigged.mesh.materials] == [m.name for m in source.mesh.materials]


def test_refusals(props, tmp_path):
    with pytest.raises(ConfigError, match="dance"):
        animate_static(props[0], tmp_path / "x.glb", verbs=("dance",))
    cloud = SplatCloud(
        means=np.eye(4, 3, dtype=np.float32),
        quats=np.tile(np.array([1, 0, 0, 0], np.float32), (4, 1)),
        scales=np.full((4, 3), 0.1, np.float32),
        opacities=np.full(4, 0.9, np.float32),
        sh=np.zeros((4, 1, 3), np.float32),
    )
    write_splat_ply(tmp_path / "cloud.ply", cloud)
    with pytest.raises(AssetError, match="splats"):
        animate_static(tmp_path / "cloud.ply", tmp_path / "x.glb")
    assert not (tmp_path / "x.glb").exists()


@pytest.mark.parametrize(
    ("stem", "noun"),
    [
        ("ships__CruiseShip", "cruise ship"),
        ("barrel_2", "barrel"),
        ("rpg__Potion2_Empty", "potion empty"),
        ("42", "object"),
    ],
)
def test_nouns(stem, noun):
    assert noun_of(stem) == noun


def test_captions_read_as_english():
    assert caption_of("blue striped dog", "walk gently") == "a blue striped dog walking gently"
    assert caption_of("orange fish", "swim") == "an orange fish swimming"
    assert [gerund(verb) for verb in ("shake", "spin", "open", "bounce", "sway")] == [
        "shaking",
        "spinning",
        "opening",
        "bouncing",
        "swaying",
    ]
