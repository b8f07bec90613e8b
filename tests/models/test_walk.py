from __future__ import annotations

from dataclasses import replace

import pytest

from animate4d.models.config import paper, small, smoke
from animate4d.models.walk import kept_stops, plan_walk, stops_until

CONFIGS = [smoke(), small(), paper(), replace(paper(), layers_per_block=1)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.preset}-{config.layers_per_block}")
def test_the_decoder_takes_every_skip_of_its_own_level(config):
    stops = plan_walk(config)
    levels = {0: 0} | {stop.skip: stop.level + (stop.layer is None) for stop in stops if stop.stage == "down"}
    taken = {stop.skip: stop.level for stop in stops if stop.stage == "up" and stop.layer is not None}
    assert taken == levels
    assert list(taken) == sorted(levels, reverse=True)
    assert [stop.stage for stop in stops] == sorted((stop.stage for stop in stops), key=["down", "mid", "up"].index)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.preset}-{config.layers_per_block}")
def test_a_cached_walk_needs_only_skips_it_has_left(config):
    stops = plan_walk(config)
    layers = sum(stop.stage == "up" and stop.layer is not None for stop in stops)
    for count in range(1, layers + 1):
        kept = kept_stops(stops, count)
        left = {0} | {stop.skip for stop in kept if stop.stage == "down"}
        taken = [stop.skip for stop in kept if stop.stage == "up" and stop.layer is not None]
        assert taken == sorted(left, reverse=True) == list(range(count - 1, -1, -1))
        decoder = [stop for stop in kept if stop.stage == "up"]
        assert decoder[0].layer is not None
        assert decoder == [stop for stop in stops if stop.stage == "up"][-len(decoder) :]


def test_a_walk_to_a_tap_ends_there():
    stops = plan_walk(smoke())
    for number, stop in enumerate(stops):
        for tap in stop.taps:
            assert stops_until(stops, {tap, stops[0].taps[0]}) == stops[: number + 1]
    assert stops_until(stops, set()) == ()
