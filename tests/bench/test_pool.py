"""The pool bench: what it draws, what it says, and one small run of it."""

import json
from pathlib import Path

import pytest

from animate4d.bench.pool import run as run_module
from animate4d.bench.pool.config import BenchPoolConfig
from animate4d.bench.pool.run import bench_pool, sleeping_rows, told
from animate4d.bench.pool.sleeper import Sleeper
from animate4d.core.errors import ConfigError
from animate4d.pipeline.config import Request

FOUND = {
    "rows": 10,
    "seconds": 3.0,
    "least_seconds": 2.0,
    "limit_seconds": 2.1,
    "ratio": 1.5,
    "utilisation": 0.6,
    "ended_once": 10,
    "failed": 0,
    "worked_again": 0,
    "holds": False,
}


@pytest.mark.parametrize(
    "changes", [{"nodes": 1}, {"gpus": 2}, {"rows": 0}, {"mean_seconds": 0.0}, {"lost_replies": 100}]
)
def test_settings_that_measure_nothing_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        BenchPoolConfig(**changes)


def test_rows_are_drawn_by_the_seed_with_the_mean_asked_for_longest_first():
    rows = sleeping_rows(BenchPoolConfig(mean_seconds=0.5), 4000)
    times = [float(row.prompt) for row in rows]
    assert times == sorted(times, reverse=True)
    assert sum(times) / len(times) == pytest.approx(0.5, rel=0.05)
    assert rows == sleeping_rows(BenchPoolConfig(mean_seconds=0.5), 4000)
    assert rows != sleeping_rows(BenchPoolConfig(mean_seconds=0.5, seed=1), 4000)
    assert len({row.id for row in rows}) == 4000


def test_a_row_asked_for_again_is_not_slept_again(tmp_path):
    request = Request(asset=Path("none.glb"), prompt="0.01")
    answers = [Sleeper().animate(request, str(tmp_path / "row")) for _ in range(2)]
    assert answers[0] == answers[1] == ({"state": "done", "receipt": {"seconds": 0.01}}, None)
    assert (tmp_path / "row.starts").read_text() == "x"


def test_what_does_not_hold_is_said():
    assert "DOES NOT HOLD" in told("makespan", FOUND)
    assert "10 of 10, 0 failed" in told("faults", FOUND | {"holds": True})


@pytest.mark.parametrize("holds", [True, False])
def test_the_exit_code_says_whether_the_limits_hold(tmp_path, monkeypatch, capsys, holds):
    """The cluster itself is run by the fault D43, in tests/bench/faults."""
    monkeypatch.setattr(run_module, "measured_apart", lambda config, part: FOUND | {"holds": holds})
    config = BenchPoolConfig(parts=("makespan",), out=tmp_path / "pool.json")
    assert bench_pool(config) == (0 if holds else 1)
    assert json.loads((tmp_path / "pool.json").read_text())["parts"]["makespan"]["ended_once"] == 10
    assert "every row ended once: 10 of 10" in capsys.readouterr().out
