"""Jobs that share one generator under a real Ray Serve: they share a batch, and outlive it."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from animate4d.core.cameras import Rig
from animate4d.models.sampler_config import SamplerConfig
from animate4d.serve.shared_model import LOST, SharedModel

PATIENCE = 120
LONG = SamplerConfig(steps=1000)
"""Sampling that is still at work when something else is done."""


@pytest.fixture
def generator(ray_cluster, save_model, tmp_path):
    """The handle of a generator that notes its batches."""
    from ray import serve

    from animate4d.serve.generator import Generator

    class Noted(Generator):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            self.sizes = []

        def _together(self, orders, abandoned):
            self.sizes.append(len(orders))
            return super()._together(orders, abandoned)

        async def noted(self):
            return os.getpid(), self.sizes, len(self.batches._waiting)

    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})(Noted)
    bound = deployment.bind(str(save_model(tmp_path / "model")), None, threads=1, batch=4)
    yield serve.run(bound, name="sharing", route_prefix=None)
    serve.shutdown()


class Asked:
    """One job's wish for a video, and what it was told."""

    def __init__(self, generator, seed, config):
        self.shared, self.seed, self.config = SharedModel(generator), seed, config
        self.begun, self.stop = threading.Event(), threading.Event()

    def progress(self, done, steps):
        if done:
            self.begun.set()
        if self.stop.is_set():
            raise KeyboardInterrupt

    def __call__(self):
        frames = np.random.default_rng(self.seed).integers(0, 256, (2, 16, 16, 4), dtype=np.uint8)
        return self.shared.video(
            frames, Rig.even(2), "a box", seed=self.seed, config=self.config, progress=self.progress
        )


@pytest.mark.ray
@pytest.mark.slow
def test_jobs_share_a_batch_and_outlive_the_generator(generator):
    long, one, two, again = (Asked(generator, seed, LONG if seed == 0 else SamplerConfig(steps=2)) for seed in range(4))
    with ThreadPoolExecutor(4) as threads:
        busy = threads.submit(long)
        assert long.begun.wait(PATIENCE)
        both = [threads.submit(job) for job in (one, two)]
        until = time.monotonic() + PATIENCE
        while (noted := generator.noted.remote().result(timeout_s=PATIENCE))[2] < 2:
            assert time.monotonic() < until, noted
            time.sleep(0.1)
        long.stop.set()
        with pytest.raises(KeyboardInterrupt):
            busy.result(PATIENCE)
        first, second = (made.result(PATIENCE) for made in both)
        process, sizes, _ = generator.noted.remote().result(timeout_s=PATIENCE)
        assert sizes == [1, 2]
        assert first[1] == second[1]
        assert np.abs(first[0].flow - second[0].flow).max() > 1e-3

        long.begun.clear()
        long.stop.clear()
        lost = threads.submit(long)
        assert long.begun.wait(PATIENCE)
        os.kill(process, signal.SIGKILL)
        with pytest.raises(LOST):
            lost.result(PATIENCE)
        assert threads.submit(again).result(PATIENCE)[1] == first[1]
