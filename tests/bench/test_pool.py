"""The pool bench: what it draws, what it says, and one small run of it."""

import json
from pathlib import Path

import pytest

from animate4d.bench.pool.config import BenchPoolConfig
from animate4d.bench.pool.run import bench_pool, sleeping_rows, told
from animate4d.bench.pool.sleeper import Sleeper
from animate4d.core.errors import ConfigError
from animate4d.pipeline.config import Request


@pytest.mark.parametrize(
    "changes", [{"nodes": 1}, {"gpus": 2}, {"rows": 0}, {"mean_seconds": 0.0}, {"lost_replies": 100}]
)
def test_settings_that_measure_nothing_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        BenchPoolConfig(**changes)


def test_rows_are_drawn_by_the_seed_with_the_mean_asked_for_longest_first():
    rows = sleeping_rows(BenchPoolConfig(rows=4000, mean_seconds=0.5))
    times = [float(row.prompt) for row in rows]
    assert times == sorted(times, reverse=True)
    assert sum(times) / len(times) == pytest.approx(0.5, rel=0.05)
    assert rows == sleeping_rows(BenchPoolConfig(rows=4000, mean_seconds=0.5))
    assert rows != sleeping_rows(BenchPoolConfig(rows=4000, mean_seconds=0.5, seed=1))
    assert len({row.id for row in rows}) == 4000


def test_a_row_asked_for_again_is_not_slept_again(tmp_path):
    request = Request(asset=Path("none.glb"), prompt="0.01")
    answers = [Sleeper().animate(request, str(tmp_path / "row")) for _ in range(2)]
    assert answers[0] == answers[1]
    assert (tmp_path / "row.starts").read_text() == "x"


def test_what_does_not_hold_is_said():
    found = {
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
    assert "DOES NOT HOLD" in told("makespan", found)
    assert "10 of 10, 0 failed" in told("faults", found | {"holds": True})


@pytest.mark.ray
@pytest.mark.slow
def test_a_small_run_ends_every_row_once(tmp_path, capsys):
    config = BenchPoolConfig(
        rows=12, nodes=2, gpus=2, mean_seconds=0.05, parts=("makespan",), out=tmp_path / "pool.json"
    )
    bench_pool(config)
    found = json.loads((tmp_path / "pool.json").read_text())["parts"]["makespan"]
    assert (found["ended_once"], found["failed"], found["worked_again"]) == (12, 0, 0)
    assert 0 < found["utilisation"] <= 1
    assert found["seconds"] >= found["least_seconds"]
    assert "every row ended once: 12 of 12" in capsys.readouterr().out
