"""The page of tracks: one file, its own script alone, and what it draws is what the labels say."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from animate4d.assets.procedural import generate_objects
from animate4d.batch.tracks_page import clip_data, write_tracks_page
from animate4d.core.errors import ShardError
from animate4d.data.labels import Labeller, read_labels
from animate4d.data.schema import decode_clip
from animate4d.data.store import ShardStore
from animate4d.io.shards import ShardWriter
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u202e$data"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.elements, self.links, self.data, self.inside = [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.inside = dict(attrs).get("type") == "application/json"
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        if self.inside:
            self.data += data
            self.inside = False


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    (path,) = generate_objects(tmp_path_factory.mktemp("page"), count=1, seed=3, clips_per_object=2)
    return [(made.key, made.members) for made in clip_samples(path, ClipOptions(views=4, frames=6, size=48, samples=1))]


def store_of(folder, samples, **meta) -> ShardStore:
    with ShardWriter(folder) as writer:
        for key, members in samples:
            text = json.dumps(json.loads(members["meta.json"]) | meta).encode()
            writer.write(key, members | {"meta.json": text})
    return ShardStore(folder)


def test_the_page_says_what_the_labels_say(samples, tmp_path):
    store = store_of(tmp_path / "s", samples)
    labeller = Labeller("opencv-dis", 15, tmp_path / "labels")
    key, members = samples[0]
    tracks = read_labels(labeller.label(members, [0, 2]), key, [0, 2], 6)
    clip = clip_data(store, 0, labeller.folder, 2)
    for number, view in enumerate(clip["views"]):
        real = np.flatnonzero(tracks.visible[number, 0] > 0)
        xy = np.array(view["xy"]).reshape(6, view["count"], 2) / 8
        seen = np.array(list(view["seen"]), int).reshape(6, view["count"])
        assert view["count"] == len(real) > 5
        assert np.abs(xy - tracks.xy[number][:, real]).max() <= 1 / 16 + 1e-4
        assert ((seen > 0) == (tracks.visible[number][:, real] > 0)).all()
        strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(view["strip"].split(",")[1]))))
        assert strip.shape == (6 * 48, 48, 3)
        truth = decode_clip(members, views=[[0, 2][number]], frames=range(6)).video
        solid = truth.alpha[0] == 255
        away = np.abs(strip.reshape(6, 48, 48, 3)[solid].astype(int) - truth.rgb[0][solid])
        assert away.mean() < 25  # WebP halves the resolution of colours
        assert clip["tracker"] == "opencv-dis/1"


def test_no_caption_becomes_an_element_and_only_this_script_may_run(samples, tmp_path):
    pages = []
    for name, caption in (("plain", "a fox runs"), ("hostile", ATTACK)):
        store = store_of(tmp_path / name / "shards", samples, caption=caption)
        assert write_tracks_page(tmp_path / f"{name}.html", store, range(2), None, 2, 5) == 2
        pages.append((tmp_path / f"{name}.html").read_text())
    plain, hostile = map(Page, pages)
    assert plain.elements == hostile.elements
    assert plain.links == hostile.links == ["data:,"]
    assert plain.data == hostile.data
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', pages[1])[1]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in re.sub(r"http-equiv", "", pages[0])
    assert {len(clip["views"]) for clip in json.loads(plain.data)} == {2}


def test_clips_without_tracks_are_named(samples, tmp_path):
    bare = [(key, {name: data for name, data in members.items() if name != "tracks.npz"}) for key, members in samples]
    store = store_of(tmp_path / "s", bare)
    with pytest.raises(ShardError, match=f"sample {samples[0][0]} .* has no tracks"):
        write_tracks_page(tmp_path / "page.html", store, range(2), None, 2, 1)
    with pytest.raises(ShardError, match="no clip"):
        write_tracks_page(tmp_path / "page.html", store, [], None, 2, 1)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser")
def test_a_browser_runs_it_from_disk_without_a_complaint(samples, tmp_path):
    store = store_of(tmp_path / "s", samples)
    write_tracks_page(tmp_path / "page.html", store, range(2), None, 2, 2)
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run([*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    assert len(re.findall(r">\d+ of \d+ in sight<", done.stdout)) == 4
