"""Runs in a real MLflow store (SQLite), and what happens without one."""

import json

import pytest
from mlflow import MlflowClient
from PIL import Image

from animate4d.core.errors import ConfigError, ModelError, ToolError
from animate4d.io.atomic import write_json
from animate4d.runs import callback, training_run
from animate4d.runs.batch_run import BatchRun
from animate4d.runs.callback import MlflowObserver
from animate4d.runs.config import SyncRunConfig
from animate4d.runs.registry import resolve_model
from animate4d.runs.store import connect, tracking_uri
from animate4d.runs.sync import sync_run
from animate4d.runs.training_run import TrainingRun
from animate4d.training.metrics_log import MetricsLog
from animate4d.training.observers import TrainResult, TrainStart

AWAY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One SQLite store for the file: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def row(step):
    return {"step": step, "loss": 1.0 / step, "lr": 1e-3}


def write_rows(out, first, last):
    log = MetricsLog(out, first - 1)
    for step in range(first, last + 1):
        log.append(row(step))
    log.close()
    return [row(step) for step in range(first, last + 1)]


def start_of(out, step=0):
    out.mkdir(exist_ok=True)
    resolved = {"seed": 0, "recipe": {"optimizer": {"learning_rate": 0.002}}, "job": {"run_name": "a run"}}
    (out / "config.json").write_text(json.dumps(resolved))
    return TrainStart(out=out, name="a run", resolved=resolved, step=step, steps=6, workers=1, on_gpu=False)


def finished(out):
    (out / "model").mkdir()
    (out / "model" / "config.json").write_text("{}")
    return TrainResult(out=out, model=out / "model", step=6, state="finished", metrics=row(6))


def picture(out, step):
    path = out / "samples" / f"step-{step:06d}.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (16, 8), (step, 0, 0)).save(path)
    return path


def logged_steps(client, run_id):
    return [metric.step for metric in client.get_metric_history(run_id, "loss")]


def test_a_training_that_goes_on_stays_one_run_with_every_step_once(store, tmp_path):
    client = connect(store)
    first = MlflowObserver(store)
    first.started(start_of(tmp_path))
    first.progressed(write_rows(tmp_path, 1, 4))
    first.drew(picture(tmp_path, 4), 4)
    # Killed here: steps 3 and 4 are trained again from a checkpoint after step 2.
    second = MlflowObserver(store)
    second.started(start_of(tmp_path, step=2))
    second.progressed(write_rows(tmp_path, 3, 6))
    second.ended(finished(tmp_path), None)

    run = client.get_run(json.loads((tmp_path / "mlflow.json").read_text())["run_id"])
    assert logged_steps(client, run.info.run_id) == [1, 2, 3, 4, 5, 6]
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe.optimizer.learning_rate"] == "0.002"
    names = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert {"config.json", "model", "images"} <= names
    champion = resolve_model("models:/mv-vdm@champion", uri=store)
    assert (champion / "config.json").is_file()
    version = client.get_model_version_by_alias("mv-vdm", "champion")
    assert version.run_id == run.info.run_id
    assert resolve_model(f"models:/mv-vdm/{version.version}", uri=store) == champion


def test_a_finished_model_is_not_registered_when_that_is_not_wanted(store, tmp_path):
    observer = MlflowObserver(store, register=False)
    observer.started(start_of(tmp_path))
    observer.ended(finished(tmp_path), None)
    run_id = json.loads((tmp_path / "mlflow.json").read_text())["run_id"]
    assert not connect(store).search_model_versions(f"run_id='{run_id}'")


def test_a_failed_training_is_a_failed_run_with_its_reason(store, tmp_path):
    observer = MlflowObserver(store)
    observer.started(start_of(tmp_path))
    observer.ended(None, ValueError("the loss became NaN"))
    run = connect(store).get_run(json.loads((tmp_path / "mlflow.json").read_text())["run_id"])
    assert run.info.status == "FAILED"
    assert "NaN" in run.data.tags["reason"]


