"""The stream bench: both sides do the same work, and what it says of memory and spilling is seen to move."""

import itertools
import json
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
import torch

from animate4d.bench.stream import run as bench
from animate4d.bench.stream.config import BenchStreamConfig
from animate4d.bench.stream.memory import READER_TITLE, measure_large_samples, watched_readers
from animate4d.bench.stream.shards import FRAMES, VIEWS, noise_shards, rendered_shards, stream_config
from animate4d.bench.stream.sides import DecodeItems, ours, webdataset
from animate4d.bench.stream.timing import Turn, in_turns, ratio, summary, time_batches
from animate4d.core.errors import ConfigError
from animate4d.data.store import ShardStore
from animate4d.io.shards import iterate_shard


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return rendered_shards(tmp_path_factory.mktemp("stream"), 3, 16)


@pytest.fixture(scope="module")
def config(shards):
    return stream_config(shards, 4)


def samples_of(shards):
    """What webdataset's reader hands to a decoder."""
    for path in sorted(shards.glob("*.tar")):
        for key, members in iterate_shard(path):
            yield {"__key__": key, **members}


def test_rendered_shards_hold_as_many_clips_as_asked_for(shards, config):
    assert len(ShardStore(shards).keys) == 3
    assert (config.size, config.views, config.frames, config.stride) == (16, 4, 8, 2)


def test_noise_has_the_size_asked_for_and_a_name_per_clip(tmp_path):
    shards = noise_shards(tmp_path, 3, 400_000)
    assert abs(sum(path.stat().st_size for path in shards.glob("*.tar")) / 3 / 400_000 - 1) < 0.1
    config = stream_config(shards, 2)
    with closing(ours("inprocess", config)) as stream:
        batches = list(itertools.islice(stream, 2))
    assert {name for batch in batches[:1] for name in batch.sample_ids} <= {
        f"{key}/0" for key in ShardStore(shards).keys
    }
    assert batches[0].video.shape[1:3] == (VIEWS, min(4, FRAMES))


def test_both_sides_give_the_same_items_decoded_alike(shards, config):
    theirs = {item.sample_id: item for item in itertools.islice(DecodeItems(config)(samples_of(shards)), 12)}
    with closing(ours("inprocess", config)) as stream:
        batches = list(itertools.islice(stream, 3))
    assert {name for batch in batches for name in batch.sample_ids} == set(theirs)
    for batch in batches:
        for place, name in enumerate(batch.sample_ids):
            item = theirs[name]
            # The frame that every draw has; the others are drawn by place.
            assert np.array_equal(batch.video[place, :, 0].numpy(), item.video[:, 0])
            assert batch.video.shape[1:] == item.video.shape
            assert batch.tracks.shape[1:] == item.tracks.shape
            assert batch.flow.shape[1:] == item.flow.shape


def test_webdatasets_loader_goes_round_without_end(config):
    batches = list(itertools.islice(webdataset(config), 4))
    ids = [name for batch in batches for name in batch.sample_ids]
    assert len(set(ids[:12])) == 12
    assert ids[12:] == ids[:4]
    assert batches[0].video.shape == (4, 4, 4, 3, 16, 16)
    assert isinstance(batches[0].video, torch.Tensor)


class Batch:
    sample_ids = ("a", "b")


def slow(first: float, rest: float):
    def batches():
        time.sleep(first)
        while True:
            yield Batch()
            time.sleep(rest)

    return batches


def test_the_first_batch_counts_only_in_the_whole_pass():
    turn = time_batches(slow(0.3, 0.02), 6)
    assert turn.first_s >= 0.3
    assert turn.rest_s < turn.first_s
    assert turn.whole < 12 / 0.3
    assert turn.steady == pytest.approx(10 / turn.rest_s)
    assert turn.whole == pytest.approx(12 / (turn.first_s + turn.rest_s))


def test_sides_take_turns_forwards_and_backwards():
    opened = []

    def side(name):
        def start():
            opened.append(name)
            return slow(0, 0)()

        return start

    turns = in_turns({"a": side("a"), "b": side("b")}, steps=2, rounds=3)
    assert opened == ["a", "b", "b", "a", "a", "b"]
    assert [len(found) for found in turns.values()] == [3, 3]


def turn(rate: float) -> Turn:
    return Turn(first_s=1.0, rest_s=1.0, whole=rate / 2, steady=rate)


def test_ratios_are_of_one_round_and_tables_of_medians():
    ours_, theirs = [turn(10), turn(40), turn(90)], [turn(10), turn(20), turn(30)]
    assert ratio(ours_, theirs, "steady") == 2
    found = summary(ours_)
    assert (found["steady"], found["steady_low"], found["steady_high"], found["whole"]) == (40, 25, 65, 20)
    assert summary(ours_[:1])["steady_low"] == 10


