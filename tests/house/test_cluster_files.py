"""The files under cluster/ and dashboards/ are what their readers accept."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_serve_config_is_valid_and_names_a_real_builder():
    from ray.serve.schema import ServeDeploySchema

    from animate4d.cli import load
    from animate4d.serve.config import ServeConfig

    document = yaml.safe_load((ROOT / "cluster" / "serve.yaml").read_text())
    application = ServeDeploySchema.model_validate(document).applications[0]
    assert callable(load(application.import_path))
    ServeConfig(**application.args)


def test_every_package_of_a_node_is_pinned_by_hash_and_as_here():
    text = (ROOT / "cluster" / "requirements.lock").read_text().replace("\\\n", " ")
    locked = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert all(sum(word.startswith("--hash=sha256:") for word in words) >= 1 for words in locked)
    assert not any("://" in word for words in locked for word in words)
    locked = dict(words[0].lower().replace("_", "-").split("==") for words in locked)
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").split()
    pinned = dict(line.split("==") for line in pinned)
    assert {name: version for name, version in locked.items() if pinned.get(name, version) != version} == {}
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.match(r"[\w-]+", line)[0].lower() for line in asked} <= set(locked)


def test_start_script_is_a_shell_script():
    subprocess.run(["bash", "-n", ROOT / "cluster" / "start-local.sh"], check=True)


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_started_by_the_script_lets_nobody_in_without_its_token(tmp_path):
    ports = free_ports(3)
    names = ("--port", "--dashboard-port", "--metrics-export-port")
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # short, because paths of sockets are
        command = [ROOT / "cluster" / "start-local.sh", "--num-cpus", "1", "--temp-dir", folder, "--block"]
        command += [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with open(tmp_path / "log", "w") as log:
            cluster = subprocess.Popen(
                command, env={"HOME": str(tmp_path), "PATH": path}, stdout=log, stderr=log, start_new_session=True
            )
        try:
            page = f"http://127.0.0.1:{ports[1]}"
            until_answered(page, cluster, tmp_path / "log")
            (token,) = (file.read_text().strip() for file in (tmp_path / ".ray").rglob("*") if file.is_file())
            for headers, refused in (({}, 401), ({"Authorization": "Bearer wrong"}, 403)):
                for method in ("GET", "POST", "DELETE", "PUT"):
                    assert httpx.request(method, f"{page}/api/jobs/", headers=headers).status_code == refused
            let_in = httpx.get(f"{page}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
            assert let_in.status_code == 200
            assert page_addresses(cluster.pid, ports[1]) == {"127.0.0.1"}
        finally:
            os.killpg(cluster.pid, signal.SIGTERM)
            cluster.wait(60)


def free_ports(count):
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def until_answered(url, process, log):
    until = time.monotonic() + 120
    while True:
        try:
            return httpx.get(url)
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.3)


def page_addresses(pid, port):
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    listening = [entry for process in processes for entry in process.net_connections() if entry.status == "LISTEN"]
    return {entry.laddr.ip for entry in listening if entry.laddr.port == port}


def test_training_board_asks_for_metrics_that_training_reports():
    board = json.loads((ROOT / "dashboards" / "grafana" / "training.json").read_text())
    asked = {target["expr"] for panel in board["panels"] for target in panel["targets"]}
    source = "".join(path.read_text() for path in (ROOT / "platform" / "animate4d" / "training").glob("*.py"))
    names = {word.strip("()") for expression in asked for word in expression.split() if "ray_animate4d" in word}
    assert names
    for name in names:
        assert name.removeprefix("sum(").removeprefix("ray_") in source, name
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
