"""Clocks inside trainings: which steps are counted, and what passing on costs."""

import json
import time
from pathlib import Path

import pytest

from animate4d.bench import training_runs
from animate4d.bench.training_runs import ClockedStream, Run, TimedObserver, clock_note, run_side_by_side
from animate4d.core.errors import ConfigError
from animate4d.data.order import Cursor


class Stream:
    skipped = {"a": "damaged"}  # noqa: RUF012

    def __init__(self):
        self.closed = False

    def batches(self, start):
        try:
            for number in range(start.position, 100):
                yield number, Cursor(0, number + 1)
        finally:
            self.closed = True


def test_a_clocked_stream_gives_the_same_batches_and_notes_every_request(tmp_path):
    stream = Stream()
    clocked = ClockedStream(stream, clock_note(tmp_path, 1))
    batches = clocked.batches(Cursor(0, 5))
    assert [next(batches)[0] for _ in range(3)] == [5, 6, 7]
    assert clocked.skipped == stream.skipped
    batches.close()
    assert stream.closed
    ticks = json.loads((tmp_path / "clock-rank-01.json").read_text())
    assert len(ticks) == 3
    assert ticks == sorted(ticks)


def test_a_step_is_from_one_request_to_the_next_with_the_cpu_time_of_all_workers():
    clocks = [[(0.0, 0.0), (0.5, 0.4), (1.5, 1.0)], [(0.1, 2.0), (0.6, 2.3), (1.6, 3.0)]]
    run = Run(clocks=clocks, rows=[])
    assert run.steps() == [pytest.approx((500, 700)), pytest.approx((1000, 1300))]


def test_the_wait_for_data_is_weighted_by_how_long_steps_took():
    rows = [{"samples_per_second": 4.0, "data_wait_share": 0.0}, {"samples_per_second": 1.0, "data_wait_share": 0.5}]
    assert Run(clocks=[], rows=rows).data_wait == pytest.approx(0.5 * 4 / 5)


def test_side_by_side_counts_only_steps_during_which_all_trained(monkeypatch):
    ticks = {"early": [(t, 10 * t) for t in (0.0, 1.0, 2.0, 3.0)], "late": [(t, 10 * t) for t in (0.9, 2.9, 4.9)]}
    monkeypatch.setattr(training_runs, "run_training", lambda name, warmup: Run(clocks=[ticks[name]], rows=[]))
    # Both ran from 0.9 to 3.0: two steps of the first and one of the second.
    assert run_side_by_side(["early", "late"], 0) == [pytest.approx((1500, 30_000))]


def test_trainings_that_never_ran_together_say_nothing(monkeypatch):
    ticks = {"first": [(0.0, 0.0), (1.0, 1.0)], "second": [(2.0, 0.0), (3.0, 1.0)]}
    monkeypatch.setattr(training_runs, "run_training", lambda name, warmup: Run(clocks=[ticks[name]], rows=[]))
    with pytest.raises(ConfigError, match="more --steps"):
        run_side_by_side(["first", "second"], 0)


def test_one_of_several_that_fails_is_not_lost(monkeypatch):
    def run(name, warmup):
        if name == "bad":
            raise ValueError("no shards")
        return Run(clocks=[[(0.0, 0.0), (1.0, 1.0)]], rows=[])

    monkeypatch.setattr(training_runs, "run_training", run)
    with pytest.raises(ValueError, match="no shards"):
        run_side_by_side(["good", "bad"], 0)


def test_an_observers_work_is_a_share_of_the_time_between_first_and_last_rows():
    heard = []

    class Busy:
        def started(self, start):
            heard.append(start)

        def progressed(self, rows):
            heard.append(rows)
            until = time.thread_time() + 0.01
            while time.thread_time() < until:
                pass

        def drew(self, image, step):
            heard.append(step)

        def ended(self, result, error):
            heard.append(error)

    observer = TimedObserver(Busy())
    observer.started("start")
    for _ in range(3):
        observer.progressed(["row"])
        time.sleep(0.05)
    observer.drew(Path("grid.png"), 7)
    observer.ended(None, "error")
    assert heard == ["start", ["row"], ["row"], ["row"], 7, "error"]
    assert observer.seconds["progressed"][1] >= 0.03
    assert 0 < observer.share < 1
