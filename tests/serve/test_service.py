"""The whole service over real HTTP: Ray Serve, a model folder, a GLB in, an animated GLB out."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest
import trimesh

from animate4d.assets.load import load_asset

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS, ANIMATE_SECONDS = 120, 240


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def submit(url, content, prompt):
    border = uuid.uuid4().hex
    fields = [f'--{border}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n{prompt}\r\n'.encode()]
    head = f'--{border}\r\nContent-Disposition: form-data; name="asset"; filename="box.glb"\r\n\r\n'.encode()
    body = b"".join([*fields, head, content, f"\r\n--{border}--\r\n".encode()])
    request = urllib.request.Request(url, body, {"Content-Type": f"multipart/form-data; boundary={border}"})
    return urllib.request.urlopen(request, timeout=60)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    from animate4d.models.config import model_preset
    from animate4d.models.mv_vdm import MVVDM

    folder = tmp_path_factory.mktemp("service")
    MVVDM(model_preset("smoke")).save_pretrained(folder / "model", {})
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "jobs" / "serve.py", "--model", folder / "model", "--out", folder / "jobs"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
    here, begun = f"http://127.0.0.1:{port}", time.monotonic()
    while True:
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() - begun < START_SECONDS, (folder / "log").read_text()
        try:
            if json.loads(get(f"{here}/readyz"))["status"] == "ready":
                break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    yield here
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 0
    assert "Traceback" not in (folder / "log").read_text()


@pytest.mark.ray
@pytest.mark.slow
def test_a_model_goes_in_and_comes_out_animated(service, tmp_path):
    answer = submit(f"{service}/v1/animations", trimesh.creation.box().export(file_type="glb"), "a box bouncing")
    assert answer.status == 202
    here, begun = service + answer.headers["Location"], time.monotonic()
    while (job := json.loads(get(here)))["state"] in ("queued", "running"):
        assert time.monotonic() - begun < ANIMATE_SECONDS, job
        time.sleep(1)
    assert job["state"] == "done", job
    (tmp_path / "animated.glb").write_bytes(
        get(service + next(file["href"] for file in job["files"] if file["name"] == "animated.glb"))
    )
    asset = load_asset(tmp_path / "animated.glb")
    assert len(asset.clips) == 1
    assert len(asset.mesh.faces) == 12
    assert get(f"{service}/metrics").count(b'state="done"} 1') == 1
    assert json.loads(get(f"{service}/openapi.json"))["paths"]["/v1/animations"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_text_file_is_a_problem(service):
    with pytest.raises(urllib.error.HTTPError) as caught:
        submit(f"{service}/v1/animations", b"no model at all", "x")
    assert caught.value.code == 422
    assert caught.value.headers["Content-Type"] == "application/problem+json"
    assert "plain text" in json.load(caught.value)["detail"]
