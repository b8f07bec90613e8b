"""The pool on a real Ray, with workers whose behaviour each row's prompt decides."""

import contextlib
import os
import time
from pathlib import Path

import pytest
import ray

from animate4d.batch.manifest import ManifestRow
from animate4d.batch.pool import Ended, Pool, PoolPlan, Shrunk, Started, Waiting, pool_size
from animate4d.core.errors import ClusterError, ModelError
from animate4d.pipeline.config import Request

pytestmark = pytest.mark.ray


def make_actor():
    # Defined inside a function so that Ray sends it by value: workers cannot import test modules.
    class Actor:
        def prepare(self, model, version, threads):
            if version == "die":
                os._exit(1)
            if version == "no-model":
                return {"state": "failed", "kind": "bad input", "message": "model weights not found", "trace": ""}
            return {"state": "done"}

        def animate(self, request, folder):
            word, _, rest = request.prompt.partition(" ")
            marks = Path(folder).parent / f"{Path(folder).name}.starts"
            with open(marks, "a") as stream:
                stream.write("x")
            if word == "die" and len(marks.read_text()) <= int(rest):
                os._exit(1)
            if word == "large" and (rest == "always" or request.options.fit != "draft"):
                return {"state": "failed", "kind": "resource", "message": "ran out of memory", "trace": ""}
            if word == "hang":
                time.sleep(600)
            if word == "bad":
                return {"state": "failed", "kind": "bad input", "message": "empty file", "trace": ""}
            return {"state": "done", "receipt": {"worker": os.getpid()}}

        def stage(self):
            return "fit"

    return Actor


def rows(*prompts):
    return [
        ManifestRow(
            line=number + 2,
            id=f"row{number}",
            asset="a.glb",
            prompt=prompt,
            request=Request(asset=Path("a.glb"), prompt=prompt),
        )
        for number, prompt in enumerate(prompts)
    ]


def plan(**changes):
    facts = {
        "workers": 1,
        "cpus": 0,
        "gpus": 0,
        "model": None,
        "version": "",
        "retries": 2,
        "row_seconds": 60.0,
    }
    return PoolPlan(**(facts | changes))


@pytest.fixture
def run_pool(ray_cluster, tmp_path):

    def run(wanted, **changes):
        with contextlib.closing(Pool(plan(**changes), tmp_path, make_actor())) as pool:
            return list(pool.run(wanted))

    return run


def outcomes(events):
    return {event.row.id: event for event in events if isinstance(event, Ended)}


def test_every_row_ends_once_and_a_worker_serves_many(run_pool):
    wanted = rows("a", "bad", "b", "c")
    events = run_pool(wanted)
    ended = [event.row.id for event in events if isinstance(event, Ended)]
    assert sorted(ended) == [row.id for row in wanted]
    assert outcomes(events)["row1"].outcome["kind"] == "bad input"
    assert sum(isinstance(event, Started) for event in events) == 4
    workers = {event.outcome["receipt"]["worker"] for event in outcomes(events).values() if event.row.prompt != "bad"}
    assert len(workers) == 1


def test_a_row_starts_over_after_its_worker_died_and_the_others_do_not_notice(run_pool, tmp_path):
    events = run_pool(rows("die 2", "a"))
    assert outcomes(events)["row0"].outcome["state"] == "done"
    assert outcomes(events)["row0"].attempt == 3
    assert outcomes(events)["row1"].attempt == 1
    assert (tmp_path / "row1.starts").read_text() == "x"


def test_a_row_that_always_kills_its_worker_fails_and_the_pool_stays_healthy(run_pool, tmp_path):
    events = run_pool(rows("die 99", "a"), retries=1)
    outcome = outcomes(events)["row0"].outcome
    assert outcome["kind"] == "infrastructure"
    assert "worker process died 2 times" in outcome["message"]
    assert (tmp_path / "row0.starts").read_text() == "xx"
    assert outcomes(events)["row1"].outcome["state"] == "done"


def test_a_row_that_hangs_is_stopped_and_its_place_used_again(run_pool):
    events = run_pool(rows("hang", "a"), row_seconds=3.0)
    assert "took longer than 0.05 minutes" in outcomes(events)["row0"].outcome["message"]
    assert outcomes(events)["row1"].outcome["state"] == "done"
    assert any(isinstance(event, Waiting) and "row0" in event.running for event in events)


def test_a_row_that_ran_out_of_memory_asks_for_less_once_of_a_fresh_worker(run_pool, tmp_path):
    events = run_pool(rows("large", "a"))
    assert [event.row.request.options.fit for event in events if isinstance(event, Shrunk)] == ["draft"]
    ended = outcomes(events)
    assert ended["row0"].outcome["state"] == "done"
    assert ended["row0"].row.request.options.fit == "draft"
    assert ended["row1"].row.request.options.fit == "standard"


def test_a_row_that_always_runs_out_of_memory_fails_and_the_pool_stays_healthy(run_pool, tmp_path):
    ended = outcomes(run_pool(rows("large always", "a")))
    assert ended["row0"].outcome["kind"] == "resource"
    assert (tmp_path / "row0.starts").read_text() == "xx"
    assert ended["row1"].outcome["state"] == "done"


def test_bad_input_is_not_tried_again(run_pool, tmp_path):
    run_pool(rows("bad"))
    assert (tmp_path / "row0.starts").read_text() == "x"


def test_a_model_that_cannot_be_loaded_ends_the_batch_with_its_message(run_pool):
    with pytest.raises(ModelError, match="model weights not found"):
        run_pool(rows("a"), version="no-model")


def test_workers_that_die_while_starting_end_the_batch(run_pool):
    with pytest.raises(ClusterError, match="died while starting"):
        run_pool(rows("a"), version="die")


def test_closing_ends_workers_in_the_middle_of_a_call(ray_cluster, tmp_path):
    pool = Pool(plan(), tmp_path, make_actor())
    for event in pool.run(rows("hang")):
        if isinstance(event, Waiting) and event.running:
            assert pool.stage("row0") == "fit"
            break
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 5


def test_the_pool_is_no_larger_than_the_cluster_or_the_work(ray_cluster):
    cpus = int(ray.cluster_resources()["CPU"])
    assert pool_size(None, 100)[0] == cpus
    assert pool_size(1, 100)[0] == 1
    assert pool_size(50, 100)[0] == cpus
    assert pool_size(None, 1)[0] == 1