def note_of(out):
    return json.loads((out / "mlflow.json").read_text())["run_id"]


def pictures_of(client, run_id):
    return [entry.path for entry in client.list_artifacts(run_id, "images") if entry.path.endswith(".png")]


def test_an_absent_store_costs_one_warning_and_can_be_caught_up_later(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    observer = MlflowObserver(AWAY)
    observer.started(start_of(tmp_path))
    observer.progressed(write_rows(tmp_path, 1, 6))
    observer.drew(picture(tmp_path, 6), 6)
    observer.ended(finished(tmp_path), None)
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert "metrics.jsonl" in said
    assert f"animate4d sync-run {tmp_path}" in said
    client = connect(store)
    for _ in range(2):  # the second time finds everything there
        assert sync_run(SyncRunConfig(run=tmp_path, tracking_uri=store)) == 0
        run = client.get_run(note_of(tmp_path))
        assert logged_steps(client, run.info.run_id) == [1, 2, 3, 4, 5, 6]
        assert len(pictures_of(client, run.info.run_id)) == 1
        assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
        assert client.get_model_version_by_alias("mv-vdm", "champion").run_id == run.info.run_id


def test_a_run_that_ended_badly_is_synced_as_what_it_is(store, tmp_path, capsys):
    client = connect(store)
    start_of(tmp_path)
    write_rows(tmp_path, 1, 2)
    sync_run(SyncRunConfig(run=tmp_path, tracking_uri=store))
    assert client.get_run(note_of(tmp_path)).info.status == "KILLED"
    write_json(tmp_path / "outcome.json", {"state": "failed", "step": 2, "message": "no room", "traceback": ""})
    # The store is known from the first time.
    sync_run(SyncRunConfig(run=tmp_path))
    run = client.get_run(note_of(tmp_path))
    assert (run.info.status, run.data.tags["reason"]) == ("FAILED", "no room")
    assert store in capsys.readouterr().out


def test_sync_says_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match=r"no config\.json"):
        sync_run(SyncRunConfig(run=tmp_path))
    start_of(tmp_path)
    with pytest.raises(ToolError, match="again later"):
        sync_run(SyncRunConfig(run=tmp_path, tracking_uri=AWAY))


