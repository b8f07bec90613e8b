"""The worker without Ray: jobs that are done, stopped, late, put back or poisonous, or lose their generator (D51)."""

import asyncio
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from ray.exceptions import ActorDiedError

from animate4d.core.errors import AssetError, ModelError
from animate4d.pipeline.stage_report import Cancelled
from animate4d.serve import animator
from animate4d.serve.animator import Worker

JOB = {"prompt": "a box bouncing", "seed": 0}


@pytest.fixture
def worker(store):
    return Worker(None, str(store.root), 1, 3600.0)


@pytest.fixture
def job(store, glb):
    made = store.create(JOB, "box.glb")
    store.receive(made, glb)
    store.save(made)
    return made.id


@pytest.fixture
def pipeline(monkeypatch):
    """Returns a function that puts a stand-in at the place of the pipeline."""

    def put(work):
        def stand_in(request, model, out, *, progress, cancelled, show):
            work(out, progress, cancelled, show)

        monkeypatch.setattr(animator, "animate", stand_in)

    return put


def until_cancelled(_out, _progress, cancelled, _show):
    end = time.monotonic() + 30
    while not cancelled():
        assert time.monotonic() < end
        time.sleep(0.01)
    raise Cancelled


def run(worker, job):
    asyncio.run(worker.animate(job))


def test_done_with_files_progress_and_preview(worker, store, job, pipeline):
    seen = []

    def work(out, progress, _cancelled, show):
        progress("video", 0.2)
        show(np.tile(np.arange(3, dtype=np.uint8)[:, None, None, None] * 90, (4, 1, 16, 16, 3)))
        seen.append(store.find(job))
        out.mkdir()
        (out / "animated.glb").write_bytes(b"glTF")

    pipeline(work)
    run(worker, job)
    assert [(now.state, now.stage, now.preview, now.attempts) for now in seen] == [("running", "video", 1, 1)]
    ended = store.find(job)
    assert (ended.state, ended.progress, [file.name for file in ended.files]) == ("done", 1.0, ["animated.glb"])
    assert ended.ended >= ended.started > 0
    with Image.open(store.folder(job) / "preview.webp") as picture:
        assert (picture.n_frames, picture.size) == (3, (34, 34))


def test_failures_are_one_line_and_the_worker_goes_on(worker, store, job, pipeline, glb):
    def bad(*_):
        raise AssetError(f"{store.folder(job)}/box.glb: has no faces")

    pipeline(bad)
    run(worker, job)
    assert (store.find(job).state, store.find(job).error) == ("failed", "box.glb: has no faces")
    other = store.create(JOB, "box.glb")
    store.receive(other, glb)
    store.save(other)

    def broken(*_):
        raise RuntimeError("secret path /etc")

    pipeline(broken)
    run(worker, other.id)
    assert (store.find(other.id).state, store.find(other.id).error[:18]) == ("failed", "the service failed")


def test_cancelled_before_and_while_it_runs(worker, store, job, pipeline, glb):
    pipeline(until_cancelled)
    thread = threading.Thread(target=run, args=(worker, job))
    thread.start()
    while store.find(job).state != "running":
        time.sleep(0.01)
    store.cancel(job)
    thread.join(30)
    assert store.find(job).state == "cancelled"
    waiting = store.create(JOB, "box.glb")
    store.receive(waiting, glb)
    store.save(waiting)
    store.cancel(waiting.id)
    run(worker, waiting.id)
    assert (store.find(waiting.id).state, store.find(waiting.id).attempts) == ("cancelled", 0)


def test_a_job_that_takes_too_long_fails(store, job, pipeline):
    pipeline(until_cancelled)
    run(Worker(None, str(store.root), 1, 0.05), job)
    assert (store.find(job).state, "longer than" in store.find(job).error) == ("failed", True)


def test_draining_puts_the_running_job_back_and_begins_none(worker, store, job, pipeline):
    pipeline(until_cancelled)
    thread = threading.Thread(target=run, args=(worker, job))
    thread.start()
    while store.find(job).state != "running":
        time.sleep(0.01)
    assert store.is_claimed(job)
    store.drain(time.time() + 0.1)
    thread.join(30)
    assert (store.find(job).state, store.find(job).attempts, store.is_claimed(job)) == ("queued", 0, False)
    run(worker, job)
    assert store.find(job).state == "queued"
    store.open_again()
    pipeline(lambda out, *_: out.mkdir())
    run(worker, job)
    assert store.find(job).state == "done"


def test_a_job_on_which_two_workers_died_is_not_begun_again(worker, store, job, pipeline):
    store.update(job, state="queued", attempts=2)
    pipeline(lambda *_: pytest.fail("begun a third time"))
    run(worker, job)
    assert (store.find(job).state, "died 2 times" in store.find(job).error) == ("failed", True)


def test_a_job_without_a_model_goes_back_and_one_whose_generator_died_is_begun_again(worker, store, job, pipeline):
    def away(*_):
        raise ModelError("the model cannot be loaded: no model folder")

    pipeline(away)
    with pytest.raises(ModelError):
        run(worker, job)
    assert (store.find(job).state, store.find(job).attempts) == ("queued", 0)

    def lost(*_):
        raise ActorDiedError

    pipeline(lost)
    with pytest.raises(ActorDiedError):
        run(worker, job)
    assert (store.find(job).is_open, store.find(job).attempts) == (True, 1)
    pipeline(lambda out, *_: out.mkdir())
    run(worker, job)
    assert (store.find(job).state, store.find(job).attempts) == ("done", 2)


HOLD = """
import sys
from pathlib import Path
from animate4d.serve.job_store import JobStore
with JobStore(Path(sys.argv[1])).claim(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_job_is_worked_on_by_one_process_until_that_dies(worker, store, job, pipeline):
    command = [sys.executable, "-c", HOLD, store.root, job]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        assert store.is_claimed(job)
        begun = threading.Event()
        pipeline(lambda out, *_: (begun.set(), out.mkdir()))
        thread = threading.Thread(target=run, args=(worker, job))
        thread.start()
        assert not begun.wait(0.3)
        other.kill()
        thread.join(30)
    assert begun.is_set()
    assert store.find(job).state == "done"


def test_a_worker_needs_no_network():
    code = "import sys, animate4d.serve.animator; assert not {'diffusers', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
