"""A job that waits for a video from another process: it hears of its steps, can stop, and learns what went wrong."""

import asyncio
import threading

import numpy as np
import pytest

from animate4d.core.cameras import Rig
from animate4d.core.errors import ConfigError
from animate4d.models.sampler_config import SamplerConfig
from animate4d.pipeline.stage_report import Cancelled
from animate4d.serve import shared_model
from animate4d.serve.generator import Generator
from animate4d.serve.shared_model import SharedModel

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 4), dtype=np.uint8)


@pytest.fixture(autouse=True)
def look_often(monkeypatch):
    monkeypatch.setattr(shared_model, "LOOK_SECONDS", 0.02)


def video(model, progress=lambda done, steps: None, frames=FRAMES):
    return model.video(frames, Rig.even(2), "a box", seed=1, config=SamplerConfig(steps=2), progress=progress)


class Stuck:
    """A generator that works until it is cancelled."""

    def __init__(self):
        self.orders, self.left, self.done = [], threading.Event(), 0

    async def generate(self, order):
        self.orders.append(order)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def steps(self, order_id):
        assert order_id == self.orders[0].id
        self.done += 1
        return None if self.done == 3 else (self.done, 10)  # once, another replica is asked


def test_a_video_comes_as_a_model_of_this_process_would_make_it(handle, save_model, tmp_path):
    from animate4d.models.mv_vdm import MVVDM
    from animate4d.videos.generate import LocalModel

    folder = save_model(tmp_path / "model")
    made, version = video(SharedModel(handle(Generator(str(folder), None, 1, 1))))
    here, _ = video(LocalModel(MVVDM.from_pretrained(folder).eval(), "here"))
    for name in ("rgb", "alpha", "flow", "flow_weight", "times"):
        np.testing.assert_array_equal(getattr(made, name), getattr(here, name))
        assert getattr(made, name).flags.writeable
    assert len(version) == 16


def test_a_job_that_stops_takes_its_order_back(handle):
    stuck, told = Stuck(), []

    def progress(done, steps):
        told.append((done, steps))
        if len(told) > 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        video(SharedModel(handle(stuck), alone=True), progress)
    assert stuck.left.wait(30)
    assert [order.alone for order in stuck.orders] == [True]
    # A generator that is busy may not answer in time; then the job tells again what it knows.
    assert told == sorted(told)
    assert told[-1][1] == 10


def test_what_is_wrong_with_an_order_is_raised_in_its_job(handle, save_model, tmp_path):
    shared = SharedModel(handle(Generator(str(save_model(tmp_path / "model")), None, 1, 1)))
    with pytest.raises(ConfigError, match="show 1 views"):
        video(shared, frames=FRAMES[:1])
