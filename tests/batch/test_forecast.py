import itertools
import random
from pathlib import Path

import pytest

from animate4d.batch.forecast import SECONDS, Forecaster, duration, longest_first, makespan, makespan_bound
from animate4d.pipeline.config import AnimateOptions, Request


def request(**options):
    return Request(asset=Path("a.glb"), prompt="p", video="ground-truth", options=AnimateOptions(**options))


def receipt(seconds, *, frames=16, size=1000, video="ground-truth", **options):
    asked = {"fit": "standard", "clips": 1, "frames": frames, "formats": ["default"]} | options
    return {
        "request": {"options": asked, "video": video},
        "seconds": {"fit": seconds},
        "files": {"animated.glb": {"bytes": size}},
    }


def test_without_results_the_table_speaks_and_longer_clips_take_longer():
    forecaster = Forecaster()
    one = forecaster.row(request(fit="draft"))
    assert (one.seconds, one.measured) == (SECONDS["ground-truth", "draft"], False)
    assert forecaster.row(request(fit="draft", clips=3)).seconds == 3 * one.seconds
    assert forecaster.row(request(fit="draft", frames=31)).seconds == 2 * one.seconds
    assert forecaster.row(request(fit="standard")).seconds > one.seconds


def test_results_of_this_folder_replace_the_table_for_their_preset():
    forecaster = Forecaster([receipt(10.0), receipt(30.0, frames=31, size=4000), receipt(14.0)])
    found = forecaster.row(request())
    assert (found.seconds, found.bytes, found.measured) == (14.0, 1000.0, True)
    assert not forecaster.row(request(fit="draft")).measured
    forecaster.learn(receipt(20.0, video="generated", frames=2, clips=2))
    generated = Request(asset=Path("a.glb"), prompt="p", options=AnimateOptions(clips=3))
    assert forecaster.row(generated).seconds == 30.0, "frames mean nothing to a generated clip"


@pytest.mark.parametrize("seed", range(5))
def test_longest_first_stays_within_a_third_of_the_best_order(seed):
    dice = random.Random(seed)
    times = [dice.uniform(1, 10) for _ in range(6)]
    best = min(
        max(sum(time for time, place in zip(times, places, strict=True) if place == worker) for worker in range(2))
        for places in itertools.product(range(2), repeat=6)
    )
    found = makespan(times, 2)
    assert makespan_bound(times, 2) <= best <= found <= (4 / 3 - 1 / 6) * best + 1e-9  # Graham's bound for two machines
    assert [times[place] for place in longest_first(times)] == sorted(times, reverse=True)


def test_times_are_said_as_people_say_them():
    assert [duration(seconds) for seconds in (9, 99, 150, 5990, 7300)] == [
        "9 s",
        "99 s",
        "2 min",
        "1 h 40 min",
        "2 h 2 min",
    ]
