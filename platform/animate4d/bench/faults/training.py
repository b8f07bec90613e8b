"""Faults of a training under Ray Train (D33, D34, D36, driver, node, mlflow): what dies, losses that are no number."""

from __future__ import annotations

import io
import json
import os
import signal
from contextlib import redirect_stderr
from pathlib import Path

from animate4d.bench.faults.drivers import Driver
from animate4d.bench.faults.mlflow_server import MlflowServer
from animate4d.bench.faults.runs import EVERY, STEPS, go_on, run_config, run_differences, undisturbed
from animate4d.bench.faults.scenario import Account, Scenario, Watch, scenario
from animate4d.bench.faults.tiny import FAULT, TinyParts, steps_repeated
from animate4d.bench.faults.workbench import Workbench
from animate4d.compute.local_nodes import LocalNodes
from animate4d.compute.session import session_address
from animate4d.core.errors import TrainingError
from animate4d.core.failpoint import LOG, POINTS
from animate4d.runs.callback import MlflowObserver
from animate4d.runs.store import connect
from animate4d.runs.training_run import NOTE
from animate4d.training.checkpoint import STOP_FILE, list_checkpoints
from animate4d.training.launch import train
from animate4d.training.metrics_log import Row
from animate4d.training.observers import TrainResult, TrainStart

AT = EVERY + 2
"""Steps done when the fault happens: two after a checkpoint."""
SAVED = f"checkpoints/step-{EVERY:06d}"
NEVER = "never"


class Heard(io.StringIO):
    """What a driver in this process says; the first line with a word in it is the notice of the fault."""

    def __init__(self, watch: Watch, out: Path, word: str) -> None:
        super().__init__()
        self._watch, self._out, self._word = watch, out, word

    def write(self, text: str) -> int:
        """Take a text, which is one line or none."""
        if self._word in text and self._watch.detected_s is None:
            if (self._out / FAULT).exists():
                self._watch.started_with(self._out / FAULT)
            self._watch.detected(text.strip())
        return super().write(text)


@scenario(
    "D33",
    "SIGTERM to the driver",
    then="saves and exits with code 130; goes on bit for bit",
    unit="steps",
    says=("stopped at step", "--resume"),
    needs_ray=True,
)
def d33(bench: Workbench) -> Account:
    """Terminate the driver while the worker waits for its request to stop."""
    out = bench.fresh_folder("d33") / "run"
    config = run_config(bench, out, tracking_uri=bench.mlflow, register=False)
    with Driver(config, TinyParts(at=AT, wait_for=STOP_FILE), session_address()) as driver:
        driver.wait_for_step(AT)
        watch = Watch()
        os.kill(driver.process.pid, signal.SIGTERM)
        watch.detected(driver.wait_for_line("stopped at step"))
        code = driver.wait_for_end()
    saved = list_checkpoints(out)[-1].name == f"step-{AT + 1:06d}"
    go_on(config)
    watch.recovered()
    silent = run_differences(undisturbed(bench, 1), out) + (not saved) + (code != 130)
    return watch.account(lost=steps_repeated(out), silent=silent)


@scenario(
    "driver",
    "SIGKILL of the driver",
    then="its workers end with it; goes on from the last checkpoint, bit for bit",
    unit="steps",
    most_lost=EVERY,
    needs_ray=True,
)
def driver_killed(bench: Workbench) -> Account:
    """Kill the driver; whoever goes on has to wait until its orphans let go of the run folder."""
    out = bench.fresh_folder("driver") / "run"
    config = run_config(bench, out, tracking_uri=bench.mlflow, register=False)
    with Driver(config, TinyParts(at=AT, wait_for=NEVER), session_address()) as driver:
        driver.wait_for_step(AT)
        watch = Watch()
        os.kill(driver.process.pid, signal.SIGKILL)
        assert driver.wait_for_end() == -signal.SIGKILL
    go_on(config)
    watch.recovered()
    return watch.account(lost=steps_repeated(out), silent=run_differences(undisturbed(bench, 1), out))


@scenario(
    "D34",
    "SIGKILL of one of two workers",
    then="says so; both are started again from the last checkpoint; same weights, bit for bit",
    unit="steps",
    most_lost=EVERY,
    says=("worker 1 died", "attempt 2 of 3", f"step-{EVERY:06d}"),
    needs_ray=True,
)
def d34(bench: Workbench) -> Account:
    """Kill the second worker when the first checkpoint is whole."""
    out = bench.fresh_folder("d34") / "run"
    killed = {POINTS: f"step-{AT}.rank-1=kill@1", LOG: str(out.parent / "passed")}
    watch = Watch()
    with redirect_stderr(Heard(watch, out, "attempt")):
        train(run_config(bench, out, workers=2), make_parts=TinyParts(at=AT, wait_for=SAVED, environment=killed))
    watch.recovered()
    return watch.account(lost=steps_repeated(out), silent=run_differences(undisturbed(bench, 2), out))