def test_memory_of_a_process_that_ray_calls_a_reader_is_seen(tmp_path):
    hold = "import sys, time; held = bytearray(60_000_000); print('ready', flush=True); sys.stdin.read()"
    command = ["bash", "-c", f'exec -a "{READER_TITLE.decode()}" {sys.executable} -c "{hold}"']
    with watched_readers() as readers:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        until = time.monotonic() + 20
        while readers.peaks.get(process.pid, 0) < 60_000_000 and time.monotonic() < until:
            time.sleep(0.01)
        process.communicate(b"")
    assert 60_000_000 <= readers.peak < 120_000_000
    with watched_readers() as nobody:
        pass
    with pytest.raises(RuntimeError, match="no reading process"):
        _ = nobody.peak


@pytest.mark.ray
def test_large_samples_pass_the_object_store_without_spilling_and_their_readers_are_measured(ray_cluster, tmp_path):
    found = measure_large_samples(tmp_path, sample_bytes=8_000_000, steps=2, store_bytes=10**9)
    assert found["spilled_bytes"] == 0
    assert found["streamed_bytes"] > 30_000_000
    assert found["store_bytes"] > 0
    assert 4_000_000 < found["target_block_bytes"] < 8_000_000
    assert found["reader_peak_bytes"] > found["reader_base_bytes"] > 50_000_000
    # Once, and once more while the next one is read; the rest is small change of the interpreter.
    assert found["reader_bytes"] < 24_000_000


@pytest.mark.ray
def test_spilling_is_seen_where_it_happens(ray_cluster):
    import ray

    from animate4d.compute.session import object_store_bytes, spilled_bytes

    before, part = spilled_bytes(), 50_000_000
    held = [ray.put(np.zeros(part, np.uint8)) for _ in range(object_store_bytes() // part + 2)]
    until = time.monotonic() + 60
    while spilled_bytes() == before and time.monotonic() < until:
        time.sleep(0.2)
    assert spilled_bytes() - before >= part
    del held


def fake(monkeypatch, holds: bool):
    def speed(config, data, report):
        report["speed"] = {"ray": summary([turn(10)]), "webdataset": summary([turn(10)])}
        report["limits"].append(bench.limit("speed", 1.1 if holds else 0.9, 1.0, at_least=True))

    def labels(config, data, report):
        report["labels"] = {"ray": {"found": summary([turn(9)]), "none": summary([turn(10)])}}
        report["labels"]["ray"] |= {"first_epoch_s": 1.0, "items": 3, "ratio": 1.0}

    def memory(config, folder, report):
        names = ("sample", "streamed", "target_block", "store", "spilled", "reader_base", "reader_peak", "reader")
        report["memory"] = {f"{name}_bytes": 10**6 for name in names} | {"ratio": 1.0}
        report["limits"].append(bench.limit("spilled", 0, 0, at_least=False))

    monkeypatch.setattr(bench, "measure_speed", speed)
    monkeypatch.setattr(bench, "measure_labels", labels)
    monkeypatch.setattr(bench, "measure_memory", memory)


@pytest.mark.ray
@pytest.mark.parametrize("holds", [True, False])
def test_limits_are_printed_and_decide_the_exit_code(ray_cluster, shards, tmp_path, monkeypatch, capsys, holds):
    fake(monkeypatch, holds)
    assert bench.bench_stream(BenchStreamConfig(data=shards, out=tmp_path / "stream.json")) == (0 if holds else 1)
    printed = capsys.readouterr().out
    assert ("DOES NOT HOLD" in printed) != holds
    assert "webdataset" in printed
    assert "through a store of 1 MB" in " ".join(printed.split())
    written = json.loads((tmp_path / "stream.json").read_text())
    assert [entry["holds"] for entry in written["limits"]] == [holds, True]
    assert written["machine"]["cpu"]


@pytest.mark.ray
@pytest.mark.slow
def test_the_whole_bench_runs_on_shards_of_its_own(ray_cluster, tmp_path, capsys):
    config = BenchStreamConfig(
        clips=2, size=16, steps=3, rounds=1, sample_mb=0.5, large_steps=2, out=tmp_path / "stream.json"
    )
    assert bench.bench_stream(config) in (0, 1)  # what a busy machine makes of times is no matter of a test
    written = json.loads((tmp_path / "stream.json").read_text())
    assert set(written["speed"]) == {"ray", "inprocess", "webdataset"}
    assert {loader: written["labels"][loader]["items"] for loader in ("ray", "inprocess")} == {"ray": 8, "inprocess": 8}
    assert len(written["limits"]) == 6
    assert written["memory"]["spilled_bytes"] == 0


@pytest.mark.parametrize("wrong", [{"steps": 1}, {"size": 17}, {"sample_mb": 0.0}, {"store_mb": 10}, {"rounds": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BenchStreamConfig(**wrong)
