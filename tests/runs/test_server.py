"""A real MLflow server that dies in the middle of a training and comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from PIL import Image

from animate4d.runs import callback
from animate4d.runs.callback import MlflowObserver
from animate4d.runs.store import connect
from animate4d.training.metrics_log import MetricsLog
from animate4d.training.observers import TrainResult, TrainStart


@pytest.fixture
def start_server(tmp_path):
    """Start the server on one port and one SQLite file every time; the last one is ended with the test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []

    def start():
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(tmp_path / "artifacts")]
        with open(tmp_path / "server.log", "a") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
        until = time.monotonic() + 180
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    return f"http://127.0.0.1:{port}"
            except OSError:
                assert started[-1].poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
        raise AssertionError("the server never answered")

    def kill():
        os.killpg(started[-1].pid, signal.SIGKILL)
        started[-1].wait()

    yield start, kill
    if started and started[-1].poll() is None:
        kill()


@pytest.mark.slow
def test_what_a_server_missed_while_it_was_dead_is_there_when_it_is_back(start_server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(callback, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(callback, "RETRY_SECONDS", 0.0)
    start, kill = start_server
    uri, out = start(), tmp_path / "run"
    (out / "samples").mkdir(parents=True)
    log = MetricsLog(out, 0)
    observer = MlflowObserver(uri)
    resolved = {"seed": 0, "job": {"run_name": None}}
    observer.started(TrainStart(out=out, name="a run", resolved=resolved, step=0, steps=9, workers=1, on_gpu=False))

    def train_to(step):
        rows = [{"step": number, "loss": 1.0 / number} for number in range(step - 2, step + 1)]
        for row in rows:
            log.append(row)
        observer.progressed(rows)
        image = out / "samples" / f"step-{step:06d}.png"
        Image.new("RGB", (8, 8), (step, 0, 0)).save(image)
        observer.drew(image, step)

    train_to(3)
    kill()
    train_to(6)
    assert capsys.readouterr().err.count("warning") == 1
    start()
    train_to(9)
    (out / "model").mkdir()
    (out / "model" / "config.json").write_text("{}")
    observer.ended(TrainResult(out=out, model=out / "model", step=9, state="finished", metrics={}), None)
    log.close()

    assert "answers again" in capsys.readouterr().err
    client = connect(uri)
    champion = client.get_model_version_by_alias("mv-vdm", "champion")
    run = client.get_run(champion.run_id)
    assert run.info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == list(range(1, 10))
    pictures = [entry.path for entry in client.list_artifacts(run.info.run_id, "images") if ".png" in entry.path]
    assert sorted(int(path.split("step")[1][1]) for path in pictures) == [3, 6, 9]
