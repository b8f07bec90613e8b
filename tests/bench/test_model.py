"""`animate4d bench model` from end to end at sizes that take seconds; what is timed is not judged."""

import json
from dataclasses import replace

import pytest
import torch

from animate4d.bench import model as bench
from animate4d.bench.clock import Timing
from animate4d.bench.config import BenchModelConfig
from animate4d.bench.memory import peak_bytes
from animate4d.bench.model import Costs, Row, bench_model, difference, finish, make_plan, obstacle
from animate4d.bench.peak import matmul_peak
from animate4d.bench.works import WORKS
from animate4d.core.errors import ConfigError
from animate4d.models.config import model_preset

SMALLEST = {"views": 1, "frames": 2, "batch": 1, "steps": 2, "repeats": 1, "warmup": 0, "threads": 1}


@pytest.fixture
def quick(monkeypatch, shrunk):
    """A network of a few channels, and without the two measurements that take seconds and are tested by themselves."""
    monkeypatch.setattr(bench, "model_preset", lambda name: shrunk(model_preset(name)))
    monkeypatch.setattr(bench, "matmul_peak", lambda device, dtype: 1e11)
    monkeypatch.setattr(bench, "peak_bytes", lambda name, plan: 10**6)


@pytest.mark.slow
def test_a_whole_run_prints_a_table_and_writes_the_numbers(quick, tmp_path, capsys):
    out = tmp_path / "bench" / "model.json"
    assert bench_model(BenchModelConfig(preset="smoke", device="cpu", out=out, **SMALLEST)) == 0
    printed = capsys.readouterr().out
    data = json.loads(out.read_text())
    rows = {row["name"]: row for row in data["rows"]}
    assert list(rows) == [
        "forward",
        "forward, guided",
        "training step",
        "training step, checkpointing",
        "training loop",
        "sampling",
        "sampling, step cache",
        "sampling, FreeInit",
    ]
    assert all(name in printed for name in rows)
    for row in rows.values():
        assert row["timing"]["ms"] > 0
        assert row["flops"] > 0
        assert 0 < row["share"] < 1.5
    for name in ("forward", "forward, guided", "training loop", "sampling"):
        assert rows[name]["ratio"] > 0
        assert rows[name]["difference"] < 1e-4
    assert "of the FLOPs" in rows["sampling, step cache"]["note"]
    assert data["machine"]["threads"] == 1
    assert {"torch", "diffusers", "cpu", "load_average"} <= data["machine"].keys()
    assert data["settings"]["seed"] == 0


@pytest.mark.slow
def test_a_run_in_bf16_compares_in_fp32(quick, tmp_path):
    config = BenchModelConfig(
        device="cpu", precision="bf16", parts=("forward", "sampling"), out=tmp_path / "m.json", **SMALLEST
    )
    assert bench_model(config) == 0
    rows = json.loads((tmp_path / "m.json").read_text())["rows"]
    assert all(row["timing"] is not None for row in rows)
    assert all(row["difference"] < 1e-4 for row in rows if row["ratio"])


@pytest.mark.slow
def test_the_published_size_on_a_cpu_is_counted_and_not_run(quick, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "model_preset", model_preset)
    config = BenchModelConfig(preset="paper", device="cpu", parts=("forward",), minutes=1, out=tmp_path / "m.json")
    assert bench_model(config) == 0
    printed = capsys.readouterr().out
    assert "1526.20 M parameters, 642.70 M of them trained" in printed
    assert "left out: would take about" in printed
    assert "--image-size" in printed
    rows = json.loads((tmp_path / "m.json").read_text())["rows"]
    assert [row["timing"] for row in rows] == [None, None]
    assert rows[0]["predicted_bytes"] > 1526.2e6 * 4


def test_what_does_not_fit_into_memory_says_what_it_needs():
    assert "needs about 40 GB, 20 GB are free" in obstacle(40 * 10**9, 20 * 10**9, 0.1, 1)
    assert obstacle(40 * 10**9, 60 * 10**9, 0.1, 1) == ""
    assert "about 3 minutes" in obstacle(0, 10**9, 3.0, 1)


def test_a_missing_gpu_is_one_line():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="no CUDA GPU"):
        bench_model(BenchModelConfig(device="cuda"))


def test_a_counterpart_that_differs_is_not_compared(quick):
    entry = next(entry for entry in bench.ENTRIES if entry.name == "forward")
    row = Row(name="forward", flops=1, predicted_bytes=1, difference=0.01)
    timing = Timing(ms=1, low=1, high=1, cpu_ms=1, runs=1)
    finish(row, entry, {"forward": timing, "plain forward": timing}, make_plan(BenchModelConfig(), torch.device("cpu")))
    assert row.ratio is None
    assert row.note.startswith("NOT COMPARED")


def test_difference_is_relative_to_the_largest_value(monkeypatch):
    monkeypatch.setitem(WORKS, "forward", lambda plan: lambda: torch.tensor([1.0, 10.0]))
    monkeypatch.setitem(WORKS, "plain forward", lambda plan: lambda: torch.tensor([2.0, 10.0]))
    plan = make_plan(BenchModelConfig(), torch.device("cpu"))
    assert difference("forward", "plain forward", plan) == pytest.approx(0.1)


def test_costs_of_sampling_add_up():
    plan = make_plan(BenchModelConfig(steps=5, device="cpu"), torch.device("cpu"))
    costs = Costs(plan)
    full, cached = costs.flops("forward, guided"), costs.flops("cached forward, guided")
    assert cached < full
    assert costs.flops("sampling") == 5 * full
    assert costs.flops("sampling, FreeInit") == 15 * full
    assert costs.flops("sampling, step cache") == 3 * full + 2 * cached


def test_training_on_a_gpu_holds_half_the_activations(monkeypatch):
    monkeypatch.setattr(bench, "count_bytes", lambda work: 10**9)
    plan = make_plan(BenchModelConfig(device="cpu"), torch.device("cpu"))
    on_cpu, on_gpu = (Costs(replace(plan, device=device)).bytes("training step") for device in ("cpu", "cuda"))
    assert 0.5e9 < on_gpu < 0.6e9
    assert 1e9 < on_cpu < 1.1e9


@pytest.mark.gpu
def test_a_gpu_gives_the_whole_table(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    out = tmp_path / "m.json"
    sizes = {"views": 2, "frames": 4, "image_size": 64, "steps": 2, "repeats": 2}
    assert bench_model(BenchModelConfig(preset="paper", device="cuda", out=out, **sizes)) == 0
    rows = json.loads(out.read_text())["rows"]
    assert all(row["timing"] is not None and row["bytes"] > 0 for row in rows)


def test_peak_is_measured():
    assert matmul_peak(torch.device("cpu"), torch.float32, (64, 128)) > 1e6


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own():
    plan = make_plan(BenchModelConfig(batch=2, device="cpu"), torch.device("cpu"))
    predicted = Costs(plan).bytes("training step")
    assert 0.7 * predicted < peak_bytes("training step", plan) < 2.5 * predicted
    assert peak_bytes("training loop", plan) > 0.7 * predicted
