"""Blender as an external program: what it is given, what is made of its answer, and how its failures read.

A small program of ours stands in for it; with ANIMATE4D_TEST_BLENDER set to a Python that has bpy, or to a blender, the
real one is compared with our renderer.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from animate4d.assets.load import load_asset
from animate4d.assets.procedural import generate_objects
from animate4d.core.cameras import Rig
from animate4d.core.errors import ConfigError, ToolError
from animate4d.core.mesh import Material
from animate4d.data.schema import decode_clip
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples
from animate4d.views.blender import (
    bake_with_blender,
    blender_version,
    fill_black,
    render_with_blender,
    run_blender,
    with_vertex_light,
)
from animate4d.views.clip import mesh_of
from animate4d.views.raycast import Renderer, render_views
from animate4d.views.rays import Cameras
from animate4d.views.shading import bake_shading

STAND_IN = """
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image
job = json.loads(Path(sys.argv[-1]).read_text())
Path({told!r}).write_text(json.dumps([sys.argv[1:], job]))
if job["mode"] == "version":
    Path(job["answer"]).write_text('{{"version": "9.9"}}')
elif job["mode"] == "bake":
    arrays = np.load(job["arrays"])
    np.save(job["answer"], np.full((len(arrays["vertices"][0]), 3), 0.25, np.float32))
