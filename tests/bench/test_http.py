"""The HTTP bench end to end on a few requests: both parts are there, and it counts what happened (fault D50)."""

import json

import pytest

from animate4d.bench.http import bench_http, measure_overload
from animate4d.bench.http_config import BenchHttpConfig
from animate4d.core.errors import ConfigError


def test_it_measures_both_sides_and_writes_the_numbers(tmp_path, capsys):
    out = tmp_path / "http.json"
    bench_http(BenchHttpConfig(megabytes=0.01, requests=3, warmup=1, jobs=12, job_ms=5, queue=4, out=out))
    report = json.loads(out.read_text())
    overhead = report["overhead"]
    assert overhead["plain"]["runs"] == overhead["service"]["runs"] == 3
    assert overhead["added_ms"] == pytest.approx(overhead["service"]["ms"] - overhead["plain"]["ms"], abs=0.002)
    assert len(report["limits"]) == 3
    assert "added" in capsys.readouterr().out


def test_overload_refuses_with_a_time_and_loses_nothing(tmp_path):
    config = BenchHttpConfig(jobs=40, job_ms=60, queue=2)
    found = measure_overload(config, tmp_path / "jobs")
    assert sum(found["answers"].values()) == 40
    assert found["answers"]["429"] > 5
    assert found["done"] == found["answers"]["202"] > 2
    assert (found["lost"], found["refused_badly"]) == (0, 0)


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match="megabytes"):
        BenchHttpConfig(megabytes=0)
    with pytest.raises(ConfigError, match="queue"):
        BenchHttpConfig(queue=0)
