"""A small moving object for the viewer, and a headless Chromium to look at its page with."""

import asyncio
import base64
import io
import itertools
import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animate4d.core.cameras import Rig
from animate4d.core.motion import SplatMotion
from animate4d.export.viewer.scene import ViewerScene
from animate4d.fourd.surface_splats import move_splats, sample_splats

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars",
    "--no-first-run", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip


@pytest.fixture
def scene(barrel_asset, make_motion):
    mesh = barrel_asset.mesh
    rows, columns = np.mgrid[0:32, 0:16]
    texture = np.stack([8 * rows, 16 * columns, 255 - 8 * rows, np.full_like(rows, 255)], axis=-1).astype(np.uint8)
    mesh = replace(mesh, materials=(replace(mesh.materials[0], texture=texture), *mesh.materials[1:]))
    motion = make_motion(mesh.vertices, mesh.faces, frames=6)
    surface = sample_splats(mesh, 400)
    means, quats = move_splats(surface, motion, mesh.vertices)
    video = np.random.default_rng(1).integers(0, 255, (4, 5, 32, 32, 3), dtype=np.uint8)
    return ViewerScene(
        title="a barrel bending",
        origin="barrel.glb",
        times=np.arange(6) / 8,
        rig=Rig(),
        video=video,
        video_frames=np.array([0, 1, 2, 3, 4, 0]),
        video_name="The generated video",
        cloud=surface.cloud,
        splats=SplatMotion(means=means, quats=quats),
        mesh=mesh,
        vertices=motion.apply(mesh.vertices),
    )


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

    def open(self, address: str) -> None:
        """Open a page afresh and wait for its first picture."""
        self.call("Page.navigate", url="about:blank")
        self.wait("location.href === 'about:blank'")
        self.call("Page.navigate", url=address)
        self.wait("document.getElementById('canvas')?.dataset.drawn > 0")

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def key(self, key: str, *, shift: bool = False) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=8 if shift else 0)

    def picture(self, selector: str) -> np.ndarray:
        """Return what an element shows, `[H, W, 3]` uint8, once it has been drawn anew."""
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
