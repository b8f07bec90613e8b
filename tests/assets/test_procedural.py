"""Generated objects, read back by the common reader."""

import csv

import numpy as np
import pytest

from animate4d.assets.creatures import CREATURES
from animate4d.assets.load import load_asset
from animate4d.assets.procedural import FAMILIES, generate_objects
from animate4d.assets.verbs import WHOLE_BODY_VERBS
from animate4d.core.cameras import Rig, project_points
from animate4d.core.errors import ConfigError, UserError


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return generate_objects(tmp_path_factory.mktemp("objects"), count=2 * len(FAMILIES), seed=7)


def test_every_family_reads_back_with_its_verbs(objects):
    for number, path in enumerate(objects):
        asset = load_asset(path)
        family = FAMILIES[number % len(FAMILIES)]
        verbs = {clip.name.split()[0] for clip in asset.clips}
        assert set(WHOLE_BODY_VERBS) <= verbs
        assert (len(verbs) > len(WHOLE_BODY_VERBS)) == (family in CREATURES)
        assert all(1.0 <= clip.duration <= 1.6 for clip in asset.clips)
        assert 100 <= len(asset.mesh.faces) <= 1700, path.name
        assert not asset.warnings
        colors = asset.mesh.colors[:, :3]
        textured = any(material.texture is not None for material in asset.mesh.materials)
        assert textured or np.ptp(colors, axis=0).max() > 0 or (colors < 1).any()


def test_clips_start_at_rest_move_and_return(objects):
    rig = Rig.even(4)
    cameras, intrinsics = rig.camera_to_world(), rig.intrinsics(64)
    for path in objects:
        asset = load_asset(path)
        for number, clip in enumerate(asset.clips):
            poses = [asset.vertices_at(number, share * clip.duration) for share in (0, 0.125, 0.5, 0.75, 1)]
            np.testing.assert_allclose(poses[0], asset.mesh.vertices, atol=2e-5, err_msg=f"{path.name} {clip.name}")
            assert max(np.abs(pose - poses[0]).max() for pose in poses) > 0.04, f"{path.name} {clip.name}"
            if not clip.name.startswith("spin"):
                np.testing.assert_allclose(poses[-1], poses[0], atol=1e-4, err_msg=f"{path.name} {clip.name}")
            for pose in poses:
                xy, _ = project_points(pose, cameras, intrinsics)
                # A lid or a wing may touch the border; nothing may leave by more than a tenth of the half image.
                assert np.abs(xy - 32).max() < 1.1 * 32, f"{path.name} {clip.name}"


def test_surfaces_face_outwards(objects):
    for path in objects:
        mesh = load_asset(path).mesh
        a, b, c = np.moveaxis(mesh.vertices[mesh.faces].astype(np.float64), 1, 0)
        assert (a * np.cross(b, c)).sum() > 0, path.name


def test_captions_name_every_clip(objects):
    with open(objects[0].parent / "captions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    written = {(row["file"], row["clip"]) for row in rows}
    assert written == {(path.name, clip.name) for path in objects for clip in load_asset(path).clips}
    assert all(row["caption"].startswith(("a ", "an ")) and "ing" in row["caption"] for row in rows)
    assert any(row["caption"].endswith(" wildly") for row in rows)
    assert not any("ceing" in row["caption"] or "keing" in row["caption"] for row in rows)


def test_bytes_follow_from_seed_and_index_alone(tmp_path):
    first = generate_objects(tmp_path / "a", count=3, seed=5)
    second = generate_objects(tmp_path / "b", count=4, seed=5)
    other = generate_objects(tmp_path / "c", count=3, seed=6)
    assert [path.name for path in first] == [path.name for path in second][:3]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second[:3], strict=True))
    assert all(a.read_bytes() != c.read_bytes() for a, c in zip(first, other, strict=True))


def test_families_and_clip_counts_can_be_chosen(tmp_path):
    paths = generate_objects(tmp_path, count=4, seed=1, families=("snake", "barrel"), clips_per_object=2)
    assert [path.name.split("-")[0] for path in paths] == ["snake", "barrel"] * 2
    assert all(len(load_asset(path).clips) == 2 for path in paths)
    assert load_asset(paths[0]).clips[0].name.startswith("slither")
    many = generate_objects(tmp_path / "many", count=1, families=("barrel",), clips_per_object=15)
    names = [clip.name for clip in load_asset(many[0]).clips]
    assert len(names) == len(set(names)) == 15


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"count": 1, "families": ("dragon",)}, {"count": 1, "families": ()},
                {"count": 1, "clips_per_object": 0}]
)  # fmt: skip
def test_impossible_wishes_are_refused(tmp_path, options):
    with pytest.raises(ConfigError) as caught:
        generate_objects(tmp_path, **options)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
