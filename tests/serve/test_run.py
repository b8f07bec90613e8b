"""The start of the service ends with one line where it cannot succeed, instead of being tried without end."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from ray import serve as ray_serve

from animate4d.core.errors import ClusterError, ConfigError
from animate4d.serve import run as run_module
from animate4d.serve.app import build
from animate4d.serve.checks import check_size
from animate4d.serve.config import ServeConfig
from animate4d.serve.run import serve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    return path


def test_the_command_says_what_is_wrong_in_one_line(file):
    command = [sys.executable, ROOT / "jobs" / "serve.py", "--port", "0", "--out", file / "jobs"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "starting" not in ended.stdout
    (line,) = ended.stderr.splitlines()
    assert f"{file}/jobs: cannot write there" in line


@pytest.mark.parametrize("name", ["token_file", "webhook_secret_file"])
def test_files_that_are_gone_are_named_before_anything_starts(tmp_path, name):
    config = {"out": tmp_path / "jobs", "port": 0, name: tmp_path / "gone"}
    with pytest.raises(ConfigError, match="gone"):
        serve(ServeConfig(**config))
    with pytest.raises(ConfigError, match="gone"):
        build({key: value if key == "port" else str(value) for key, value in config.items()})


def test_a_cluster_that_is_too_small_is_named():
    config = ServeConfig(workers=3, generators=2)
    check_size(config, cpus=3, gpus=2)
    check_size(config, cpus=3, gpus=0)  # without GPUs, generators compute on the CPUs of the workers
    with pytest.raises(ClusterError, match="workers is 3: the cluster has 2 CPUs"):
        check_size(config, cpus=2, gpus=0)
    with pytest.raises(ClusterError, match="generators is 2: the cluster has 1 GPUs"):
        check_size(config, cpus=3, gpus=1)


def test_what_ray_gives_up_on_is_one_line(tmp_path, monkeypatch):
    stopped = []

    def give_up(*_, **__):
        raise RuntimeError("Deploying application animate4d failed: a trace\n  File x\nOSError: no room\n")

    monkeypatch.setattr(run_module, "ray_session", lambda **_: contextlib.nullcontext())
    monkeypatch.setattr("animate4d.serve.app.build", lambda _args: None)
    monkeypatch.setattr(ray_serve, "start", lambda **_: None)
    monkeypatch.setattr(ray_serve, "run", give_up)
    monkeypatch.setattr(ray_serve, "shutdown", lambda: stopped.append(1))
    with pytest.raises(ClusterError) as caught:
        serve(ServeConfig(out=tmp_path / "jobs", port=0))
    assert str(caught.value) == "the service does not start: OSError: no room"
    assert stopped
