"""The whole service over real HTTP: Ray Serve, a GLB in, an animated GLB out, replicas killed (D51), a restart."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import trimesh

from animate4d import Client
from animate4d.assets.load import load_asset
from animate4d.serve.client import ServiceError

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS, ANIMATE_SECONDS, KILL_SECONDS = 240, 240, 30


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


class Service:
    """`jobs/serve.py` in a process of its own, on a free port of loopback, with a Ray that nobody else joins."""

    def __init__(self, folder, *options):
        self.folder, self.options = folder, options
        self.ray = tempfile.mkdtemp(prefix="a4d")  # Ray's sockets need short paths
        self.start()

    def start(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, ROOT / "jobs" / "serve.py", "--port", str(port), *self.options]
        command += ["--model", self.folder / "model", "--out", self.folder / "jobs"]
        with open(self.folder / "log", "w") as log:
            environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
            environment["RAY_TMPDIR"] = self.ray
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.wait_until_ready()

    def log(self):
        return (self.folder / "log").read_text()

    def wait_until_ready(self):
        begun = time.monotonic()
        while True:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() - begun < START_SECONDS, self.log()
            try:
                if json.loads(get(f"{self.url}/readyz"))["status"] == "ready":
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)

    def kill(self, *deployments):
        """Kill the replicas of deployments as the out-of-memory killer would."""
        deadline = time.monotonic() + KILL_SECONDS
        while True:  # Ray writes a process's title anew for every call; in between it cannot be read
            titles = {}
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.Error):  # it has ended meanwhile
                    titles[child] = "".join(child.cmdline())
            # a replica's own name stands before these while it is at work
            names = [f"ServeReplica:animate4d:{deployment}" for deployment in deployments]
            if all(any(name in title for title in titles.values()) for name in names):
                break
            assert time.monotonic() < deadline, sorted(title for title in titles.values() if "ray::" in title)
            time.sleep(0.05)
        for child, title in titles.items():
            if any(name in title for name in names):
                child.kill()

    def stop(self):
        """End it by SIGTERM; returns the exit code."""
        os.kill(self.process.pid, signal.SIGTERM)
        return self.process.wait(90)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from animate4d.models.config import model_preset
    from animate4d.models.mv_vdm import MVVDM

    folder = tmp_path_factory.mktemp("service")
    MVVDM(model_preset("smoke")).save_pretrained(folder / "model", {})
    (folder / "box.glb").write_bytes(trimesh.creation.box().export(file_type="glb"))
    return folder


@pytest.fixture(scope="module")
def service(folder):
    started = Service(folder, "--drain-seconds", "0")
    yield started
    assert started.stop() == 0
    shutil.rmtree(started.ray)
    assert "Traceback" not in started.log()


def until_running(animation):
    begun = time.monotonic()
    while (now := animation.client.animation(animation.id)).facts["stage"] not in ("video", "fit"):
        assert now.state in ("queued", "running"), now.facts
        assert time.monotonic() - begun < ANIMATE_SECONDS, now.facts
        time.sleep(0.1)


@pytest.mark.ray
@pytest.mark.slow
def test_a_text_file_is_a_problem(service, tmp_path):
    (tmp_path / "text.glb").write_text("no model at all")
    with pytest.raises(ServiceError, match="plain text") as caught:
        Client(service.url).animate(tmp_path / "text.glb", "x")
    assert caught.value.status == 422


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_outlives_a_stop_and_killed_replicas_and_comes_out_animated(service, folder, tmp_path):
    made = Client(service.url).animate(folder / "box.glb", "a box bouncing", formats=["viewer"])
    until_running(made)
    assert service.stop() == 0
    state = json.loads((folder / "jobs" / made.id / "state.json").read_text())
    assert (state["state"], state["attempts"]) == ("queued", 0)

    service.start()
    made = Client(service.url).animation(made.id)
    until_running(made)
    service.kill("Animator", "Generator")
    time.sleep(1)
    service.kill("Api")
    seen = []
    done = made.wait(timeout=ANIMATE_SECONDS, progress=seen.append)
    attempts = json.loads((folder / "jobs" / made.id / "state.json").read_text())["attempts"]
    assert (done.state, attempts) == ("done", 2)
    service.wait_until_ready()

    files = {path.name: path for path in done.download(tmp_path)}
    asset = load_asset(files["animated.glb"])
    assert (len(asset.clips), len(asset.mesh.faces)) == (1, 12)
    assert "viewer.html" in files
    assert "motion.npz" not in files
    assert any(facts["links"]["preview"] for facts in seen)
    assert {facts["stage"] for facts in seen} >= {"video", "fit"}
    assert get(f"{service.url}/metrics").count(b'state="done"} 1') == 1
    assert json.loads(get(f"{service.url}/openapi.json"))["paths"]["/v1/animations"]
    assert Client(service.url).get("/v1/estimate")["work_seconds"] > 0
    (model,) = Client(service.url).get("/v1/models")["models"]
    assert json.loads(files["receipt.json"].read_text())["model_version"] == model["version"]
    assert len(model["version"]) == 16
