"""The training bench: what it runs, what it says, and one small run of it."""

import json

import pytest

from animate4d.bench.clock import summary
from animate4d.bench.training import Row, TrainingReport, Trainings, Verdict, bench_training, to_json
from animate4d.bench.training_config import BenchTrainingConfig
from animate4d.bench.training_report import show
from animate4d.core.errors import ConfigError


class Spent:
    """An observer whose work was measured."""

    seconds = {"started": (3.0, 1.0), "ended": (0.5, 0.2)}  # noqa: RUF012
    share = 0.02


def row(name, ms, wait=None):
    return Row(name=name, timing=summary([(ms, 2 * ms)] * 3, on_cpu=True), data_wait=wait, rounds_ms=(ms, ms))


def verdicts(rows, observers=(), **changes):
    trainings = Trainings.__new__(Trainings)
    trainings.config, trainings.observers = BenchTrainingConfig(**changes), list(observers)
    return {verdict.name: verdict for verdict in trainings.verdicts(rows)}


def test_workers_are_judged_by_steps_per_second_beside_what_the_machine_can_give():
    rows = {"one": row("1 worker", 800.0), "many": row("2 workers", 500.0), "apart": row("2 apart", 400.0)}
    rows["each"] = row("2 workers, full batch each", 1000.0)
    assert verdicts(rows, parts=("scaling",))["2 workers to one, samples per second"].value == 1.6
    verdict = verdicts(rows, parts=("scaling",))["2 workers to one, steps per second"]
    assert (verdict.value, verdict.low, verdict.good) == (1.6, 1.6, True)
    assert "2.00" in verdict.note
    slower = verdicts(rows | {"many": row("2 workers", 510.0)}, parts=("scaling",))
    assert not slower["2 workers to one, steps per second"].good


def test_mlflow_is_judged_by_the_observers_own_time_and_data_by_the_logged_wait():
    rows = {"one": row("1 worker", 800.0, 0.001), "mlflow": row("MLflow", 804.0), "kept": row("kept", 800.0, 0.03)}
    found = verdicts(rows, [Spent()], parts=("mlflow", "data"))
    assert not found["MLflow's share of the time, in the driver"].good
    assert found["step with MLflow to a step without"].value == pytest.approx(1.005)
    assert found["data wait, labels in the shards"].good
    assert not found["data wait, labels kept ahead"].good


def test_table_and_file_say_the_same():
    settings = {"preset": "smoke", "steps": 3, "warmup": 1, "rounds": 2}
    machine = {"device": "a CPU", "cores": 2, "torch": "2", "load_average": 0.1, "load_average_at_end": 0.2}
    verdict = Verdict(name="data wait", value=0.5, high=0.02)
    report = TrainingReport(settings=settings, machine=machine, rows=[row("1 worker", 800.0, 0.5)], verdicts=[verdict])
    text, values = show(report), to_json(report)
    assert "wanted at most 0.02: NO" in text
    assert "50.00%" in text
    assert values["verdicts"][0]["good"] is False
    assert values["rows"][0]["timing"]["ms"] == 800.0


@pytest.mark.parametrize("changes", [{"workers": 1}, {"steps": 1}, {"warmup": 0}, {"rounds": 0}, {"parts": ()}])
def test_settings_that_measure_nothing_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        BenchTrainingConfig(**changes)


@pytest.mark.ray
@pytest.mark.slow
def test_a_small_run_trains_for_real_with_and_without_mlflow(ray_cluster, tmp_path, capsys):
    config = BenchTrainingConfig(parts=("mlflow",), steps=2, warmup=1, rounds=1, out=tmp_path / "training.json")
    assert bench_training(config) == 0
    found = json.loads((tmp_path / "training.json").read_text())
    assert [entry["name"] for entry in found["rows"]] == ["1 worker", "1 worker, MLflow"]
    assert all(entry["timing"]["runs"] == 2 for entry in found["rows"])
    assert "MLflow's share" in capsys.readouterr().out