else:
    arrays = np.load(job["arrays"])
    for view in range(len(arrays["camera_to_world"])):
        for frame in range(len(arrays["vertices"])):
            picture = np.zeros((job["size"], job["size"], 4), np.uint8)
            picture[: job["size"] // 2] = (view, frame, 7, 255)
            Image.fromarray(picture).save(Path(job["answer"]) / f"{{view:03d}}-{{frame:04d}}.png")
"""


def program(tmp_path, code, name="stand-in"):
    path = tmp_path / name
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return path


@pytest.fixture
def stand_in(tmp_path):
    return program(tmp_path, STAND_IN.format(told=str(tmp_path / "told.json")))


def told(tmp_path):
    import json

    return json.loads((tmp_path / "told.json").read_text())


def cameras(size=16, views=2):
    rig = Rig.even(views)
    return Cameras.of(rig.camera_to_world(), rig.intrinsics(size), size)


def test_the_version_is_what_the_program_says(stand_in, tmp_path):
    assert blender_version(stand_in) == "9.9"
    arguments, _ = told(tmp_path)
    assert [Path(word).name for word in arguments] == ["blender_script.py", "job.json"]


def test_a_blender_is_called_as_blender(tmp_path):
    path = program(tmp_path, STAND_IN.format(told=str(tmp_path / "told.json")), name="Blender-4.5")
    assert blender_version(path) == "9.9"
    arguments, _ = told(tmp_path)
    assert arguments[:2] == ["--background", "--factory-startup"]
    assert arguments[-2] == "--"


def test_pictures_come_back_by_view_and_frame_on_grey(stand_in, tmp_path, shapes):
    texture = np.full((4, 4, 4), 200, np.uint8)
    mesh = shapes.cube(materials=(Material(base_color=(0.5, 0.25, 1.0, 1.0), texture=texture, alpha_mode="MASK"),))
    poses = np.stack([mesh.vertices, mesh.vertices + 0.1, mesh.vertices + 0.2])
    rgba = render_with_blender(stand_in, mesh, poses, cameras(), samples=3, seconds=60)
    assert rgba.shape == (2, 3, 16, 16, 4)
    assert rgba[1, 2, 0, 0].tolist() == [1, 2, 7, 255]
    assert rgba[0, 0, -1, 0].tolist() == [128, 128, 128, 0]
    _, job = told(tmp_path)
    assert (job["samples"], job["size"], job["threads"]) == (3, 16, 1)
    assert job["materials"][0]["base_color"] == [0.5, 0.25, 1.0, 1.0]
    assert job["materials"][0]["texture"].endswith("texture0.png")


def test_a_bake_is_shown_as_it_was_baked(stand_in, shapes):
    mesh = shapes.cube(materials=(Material(base_color=(1.0, 0.0, 0.0, 1.0), texture=np.zeros((2, 2, 4), np.uint8)),))
    baked = bake_with_blender(stand_in, mesh, mesh.vertices, samples=4, seconds=60)
    assert baked.materials[0].texture is None
    ones = np.ones((len(mesh.faces), 2, 3), np.float32)
    views = render_views(baked, baked.vertices, Rig.even(1), 16, samples=1, shading=ones)
    middle = views.rgba[0, 8, 8, :3]
    assert np.abs(middle.astype(int) - 137).max() <= 1  # linear 0.25 is sRGB 137, whatever the material was


def test_holes_survive_a_bake(shapes):
    texture = np.zeros((2, 2, 4), np.uint8)
    texture[0, ..., 3] = 255
    mesh = shapes.cube(materials=(Material(texture=texture, alpha_mode="MASK"),))
    kept = with_vertex_light(mesh, np.ones((8, 3), np.float32)).materials[0].texture
    assert kept is not None
    assert np.array_equal(kept[..., 3], texture[..., 3])
    assert (kept[..., :3] == 255).all()


def test_black_vertices_take_the_mean_of_their_neighbours():
    light = np.array([[0.0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [0.2, 0.2, 0.2]], np.float32)
    filled = fill_black(light, np.array([[0, 1, 2], [1, 2, 3]]))
    assert filled[0].tolist() == [0.75, 0.75, 0.75]
    assert np.array_equal(filled[1:], light[1:])
    assert not fill_black(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]])).any()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('no module named bpy')", r"ended with 1 \(no module named bpy\)"),
        ("import sys; sys.exit(3)", r"ended with 3 \(it said nothing\)"),
        ("import time; time.sleep(60)", "took longer than 1 s"),
    ],
)
def test_a_failing_program_is_one_line(tmp_path, code, words):
    with pytest.raises(ToolError, match=words) as error:
        run_blender(program(tmp_path, code), {"mode": "version"}, tmp_path, 1)
    assert "\n" not in str(error.value)


def test_a_missing_program_says_what_to_give(tmp_path):
    with pytest.raises(ToolError, match=r"nowhere: cannot be started .* --blender"):
        blender_version(tmp_path / "nowhere")


def test_pictures_left_out_are_noticed(tmp_path, shapes):
    mesh = shapes.cube()
    with pytest.raises(ToolError, match="left a picture out"):
        render_with_blender(program(tmp_path, "pass"), mesh, mesh.vertices[None], cameras(), samples=1, seconds=60)


def test_light_of_blender_needs_a_blender():
    with pytest.raises(ConfigError, match="--blender"):
        ClipOptions(light="cycles")
    with pytest.raises(ConfigError, match="light is sun"):
        ClipOptions(light="sun")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def creature(tmp_path_factory):
    return generate_objects(tmp_path_factory.mktemp("creature"), count=1, seed=3)[0]


@pytest.mark.parametrize("light", ["baked", "cycles"])
def test_samples_take_the_light_and_keep_tracks_and_flow(creature, stand_in, light):
    options = {"views": 2, "frames": 2, "size": 16, "samples": 1}
    kinds = (ClipOptions(**options), ClipOptions(**options, light=light, blender=stand_in))
    own, lit = (next(outcome for outcome in clip_samples(creature, kind) if outcome.members) for kind in kinds)
    first, second = (decode_clip(outcome.members, views=[0, 1], frames=[0, 1]) for outcome in (own, lit))
    assert second.meta.generator.endswith(f" {light}")
    assert own.members["tracks.npz"] == lit.members["tracks.npz"]
    assert own.members["flow.npz"] == lit.members["flow.npz"]
    assert not np.array_equal(first.video.rgb, second.video.rgb)


@pytest.fixture(scope="module")
def blender():
    path = os.environ.get("ANIMATE4D_TEST_BLENDER")
    if not path:
        pytest.skip("ANIMATE4D_TEST_BLENDER names no Blender")
    return Path(path)


@pytest.mark.slow
def test_cycles_draws_the_same_silhouette_as_our_rays(creature, blender):
    asset = load_asset(creature, clip=0)
    mesh, vertices = mesh_of(asset), asset.vertices_at(0, 0.3)
    seen = cameras(size=96, views=3)
    renderer = Renderer(mesh, seen, samples=4, shading=bake_shading(mesh, vertices))
    ours = renderer.render(vertices, renderer.caster(vertices)).rgba
    theirs = render_with_blender(blender, mesh, vertices[None], seen, samples=32, seconds=600)[:, 0]
    assert np.abs(ours[..., 3].astype(int) - theirs[..., 3]).mean() < 1
    x = np.arange(96) + 0.5
    for one, other in zip(ours[..., 3].astype(float), theirs[..., 3].astype(float), strict=True):
        for axis in (0, 1):
            centres = [(picture.sum(axis) * x).sum() / picture.sum() for picture in (one, other)]
            assert abs(centres[0] - centres[1]) < 0.1


@pytest.mark.slow
def test_a_bake_lights_every_vertex(creature, blender):
    asset = load_asset(creature, clip=0)
    mesh = mesh_of(asset)
    baked = bake_with_blender(blender, mesh, asset.vertices_at(0, 0.0), samples=8, seconds=600)
    used = np.unique(mesh.faces)
    assert (baked.colors[used, :3].max(1) > 0).mean() > 0.7  # its parts stand in one another; what is inside is dark
    assert baked.colors.min() >= 0
    assert baked.colors.max() <= 1
    assert np.ptp(baked.colors[used, 0]) > 0.1
