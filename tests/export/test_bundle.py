"""A bundle holds what was asked for, and nothing in it is taken on trust."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from animate4d.core.errors import ExportError
from animate4d.core.motion import VertexMotion
from animate4d.export import bundle, check, turntable
from animate4d.export.bundle import write_bundle
from animate4d.export.formats import DEFAULT, FILES, FORMATS, expand
from animate4d.export.glb import MORPH_BOUND


@pytest.fixture(autouse=True)
def short_turn(monkeypatch):
    for module in (turntable, bundle):
        monkeypatch.setattr(module, "SECONDS", 0.2)
    monkeypatch.setattr(turntable, "SIZE_PX", 48)


@pytest.fixture(scope="module")
def whole(thing, tmp_path_factory):
    """Every format once, for tests that damage copies."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        for module in (turntable, bundle):
            patch.setattr(module, "SECONDS", 0.2)
        patch.setattr(turntable, "SIZE_PX", 48)
        told = []
        write_bundle(folder, thing, FORMATS, tick=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    return folder


def test_every_format_is_written_where_the_table_says(whole):
    for name in FORMATS:
        assert (whole / FILES[name]).exists(), name
    assert len(list((whole / "splats" / "frames").glob("frame_*.ply"))) == 4
    assert (whole / "animated.glb").is_file()


def test_only_what_is_asked_for_is_written(thing, tmp_path):
    write_bundle(tmp_path, thing, expand(["ply"]))
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["IMPORT.md", "animated.glb", "splats/static.ply"]


def test_notes_name_the_files_that_are_there(whole, thing, tmp_path):
    text = (whole / "IMPORT.md").read_text()
    named = set(re.findall(r"^- `([^`]+)`", text, re.MULTILINE))
    assert named == {FILES[name] for name in FORMATS}
    assert "$" not in text
    write_bundle(tmp_path, thing, ())
    assert not re.search(r"^- `", (tmp_path / "IMPORT.md").read_text(), re.MULTILINE)


def test_words_stand_for_formats():
    assert expand(["default"]) == DEFAULT
    assert expand(["all"]) == FORMATS
    assert expand(["spz", "ply", "spz"]) == ("ply", "spz")
    assert expand([]) == ()
    with pytest.raises(ValueError, match="fbx"):
        expand(["fbx"])


def test_splats_alone_make_a_bundle_without_a_mesh(splat_thing, tmp_path):
    write_bundle(tmp_path, splat_thing, FORMATS)
    assert not (tmp_path / "animated.glb").exists()
    assert not (tmp_path / FILES["morph-glb"]).exists()
    assert (tmp_path / "viewer.html").is_file()
    assert "no `animated.glb`" in (tmp_path / "IMPORT.md").read_text()


@pytest.mark.parametrize("fps", [None, 7.0, 30.0])
def test_motion_that_is_not_a_graph_and_any_frame_rate_pass_the_checks(thing, tmp_path, fps):
    offsets = thing.vertices - thing.vertices[:1]
    free = replace(thing, motion=VertexMotion(offsets=offsets, times=thing.motion.times))
    write_bundle(tmp_path, free, ("morph-glb",), fps=fps)
    assert (tmp_path / "animated.glb").is_file()


def test_a_glb_of_another_motion_or_without_a_material_is_found_out(whole, thing, tmp_path):
    moved = thing.vertices.copy()
    moved[2, 5] += 0.01
    with pytest.raises(ExportError, match=r"animated.glb: read back, vertices of frame 2 are off by 0.01"):
        check.check_glb(whole / "animated.glb", replace(thing, vertices=moved), 0.0, None)
    check.check_glb(whole / FILES["morph-glb"], thing, MORPH_BOUND, None)
    mesh = thing.asset.mesh
    renamed = replace(mesh, materials=tuple(replace(one, name=f"{one.name}x") for one in mesh.materials))
    other = replace(thing, asset=replace(thing.asset, mesh=renamed))
    with pytest.raises(ExportError, match="its materials are"):
        check.check_glb(whole / "animated.glb", other, 0.0, None)


@pytest.mark.parametrize("name", ["ply", "spz", "splat-glb"])
@pytest.mark.parametrize("change", ["means", "scales", "opacities", "sh"])
def test_a_splat_file_of_other_splats_is_found_out(whole, thing, name, change):
    values = getattr(thing.cloud, change).copy()
    values[7] = values[7] * 1.2 + 0.05
    with pytest.raises(ExportError, match=f"{FILES[name].rsplit('/')[-1]}: read back"):
        check.check_splats(whole / FILES[name], thing, replace(thing.cloud, **{change: values}))


def test_a_sequence_with_swapped_frames_is_found_out(whole, thing):
    paths = sorted((whole / "splats" / "frames").iterdir())
    check.check_splat_sequence(paths, thing)
    with pytest.raises(ExportError, match="centres"):
        check.check_splat_sequence([paths[1], paths[0], *paths[2:]], thing)


def test_an_archive_that_differs_in_a_bit_is_found_out(whole, thing):
    moved = np.nextafter(thing.vertices, np.float32(9))
    with pytest.raises(ExportError, match="vertices is not what was written"):
        check.check_motion(whole / "motion.npz", replace(thing, vertices=moved))
    moving = replace(thing.splats, sh=np.repeat(thing.cloud.sh[None, :, 0], 4, axis=0))
    with pytest.raises(ExportError, match="it lacks splat_sh_moving"):
        check.check_motion(whole / "motion.npz", replace(thing, splats=moving))


def test_a_viewer_of_another_motion_and_a_short_video_are_found_out(whole, thing):
    moved = replace(thing.splats, means=thing.splats.means + np.float32(1e-3))
    with pytest.raises(ExportError, match=r"viewer\.html: read back, splats are off"):
        check.check_viewer(whole / "viewer.html", replace(thing, splats=moved))
    with pytest.raises(ExportError, match="it has 4 frames instead of 5"):
        check.check_video(whole / "turntable.mp4", 5)


@pytest.mark.parametrize("name", ["animated.glb", "splats/static.ply", "motion.npz", "viewer.html", "turntable.mp4"])
def test_a_cut_file_is_one_clear_line(whole, thing, tmp_path, name):
    path = tmp_path / name.rsplit("/")[-1]
    path.write_bytes((whole / name).read_bytes()[:900])
    checks = {
        "animated.glb": lambda: check.check_glb(path, thing, 0.0, None),
        "splats/static.ply": lambda: check.check_splats(path, thing, thing.cloud),
        "motion.npz": lambda: check.check_motion(path, thing),
        "viewer.html": lambda: check.check_viewer(path, thing),
        "turntable.mp4": lambda: check.check_video(path, 4),
    }
    with pytest.raises(ExportError) as caught:
        checks[name]()
    assert str(caught.value).startswith(path.name)
    assert "the result was not kept" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_format_cannot_hold_is_one_clear_line(thing, tmp_path):
    huge = replace(thing, cloud=replace(thing.cloud, scales=thing.cloud.scales * np.float32(1e6)))
    with pytest.raises(ExportError, match="SPZ holds sizes up to 379 units"):
        write_bundle(tmp_path, huge, ("spz",))


def test_what_viewers_read_of_the_receipt_of_a_viewer_is_json(whole):
    text = (whole / "viewer.html").read_text()
    facts = json.loads(re.search(r'id="scene">(.*?)</script>', text)[1])
    assert facts["film"]["order"] == [0, 1, 2, 3]
