"""The kernel bench compares like with like, and says when it cannot."""

import json
from dataclasses import replace

import pytest
import torch

from animate4d.bench import kernels
from animate4d.bench.kernels import bench_kernels, compare, field_works, run_kernels
from animate4d.bench.kernels_config import BenchKernelsConfig
from animate4d.core.errors import ConfigError, ToolError
from animate4d.fourd.field_config import FieldConfig, PlaneConfig

TINY = BenchKernelsConfig(splats=60, size=16, views=1, points=50, frames=2, repeats=2, warmup=0)


def test_every_kernel_is_measured_beside_its_twin(tmp_path, capsys):
    config = replace(TINY, out=tmp_path / "kernels.json")
    assert bench_kernels(config) == 0
    told = json.loads(config.out.read_text())
    assert [row["name"] for row in told["rows"]] == [
        "splats, 60 in 1 x 16 px",
        "field, 50 x 2, one scale",
        "field, 50 x 2, two scales",
    ]
    for row in told["rows"]:
        assert row["native"]["runs"] == row["torch"]["runs"] == 2
        assert row["ratio"] > 0
        assert row["difference"] < 2e-3
    assert told["settings"]["points"] == 50
    printed = capsys.readouterr().out
    assert "two scales" in printed
    assert "ratio" in printed


def test_a_kernel_that_differs_from_its_twin_has_no_ratio():
    works = field_works(TINY, FieldConfig(planes=(PlaneConfig(side=5, steps=3, channels=8),)))
    wrong = {"native": lambda: [1.01 * tensor for tensor in works["native"]()], "torch": works["torch"]}
    with pytest.raises(ToolError, match=r"field: the C kernel and plain torch differ by 1\.0e-02"):
        compare("field", wrong, TINY)
    with pytest.raises(ToolError, match="differ by nan"):
        compare("field", {"native": lambda: [torch.full((2,), float("nan"))], "torch": lambda: [torch.ones(2)]}, TINY)


def test_without_a_compiler_there_is_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(kernels.native, "load", lambda: None)
    with pytest.raises(ToolError, match="install a C compiler"):
        bench_kernels(TINY)


def test_threads_are_given_back(tmp_path):
    before = torch.get_num_threads()
    bench_kernels(replace(TINY, threads=before + 1, repeats=1, out=tmp_path / "k.json"))
    assert torch.get_num_threads() == before
    assert len(run_kernels(replace(TINY, repeats=1))) == 3


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match="points is 0: give a whole number >= 1"):
        BenchKernelsConfig(points=0)
