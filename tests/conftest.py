"""Shared fixtures: a quiet private Ray, the folder of real 3D models where it is present, a headless Chromium."""

import asyncio
import base64
import io
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_assets() -> Path:
    """Folder with `animated/` and `static/` GLBs (ANIMATE4D_TEST_ASSETS, else ../shared/assets); skips where absent."""
    folder = Path(os.environ.get("ANIMATE4D_TEST_ASSETS", ROOT.parent / "shared" / "assets"))
    if not (folder / "animated").is_dir():
        pytest.skip(f"no folder of real models at {folder} (set ANIMATE4D_TEST_ASSETS)")
    return folder


@pytest.fixture(autouse=True)
def _no_cluster_left_behind():
    """Fail a test that leaves the address of a Ray behind: what is started by later ones would join it."""
    before = os.environ.get("RAY_ADDRESS")
    yield
    assert os.environ.get("RAY_ADDRESS") == before


@pytest.fixture(scope="session")
def ray_cluster():
    """One small in-process Ray cluster for the whole test session."""
    from animate4d.compute.session import ray_session

    with ray_session(cpus=2):
        yield


class ReleaseWriter:
    """Writes folders in the layout of the MV-Video release from rendered objects, and remembers the truth.

    Attributes:
        alpha: "<UID>/<animation>" -> true coverage `[16, T, H, W]`.
        poses: "<UID>/<animation>" -> (mesh, vertices `[T, N, 3]`).
        videos: "<UID>/<animation>" -> the 16 MP4 files.
        table: what `uid_info_dict.json` holds.
    """

    def __init__(self, *, size=64, frames=14, grey=127, crf=18):
        self.size, self.frames, self.grey, self.crf = size, frames, grey, crf
        self.alpha, self.poses, self.videos, self.table = {}, {}, {}, {}

    def add(self, path, uid, clips=(0,), *, elevation=12.0, start=-7.5):
        """Render clips of a GLB as animations 00, 01, ... of an object."""
        import numpy as np

        from animate4d.assets.load import load_asset
        from animate4d.core.cameras import Rig
        from animate4d.views.clip import mesh_of, pose_vertices
        from animate4d.views.raycast import Renderer
        from animate4d.views.rays import Cameras
        from animate4d.views.shading import bake_shading

        rig = Rig.even(16, start_deg=start, elevation_deg=elevation)
        cameras = Cameras.of(rig.camera_to_world(), rig.intrinsics(self.size), self.size)
        entry = self.table.setdefault(uid, {"url": f"https://example.org/{uid}", "anim": {}})
        for number, clip in enumerate(clips):
            asset = load_asset(path, clip=clip)
            mesh, times = mesh_of(asset), np.arange(self.frames) / 24
            vertices = pose_vertices(asset, clip, times % max(asset.clips[clip].duration, 1e-3))
            renderer = Renderer(mesh, cameras, samples=2, shading=bake_shading(mesh, vertices[0]))
            rgba = np.stack([renderer.render(pose, renderer.caster(pose)).rgba for pose in vertices], axis=1)
            coverage = rgba[..., 3:] / 255.0
            pictures = np.round(rgba[..., :3] * coverage + self.grey * (1 - coverage)).astype(np.uint8)
            name = f"{uid}/{number:02d}"
            self.alpha[name], self.poses[name] = rgba[..., 3], (mesh, vertices)
            self.videos[name] = [self.mp4(view) for view in pictures]
            entry["anim"][f"{number:02d}"] = {
                "angle": {"elv": elevation, "azi_start": start},
                "text_prompt": f"{uid} moves in way {number}",
            }

    def mp4(self, frames):
        import tempfile

        import imageio.v2 as imageio

        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            options = ["-crf", str(self.crf), "-threads", "1"]
            imageio.mimwrite(
                file.name, frames, format="FFMPEG", fps=24, codec="libx264", macro_block_size=1, output_params=options
            )
            return Path(file.name).read_bytes()

    def write(self, folder, *, archives=1, change=None, prefix=""):
        """Write table, list and archives; `change` maps member name -> bytes, or None to leave the member out."""
        import io
        import json
        import tarfile

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "uid_info_dict.json").write_text(json.dumps(self.table))
        (folder / "high_quality_uid.txt").write_text("\n".join(list(self.table)[:1]))
        uids = list(dict.fromkeys(name.split("/")[0] for name in self.videos))
        for number in range(archives):
            with tarfile.open(folder / f"multi_view_video_{number:02d}.tar.gz", "w:gz", compresslevel=1) as tar:
                for name, views in self.videos.items():
                    if uids.index(name.split("/")[0]) % archives != number:
                        continue
                    for view, data in enumerate(views):
                        member = f"{name}/view_{view}.mp4"
                        content = (change or {}).get(member, data)
                        if content is not None:
                            entry = tarfile.TarInfo(prefix + member)
                            entry.size = len(content)
                            tar.addfile(entry, io.BytesIO(content))
        return folder


