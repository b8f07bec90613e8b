"""Our training loop and the plain one do the same maths."""

import pytest
import torch

from animate4d.bench.clock import measure, summary
from animate4d.bench.loops import BATCHES, PlainTraining, compare_loops
from animate4d.bench.works import training_plan


def test_both_loops_take_the_same_steps_from_the_same_start(make_plan, tiny):
    plan = training_plan(make_plan(tiny, clips=2))
    result = compare_loops(plan, blocks=2, steps=2)
    assert result.difference < 1e-4
    assert result.ours.runs == result.plain.runs == 1


def test_the_plain_loop_learns(make_plan, tiny):
    if tiny.preset != "smoke":
        pytest.skip("the published rate moves nothing in a few steps")
    plain = PlainTraining(training_plan(make_plan(tiny, clips=2)), steps=40)
    for _ in range(12 * BATCHES):
        plain.step()
    assert sum(plain.losses[-BATCHES:]) < 0.9 * sum(plain.losses[:BATCHES])


def test_candidates_run_in_turns_and_warm_up_is_not_counted():
    order = []
    timings = measure(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        device=torch.device("cpu"),
        repeats=3,
        warmup=1,
    )
    assert order == ["a", "b", "b", "a"] * 2
    assert timings["a"].runs == 3


def test_summary_is_the_median_with_quartiles():
    timing = summary([(float(value), 10.0 * value) for value in (5, 1, 2, 100, 3)], on_cpu=True)
    assert (timing.ms, timing.low, timing.high, timing.cpu_ms) == (3, 2, 5, 30)
