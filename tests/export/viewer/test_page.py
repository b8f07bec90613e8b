"""The page holds the whole scene, loads nothing, and says what it was told as text."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from animate4d.core.harmonics import SH0
from animate4d.core.motion import SplatMotion
from animate4d.export.viewer.page import read_viewer, write_viewer
from animate4d.export.viewer.scene import Grid, spread_rows


@pytest.fixture
def page(scene, tmp_path):
    write_viewer(tmp_path / "viewer.html", scene)
    return tmp_path / "viewer.html"


def test_the_scene_reads_back_within_its_steps(scene, page):
    facts, arrays = read_viewer(page)
    assert (facts["frames"], facts["splats"], facts["fps"]) == (6, 400, pytest.approx(8))
    grid = Grid(origin=np.array(facts["origin"]), unit=facts["unit"])
    np.testing.assert_allclose(grid.places(arrays["splatPlaces"]), scene.splats.means, atol=0.51 * grid.unit)
    np.testing.assert_allclose(arrays["splatTurns"] / 127, scene.splats.quats, atol=0.51 / 127)
    np.testing.assert_allclose(arrays["splatScales"].view(np.float16)[0], scene.cloud.scales, rtol=1e-3)
    colors = arrays["splatColors"][0] / 255
    np.testing.assert_allclose(colors[:, :3], (0.5 + SH0 * scene.cloud.sh[:, 0]).clip(0, 1), atol=0.51 / 255)
    np.testing.assert_allclose(colors[:, 3], scene.cloud.opacities, atol=0.51 / 255)
    assert grid.unit < 1e-4
    assert [camera["azimuth"] for camera in facts["cameras"]] == [0, 90, 180, 270]


def test_every_corner_of_the_mesh_has_its_place_texture_and_light(scene, page):
    facts, arrays = read_viewer(page)
    grid = Grid(origin=np.array(facts["origin"]), unit=facts["unit"])
    order = np.argsort(scene.mesh.face_material, kind="stable")
    corners = scene.mesh.faces[order].reshape(-1)
    rows = arrays["meshFaces"]
    places = grid.places(arrays["meshPlaces"])[:, arrays["meshPlaceOfVertex"][rows]]
    np.testing.assert_allclose(places, scene.vertices[:, corners], atol=0.51 * grid.unit)
    np.testing.assert_allclose(arrays["meshUv"][rows], scene.mesh.uv[corners])
    lights = arrays["meshLights"][rows] / 65535 * facts["mesh"]["brightest"]
    assert 0.2 < lights.min() < lights.max() < 1.3
    assert sum(part["count"] for part in facts["mesh"]["parts"]) == len(corners)
    starts = [part["start"] for part in facts["mesh"]["parts"]]
    assert starts == sorted(starts)


def test_changing_sizes_and_colours_are_kept(scene, tmp_path):
    count = scene.splats.means.shape[1]
    grow = np.linspace(1, 2, 6, dtype=np.float32)[:, None, None] * scene.cloud.scales
    paint = np.random.default_rng(0).normal(0, 0.5, (6, count, 3)).astype(np.float32)
    moving = replace(scene, splats=replace(scene.splats, scales=grow, sh=paint))
    write_viewer(tmp_path / "a.html", moving)
    _, arrays = read_viewer(tmp_path / "a.html")
    np.testing.assert_allclose(arrays["splatScales"].view(np.float16), grow, rtol=1e-3)
    np.testing.assert_allclose(arrays["splatColors"][..., :3] / 255, (0.5 + SH0 * paint).clip(0, 1), atol=0.51 / 255)


def test_splats_alone_make_a_page(scene, tmp_path):
    write_viewer(tmp_path / "a.html", replace(scene, mesh=None, vertices=None))
    facts, arrays = read_viewer(tmp_path / "a.html")
    assert facts["mesh"] is None
    assert not [name for name in arrays if name.startswith("mesh")]


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.bodies, self.inside = [], {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside = tag if not dict(attrs).get("type") else ""
        self.found.append((tag, tuple(sorted(name for name, _ in attrs))))
        for name, value in attrs:
            if name in ("src", "href"):
                assert value == "data:,", value

    def handle_data(self, data):
        if self.inside in ("script", "style"):
            self.bodies.setdefault(self.inside, data)


def test_the_page_may_run_its_own_script_only_and_loads_nothing(page):
    text = page.read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for kind, body in Elements(text).bodies.items():
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?://", text)
    assert not re.search(r"\son\w+=|\sstyle=", text)


@pytest.mark.parametrize(
    "attack", ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$body ${script}"]
)
def test_what_was_asked_stays_text(scene, tmp_path, page, attack):
    write_viewer(tmp_path / "a.html", replace(scene, title=attack, origin=attack, video_name=attack))
    assert Elements((tmp_path / "a.html").read_text()).found == Elements(page.read_text()).found


def test_broken_scenes_and_pages_are_refused(scene, page, tmp_path):
    bad = scene.splats.means.copy()
    bad[2, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        write_viewer(tmp_path / "b.html", replace(scene, splats=replace(scene.splats, means=bad)))
    short = SplatMotion(means=scene.splats.means[:1], quats=scene.splats.quats[:1])
    with pytest.raises(ValueError, match="1 frames"):
        write_viewer(tmp_path / "b.html", replace(scene, splats=short, times=np.zeros(1)))
    assert not (tmp_path / "b.html").exists()
    page.write_text(page.read_text()[:4000])
    with pytest.raises(ValueError, match="not a whole viewer"):
        read_viewer(page)


def test_paths_start_at_points_far_apart():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(2, 500, 3))
    rows = spread_rows(means, 40)
    assert len(set(rows.tolist())) == 40
    near = np.linalg.norm(means[0][rows][:, None] - means[0][rows], axis=-1) + 9 * np.eye(40)
    random = means[0][:40]
    assert near.min() > 3 * (np.linalg.norm(random[:, None] - random, axis=-1) + 9 * np.eye(40)).min()
    assert len(spread_rows(means[:, :5], 40)) == 5
