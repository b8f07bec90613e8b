"""The page in a real browser, where one is installed: what it shows is what our own renderers show."""

import numpy as np
import pytest
import torch

from animate4d.core.cameras import Rig, orbit_camera, world_to_camera_cv
from animate4d.core.harmonics import SH0
from animate4d.export.viewer.page import write_viewer
from animate4d.fourd.render import render
from animate4d.io.images import composite_grey
from animate4d.views.raycast import Renderer
from animate4d.views.rays import Cameras
from animate4d.views.shading import bake_shading

pytestmark = pytest.mark.slow

SIZE = 256
LOOKS = [(0.0, 30.0, 15.0, 3.0), (2.5, 120.0, 40.0, 2.4), (4.0, 250.0, -20.0, 3.0)]
"""Frame, azimuth, elevation, distance."""


@pytest.fixture
def address(scene, tmp_path):
    write_viewer(tmp_path / "viewer.html", scene)
    return (tmp_path / "viewer.html").as_uri()


def shown(browser, address, look, kind):
    """Return what the canvas shows when it is a square of SIZE pixels."""
    frame, azimuth, elevation, distance = look
    browser.open(f"{address}#frame={frame}&az={azimuth}&el={elevation}&d={distance}&show={kind}")
    place = f"position: fixed; inset: 0 auto auto 0; width: {SIZE}px; height: {SIZE}px; border-radius: 0; z-index: 9"
    browser.run(f"document.querySelector('.stage').style.cssText = '{place}'")
    browser.wait(f"document.getElementById('canvas').width === {SIZE}")
    return browser.picture(".stage")


def camera_of(look):
    return orbit_camera(*look[1:])[None], Rig().intrinsics(SIZE)[:1]


def between(values, frame):
    before = int(frame)
    return values[before] + (values[min(before + 1, len(values) - 1)] - values[before]) * np.float32(frame - before)


def psnr(one, other):
    return 10 * np.log10(255**2 / ((one.astype(float) - other) ** 2).mean())


def test_splats_look_as_our_renderer_draws_them_at_three_times(browser, address, scene):
    pictures = [shown(browser, address, look, "splats") for look in LOOKS]
    cloud = scene.cloud
    for look, picture in zip(LOOKS, pictures, strict=True):
        camera, intrinsics = camera_of(look)
        numbers = (
            between(scene.splats.means, look[0])[None], between(scene.splats.quats, look[0]), cloud.scales,
            cloud.opacities, (0.5 + SH0 * cloud.sh[:, 0]).clip(0, 1), world_to_camera_cv(camera), intrinsics,
        )  # fmt: skip
        rgb, alpha = render(*(torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in numbers), SIZE)
        wanted = 255 * (rgb[0, 0] + 0.5 * (1 - alpha[0, 0, ..., None])).numpy().clip(0, 1)
        assert psnr(picture, wanted) > 45
    still = shown(browser, address, (0.0, *LOOKS[1][1:]), "splats")
    assert psnr(still, pictures[1]) < 30, "the object moves"


def test_the_mesh_looks_as_our_renderer_draws_it(browser, address, scene):
    light = bake_shading(scene.mesh, scene.vertices[0])
    for look in LOOKS:
        camera, intrinsics = camera_of(look)
        pose = between(scene.vertices, look[0])
        renderer = Renderer(scene.mesh, Cameras.of(camera, intrinsics, SIZE), samples=2, shading=light)
        wanted = composite_grey(renderer.render(pose, renderer.caster(pose)).rgba)[0]
        assert psnr(shown(browser, address, look, "mesh"), wanted) > 28


def test_it_plays_answers_keys_and_remembers(browser, address):
    browser.problems.clear()
    browser.requests.clear()
    browser.open(f"{address}#az=10")
    frame = "Number(document.getElementById('time').value)"
    browser.wait(f"{frame} > 0")
    browser.key(" ")
    browser.wait("document.getElementById('play').getAttribute('aria-label') === 'Play'")
    browser.key("Home")
    browser.wait(f"{frame} === 0")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        browser.key(key)
    browser.wait(f"{frame} === 1")
    browser.key("ArrowLeft", shift=True)
    browser.key("m")
    browser.wait("document.getElementById('splats').getAttribute('aria-pressed') === 'true'")
    browser.wait("location.hash.includes('az=5&') && location.hash.includes('frame=1')")
    assert browser.run("location.hash.includes('show=splats')")
    for key in ("p", "t", "b", "l", "2", "0", "+", "w"):
        browser.key(key)
    browser.key("2")
    browser.wait("location.hash.includes('az=90&')")
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:", "about:", "blob:"))] == []


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser, address):
    browser.resize(360, 740, phone=True)
    browser.open(address)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    low = browser.run("Math.min(...[...document.querySelectorAll('.bar button')].map((b) => b.clientHeight))")
    assert low >= 36, "buttons a finger can hit"
    tops = browser.run("[...document.querySelectorAll('#views button')].map((b) => b.getBoundingClientRect().top)")
    assert len(set(tops)) == 1
    browser.resize(1280, 800)


def test_without_webgl_the_views_still_play(browser, address):
    script = "HTMLCanvasElement.prototype.getContext = ((own) => function (kind, ...rest) { return kind === 'webgl2' ? null : own.call(this, kind, ...rest); })(HTMLCanvasElement.prototype.getContext)"  # noqa: E501
    added = browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    browser.call("Page.navigate", url=address + "?none")
    browser.wait("document.getElementById('problem')?.hidden === false")
    assert "cannot draw in 3D" in browser.run("document.getElementById('problem').textContent")
    browser.wait("Number(document.getElementById('time').value) > 0")
    browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])