@pytest.mark.parametrize("broken", ["__init__", "log_rows", "_describe"])
def test_a_store_that_comes_back_gets_everything_once_and_no_second_run(store, tmp_path, monkeypatch, capsys, broken):
    monkeypatch.setattr(callback, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(callback, "FLUSH_SECONDS", 0.0)
    before = len(connect(store).search_runs([e.experiment_id for e in connect(store).search_experiments()]))
    observer = MlflowObserver(store, register=False)
    with monkeypatch.context() as patch:

        def refuse(*args, **kwargs):
            raise OSError("connection refused")

        patch.setattr(TrainingRun, broken, refuse)
        observer.started(start_of(tmp_path))
        observer.progressed(write_rows(tmp_path, 1, 2))
        observer.drew(picture(tmp_path, 2), 2)
    observer.progressed(write_rows(tmp_path, 3, 4))
    client, run_id = connect(store), note_of(tmp_path)
    assert logged_steps(client, run_id) == [1, 2, 3, 4]
    assert len(pictures_of(client, run_id)) == 1
    assert client.get_run(run_id).data.params["seed"] == "0"
    observer.progressed(write_rows(tmp_path, 5, 6))
    observer.ended(finished(tmp_path), None)
    assert logged_steps(client, run_id) == [1, 2, 3, 4, 5, 6]
    said = capsys.readouterr().err
    assert (said.count("warning"), said.count("answers again")) == (1, 1)
    after = len(client.search_runs([e.experiment_id for e in client.search_experiments()]))
    assert after == before + 1


def test_a_request_whose_answer_was_lost_is_not_repeated(store, tmp_path, monkeypatch):
    monkeypatch.setattr(callback, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(callback, "FLUSH_SECONDS", 0.0)
    observer = MlflowObserver(store, register=False)
    observer.started(start_of(tmp_path))
    with monkeypatch.context() as patch:
        send = MlflowClient.log_batch

        def lose_the_answer(self, *args, **kwargs):
            send(self, *args, **kwargs)
            raise OSError("connection reset")

        patch.setattr(MlflowClient, "log_batch", lose_the_answer)
        observer.progressed(write_rows(tmp_path, 1, 3))
    observer.progressed(write_rows(tmp_path, 4, 6))
    assert logged_steps(connect(store), note_of(tmp_path)) == [1, 2, 3, 4, 5, 6]


def test_more_rows_than_one_request_takes_go_out_whole(store, tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "BATCH_METRICS", 7)
    sent = []
    send = MlflowClient.log_batch

    def count(self, run_id, metrics=(), params=()):
        sent.append(len(metrics))
        return send(self, run_id, metrics=metrics, params=params)

    start = start_of(tmp_path)
    run = TrainingRun(tmp_path, name="a run", resolved=start.resolved, uri=store)
    monkeypatch.setattr(MlflowClient, "log_batch", count)
    run.log_rows(write_rows(tmp_path, 1, 5))
    assert sent == [6, 6, 3]


def test_a_batch_is_one_run_with_a_table(store, tmp_path):
    sheet = tmp_path / "sheet.png"
    Image.new("RGB", (4, 4)).save(sheet)
    with BatchRun("a batch", uri=store) as batch:
        batch.log_params({"options": {"fit": "draft"}})
        batch.log_rows([{"id": "fox", "state": "done", "seconds": 4.0}])
        batch.log_rows([{"id": "=cmd()", "state": "failed", "error": "no such file"}])
        batch.log_metrics({"done": 1, "failed": 1})
        batch.log_file(sheet, "gallery")
    client = connect(store)
    run = client.get_run(batch.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"options.fit": "draft"}
    assert run.data.metrics == {"done": 1.0, "failed": 1.0}
    assert [entry.path for entry in client.list_artifacts(batch.run_id, "gallery")] == ["gallery/sheet.png"]
    path = client.download_artifacts(batch.run_id, "rows.json")
    with open(path) as stream:
        table = json.load(stream)
    assert [row[table["columns"].index("id")] for row in table["data"]] == ["fox", "=cmd()"]


def test_a_batch_without_a_store_runs_on(capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with BatchRun("a batch", uri=AWAY, where="out/results.csv") as batch:
        batch.log_rows([{"id": "fox"}])
        batch.log_metrics({"done": 1})
    assert batch.run_id is None
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert "out/results.csv" in said


def test_a_batch_that_raises_is_a_failed_run(store):
    with pytest.raises(ValueError, match="broken"), BatchRun("a batch", uri=store) as batch:
        raise ValueError("broken")
    assert connect(store).get_run(batch.run_id).info.status == "FAILED"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("models:/mv-vdm@nobody", "nobody"),
        ("models:/never-trained@champion", "never-trained"),
        ("models:/mv-vdm", "models:/NAME@ALIAS"),
        ("/no/such/folder", "no model folder at /no/such/folder"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(store, spec, said):
    with pytest.raises(ModelError, match=said) as caught:
        resolve_model(spec, uri=store)
    assert "\n" not in str(caught.value)


def test_a_registry_that_is_away_is_one_sentence(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ModelError, match="use 'shipped'"):
        resolve_model("models:/mv-vdm@champion", uri=AWAY)


def test_a_model_folder_is_itself(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(tmp_path) == tmp_path


def test_the_default_store_is_a_file_in_this_folder_with_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri("sqlite:///a/b.db") == f"sqlite:///{tmp_path}/a/b.db"
    assert tracking_uri("sqlite:////abs/b.db") == "sqlite:////abs/b.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri() == "http://mlflow:5000"
