"""Every fault of the list happens for real and costs no more than is documented, and than it did before."""

from pathlib import Path

import pytest

from animate4d.bench.faults.report import KEPT, read_table, worse
from animate4d.bench.faults.run import SCENARIOS, happen

ROOT = Path(__file__).resolve().parents[3]

PLAIN = [
    pytest.param(name, marks=[pytest.mark.slow] if entry.unit == "steps" else [])  # whole trainings
    for name, entry in SCENARIOS.items()
    if not entry.needs_ray
]
WITH_RAY = [name for name, entry in SCENARIOS.items() if entry.needs_ray]


@pytest.fixture(scope="module")
def kept():
    return read_table(ROOT / KEPT)


def check(name, bench, kept):
    row = happen(SCENARIOS[name], bench)
    assert not row.problems
    assert not worse(row, kept)


@pytest.mark.parametrize("name", PLAIN)
def test_fault(name, bench, kept):
    check(name, bench, kept)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_RAY)
def test_fault_under_ray(name, bench, kept, ray_cluster):
    check(name, bench, kept)