@pytest.fixture(scope="session")
def release_writer():
    """`ReleaseWriter`, for tests that need another release than `release`."""
    return ReleaseWriter


@pytest.fixture(scope="session")
def release(tmp_path_factory) -> ReleaseWriter:
    """Two animations of a first object and one of a second and third, 14 frames of 64 px."""
    from animate4d.assets.procedural import generate_objects

    folder = tmp_path_factory.mktemp("release-objects")
    paths = generate_objects(folder, count=3, seed=5, clips_per_object=2)
    writer = ReleaseWriter()
    writer.add(paths[0], "aaaa1", clips=(0, 1))
    writer.add(paths[1], "bbbb2", elevation=27.0, start=10.0)
    writer.add(paths[2], "cccc3", elevation=0.0, start=0.0)
    return writer


NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars",
    "--no-first-run", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip


class Browser:
    """One page of a headless Chromium, driven over its DevTools protocol.

    Attributes:
        problems: what the page logged as warning or error, and exceptions.
        requests: addresses it asked for.
    """

    def __init__(self, program: str, profile: Path) -> None:
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._loop = asyncio.new_event_loop()
        self._ids = itertools.count(1)
        self.problems, self.requests = [], []
        self._loop.run_until_complete(self._connect(profile / "DevToolsActivePort"))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    async def _connect(self, port_file: Path) -> None:
        until = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert time.monotonic() < until, "the browser does not start"
            await asyncio.sleep(0.1)
        port = port_file.read_text().split()[0]
        import aiohttp

        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            page = next(entry for entry in await answer.json() if entry["type"] == "page")
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=1 << 27)

    def call(self, method: str, **parameters):
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), 120))

    async def _call(self, method, parameters):
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = json.loads((await self._socket.receive()).data)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message) -> None:
        facts = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.problems.append(facts["exceptionDetails"]["text"])
        elif message["method"] == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning"):
            self.problems.append(str(facts["args"]))
        elif message["method"] == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.problems.append(facts["entry"]["text"])
        elif message["method"] == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])

    def run(self, script: str):
        """Evaluate JavaScript, promises awaited, and return its value."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < until, f"never: {script}"
            time.sleep(0.1)

    def open(self, address: str, ready: str = "document.getElementById('canvas')?.dataset.drawn > 0") -> None:
        """Open a page afresh and wait until a script says it is ready; by default for the viewer's first picture."""
        self.call("Page.navigate", url="about:blank")
        self.wait("location.href === 'about:blank'")
        self.call("Page.navigate", url=address)
        self.wait(ready)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def key(self, key: str, *, shift: bool = False, **facts) -> None:
        """Press a key; `code`, `windowsVirtualKeyCode` and `text` are needed for keys that the browser itself heeds."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=8 if shift else 0, **facts)

    def drop(self, path: Path, selector: str) -> None:
        """Drag a file from outside onto an element."""
        x, y = self.run(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def picture(self, selector: str):
        """Return what an element shows, `[H, W, 3]` uint8, once it has been drawn anew."""
        import numpy as np
        from PIL import Image

        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        box = self.run(
            f"(({{x, y, width, height}}) => ({{x, y, width, height}}))"
            f"(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        shot = self.call("Page.captureScreenshot", format="png", clip={**box, "scale": 1})
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB"))

    def close(self) -> None:
        self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()
