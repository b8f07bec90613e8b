"""The pool on a real Ray, with workers whose behaviour each row's prompt decides."""

import contextlib
import os
import time
from pathlib import Path

import pytest
import ray
from ray.exceptions import ActorUnavailableError

from animate4d.batch.manifest import ManifestRow
from animate4d.batch.places import Places
from animate4d.batch.pool import Ended, Pool, PoolPlan, Shrunk, Started, Waiting
from animate4d.core.errors import ClusterError, ModelError
from animate4d.pipeline.config import Request

pytestmark = pytest.mark.ray


def make_actor():
    # Defined inside a function so that Ray sends it by value: workers cannot import test modules.
    class Actor:
        def prepare(self, model, version, threads, on_gpu):
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
                return {"state": "failed", "kind": "resource", "message": "ran out of memory", "trace": ""}, None
            if word == "hang":
                time.sleep(600)
            if word == "bad":
                return {"state": "failed", "kind": "bad input", "message": "empty file", "trace": ""}, None
            return {"state": "done", "receipt": {"worker": os.getpid()}}, None

        def begin(self, request, folder):
            word, _, rest = request.prompt.partition(" ")
            steps = Path(f"{folder}.steps")
            with open(steps, "a") as stream:
                stream.write("b")
            if word == "begin-dies" and steps.read_text().count("b") <= int(rest):
                os._exit(1)
            if word == "bad":
                return {"state": "failed", "kind": "bad input", "message": "empty file", "trace": ""}, None
            return {"state": "fit" if word == "own" else "imagine"}, [os.getpid()]

        def imagine(self, request, folder, work):
            word = request.prompt
            if word == "large" and request.options.fit != "draft":
                return {"state": "failed", "kind": "resource", "message": "ran out of memory", "trace": ""}, None
            died = Path(f"{folder}.died")
            if word == "imagine-dies" and not died.exists():
                died.touch()
                os._exit(1)
            if word == "imagine-hangs":
                time.sleep(600)
            return {"state": "fit"}, [*work, os.getpid()]

        def fit(self, request, folder, work):
            word, _, rest = request.prompt.partition(" ")
            with open(f"{folder}.steps", "a") as stream:
                stream.write("f")
            steps = Path(f"{folder}.steps").read_text()
            if word == "fit-hangs":
                time.sleep(600)
            if word == "fit-dies" and steps.count("f") <= int(rest):
                os._exit(1)
            if word == "clips" and steps.count("f") < int(rest):
                return {"state": "imagine"}, work
            return {"state": "done", "receipt": {"pids": work}}, None

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


ALONE = Places(workers=1, cpus=0, gpus=0)
SPLIT = Places(workers=1, cpus=0, gpus=0, helpers=1)


def plan(**changes):
    facts = {
        "places": ALONE,
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
        if isinstance(event, Waiting) and pool.stages() == {"row0": "fit"}:
            assert set(event.running) == {"row0"}
            break
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 5


def test_split_rows_are_imagined_by_one_worker_and_the_rest_is_done_by_others(run_pool, tmp_path):
    wanted = rows("a", "bad", "own", "clips 3", "b")
    ended = outcomes(run_pool(wanted, places=SPLIT))
    assert set(ended) == {row.id for row in wanted}
    assert ended["row1"].outcome["kind"] == "bad input"
    works = {name: event.outcome["receipt"]["pids"] for name, event in ended.items() if name != "row1"}
    assert len(works["row2"]) == 1, "its own clip needs no worker"
    workers = {pid for work in works.values() for pid in work[1:]}
    assert len(workers) == 1
    assert workers.isdisjoint(work[0] for work in works.values())
    assert len(works["row3"]) == 4
    assert (tmp_path / "row3.steps").read_text() == "bfff"


@pytest.mark.parametrize(("prompt", "steps"), [("begin-dies 1", "bbf"), ("fit-dies 1", "bff"), ("imagine-dies", "bf")])
def test_a_split_row_does_the_step_again_whose_process_died(run_pool, tmp_path, prompt, steps):
    events = run_pool(rows(prompt, "a"), places=SPLIT)
    started = [(event.step, event.attempt) for event in events if isinstance(event, Started) and event.row.id == "row0"]
    assert started == [("begin", 1), (prompt.partition("-")[0], 2)]
    ended = outcomes(events)
    assert (ended["row0"].outcome["state"], ended["row0"].attempt) == ("done", 2)
    assert (tmp_path / "row0.steps").read_text() == steps
    assert (tmp_path / "row1.steps").read_text() == "bf"


def test_a_split_row_that_always_dies_fails(run_pool, tmp_path):
    outcome = outcomes(run_pool(rows("fit-dies 99"), places=SPLIT, retries=1))["row0"].outcome
    assert "worker process died 2 times" in outcome["message"]
    assert (tmp_path / "row0.steps").read_text() == "bff"


@pytest.mark.parametrize("prompt", ["imagine-hangs", "fit-hangs"])
def test_a_split_row_that_hangs_is_stopped_where_it_is(run_pool, prompt):
    ended = outcomes(run_pool(rows(prompt, "a"), places=SPLIT, row_seconds=3.0))
    assert "took longer than" in ended["row0"].outcome["message"]
    assert ended["row1"].outcome["state"] == "done"


def test_a_split_row_that_ran_out_of_memory_asks_for_less(run_pool, tmp_path):
    events = run_pool(rows("large"), places=SPLIT)
    assert [event.row.request.options.fit for event in events if isinstance(event, Shrunk)] == ["draft"]
    assert outcomes(events)["row0"].outcome["state"] == "done"


def test_an_answer_that_is_lost_is_asked_for_again(run_pool, monkeypatch):
    lost, get = [], ray.get

    def lossy(call, **settings):
        answer = get(call, **settings)
        if isinstance(answer, dict) and answer["state"] == "fit" and len(lost) < 2:
            lost.append(call)
            raise ActorUnavailableError("the answer was lost", None)
        return answer

    monkeypatch.setattr("animate4d.batch.pool.ray.get", lossy)
    ended = outcomes(run_pool(rows("a", "b", "c"), places=SPLIT))
    assert len(lost) == 2
    assert {event.outcome["state"] for event in ended.values()} == {"done"}
    assert sum(event.attempt - 1 for event in ended.values()) == 2


def test_a_running_row_tells_its_stage(ray_cluster, tmp_path):
    with contextlib.closing(Pool(plan(places=SPLIT), tmp_path, make_actor())) as pool:
        for event in pool.run(rows("fit-hangs")):
            if isinstance(event, Waiting) and (tmp_path / "row0.steps").exists() and pool.stages() == {"row0": "fit"}:
                assert set(event.running) == {"row0"}
                break