@scenario(
    "node",
    "node of one of two workers lost, and another one joined",
    then="says so; both workers are started again from the last checkpoint; same weights, bit for bit",
    unit="steps",
    most_lost=EVERY,
    says=("died", "attempt 2 of 3", f"step-{EVERY:06d}"),
    needs_ray=True,
)
def node(bench: Workbench) -> Account:
    """Take one of two nodes with a worker each out of a cluster."""
    out = bench.fresh_folder("node") / "run"
    config = run_config(bench, out, workers=2, tracking_uri=bench.mlflow, register=False)
    with LocalNodes() as nodes:
        nodes.join()
        with Driver(config, TinyParts(at=AT, wait_for="go-on"), nodes.address) as driver:
            driver.wait_for_step(AT)
            watch = Watch()
            nodes.lose()
            watch.detected(driver.wait_for_line("worker "))
            nodes.join()
            (out / "go-on").touch()
            driver.wait_for_end()
            watch.recovered()
    return watch.account(lost=steps_repeated(out), silent=run_differences(undisturbed(bench, 2), out))


@scenario(
    "D36",
    "loss that becomes NaN",
    then="stops without another try; the checkpoint before is kept, the MLflow run failed",
    unit="steps",
    most_lost=EVERY,
    says=(f"NaN or infinite at step {AT + 1}", f"step-{EVERY:06d} is kept", "--learning-rate"),
    needs_ray=True,
)
def d36(bench: Workbench) -> Account:
    """Spoil the loss of one step, and go on without that."""
    out = bench.fresh_folder("d36") / "run"
    config = run_config(bench, out)
    watch = Watch()
    try:
        with redirect_stderr(io.StringIO()):
            train(config, [MlflowObserver(bench.mlflow)], make_parts=TinyParts(at=AT, poison=True))
    except TrainingError as error:
        watch.started_with(out / FAULT)
        watch.detected(str(error))
    run = connect(bench.mlflow).get_run(json.loads((out / NOTE).read_text())["run_id"])
    failed = run.info.status == "FAILED" and "NaN" in run.data.tags["reason"]
    tried_again = steps_repeated(out)
    go_on(config)
    watch.recovered()
    silent = run_differences(undisturbed(bench, 1), out) + (not failed) + tried_again
    return watch.account(lost=steps_repeated(out), silent=silent)


class Outage:
    """Kills the MLflow server half-way, lets the worker go on, and starts the server before the training ends."""

    def __init__(self, server: MlflowServer) -> None:
        self._server = server

    def started(self, start: TrainStart) -> None:
        """Remember the run folder."""
        self._out = start.out

    def progressed(self, rows: list[Row]) -> None:
        """Act when the worker waits."""
        if rows[-1]["step"] == AT:
            self._server.kill()
            (self._out / "server-killed").touch()

    def drew(self, image: Path, step: int) -> None:
        """Start the server after the last picture, which found it away."""
        if step == STEPS:
            self._server.start()

    def ended(self, result: TrainResult | None, error: BaseException | None) -> None:
        """Hear nothing of interest."""


@scenario(
    "mlflow",
    "MLflow server killed half-way, back before the end",
    then="one warning; training goes on, what was missed arrives when it is back",
    unit="steps",
    says=("does not answer", "metrics.jsonl", "sync-run"),
    needs_ray=True,
)
def mlflow(bench: Workbench) -> Account:
    """Report rows, pictures and the model to a real server that misses half of them."""
    out = bench.fresh_folder("mlflow") / "run"
    config = run_config(bench, out, sample_every=EVERY)
    watch = Watch()
    heard = Heard(watch, out, "warning")
    with MlflowServer(out.parent) as server, redirect_stderr(heard):
        observers = (MlflowObserver(server.uri), Outage(server))
        train(config, observers, make_parts=TinyParts(at=AT, wait_for="server-killed"))
        watch.recovered()
        client, run_id = connect(server.uri), json.loads((out / NOTE).read_text())["run_id"]
        steps = [metric.step for metric in client.get_metric_history(run_id, "loss")]
        pictures = [entry.path for entry in client.list_artifacts(run_id, "images") if entry.path.endswith(".png")]
        champion = client.get_model_version_by_alias("mv-vdm", "champion").run_id
        status = client.get_run(run_id).info.status
    complete = (
        steps == list(range(1, STEPS + 1))
        and len(pictures) == STEPS // EVERY
        and (champion, status) == (run_id, "FINISHED")
        and heard.getvalue().count("warning") == 1
        and "answers again" in heard.getvalue()
    )
    silent = run_differences(undisturbed(bench, 1), out) + (not complete)
    return watch.account(lost=steps_repeated(out), silent=silent)


SCENARIOS: tuple[Scenario, ...] = (d33, d34, d36, driver_killed, node, mlflow)
