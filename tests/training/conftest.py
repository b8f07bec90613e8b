"""A tiny model, loss and stream with the interfaces of the real ones, and one-process DeepSpeed to run them in."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from animate4d.data.order import Cursor
from animate4d.io.atomic import write_json
from animate4d.training.config import TrainConfig
from animate4d.training.engine import leave_group
from animate4d.training.group import Group
from animate4d.training.loop import Loop, LoopConfig, Parts
from animate4d.training.recipe import OptimizerConfig


@dataclass
class Batch:
    x: torch.Tensor

    def to(self, device):
        return Batch(self.x.to(device))


class Stream:
    """Batches of samples dealt out as in `data.order`; a sample is a function of its place. `hook` sees the step."""

    def __init__(self, rank=0, world=1, batch=4, hook=None):
        self.rank, self.world, self.batch, self.hook = rank, world, batch, hook
        self.skipped = {}

    def batches(self, start):
        position = start.position
        while True:
            if self.hook:
                self.hook(self, position // (self.batch * self.world))
            first = position + self.rank * self.batch
            samples = [torch.Generator().manual_seed(first + offset) for offset in range(self.batch)]
            position += self.batch * self.world
            yield Batch(torch.stack([torch.randn(6, generator=sample) for sample in samples])), Cursor(0, position)


def objective(model, batch, generator):
    noisy = batch.x + 0.3 * torch.randn(batch.x.shape, generator=generator)
    dropped = nn.functional.dropout(noisy, 0.2)  # draws from torch's global generator on purpose
    error = (model(dropped) - batch.x.flip(1)).square().mean() + 0.01 * np.random.random()
    return {"loss": 2 * error, "diffusion": error.detach()}


def export(model, folder, facts):
    folder.mkdir(exist_ok=True)
    torch.save(model.state_dict(), folder / "weights.pt")
    (folder / "config.json").write_text(str(facts["step"]))


def draw(model, path: Path):
    torch.randn(3)  # a sampler that draws from the global generator must not change the run
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def validate(model):
    assert not model.training
    torch.randn(3)  # as above
    return {"val_loss": float(sum(weight.square().sum() for weight in model.parameters()))}


def parts_maker(hook=None, loss=objective, validate=validate):
    """Build a `make_parts` that also Ray's workers can run: they cannot import this file, so it travels by value."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def make_parts(config, rank, world):
        np.random.seed(1)
        return Parts(
            model=nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 6)),
            objective=loss,
            stream=Stream(
                rank,
                world,
                config.recipe().optimizer.batch_size // (world * config.recipe().optimizer.accumulate),
                hook,
            ),
            draw=draw,
            validate=validate,
            export=export,
        )

    return make_parts


@pytest.fixture
def make_maker():
    return parts_maker


@pytest.fixture(scope="module")
def process_group(tmp_path_factory):
    """One gloo process of its own."""
    store = tmp_path_factory.mktemp("gloo") / "store"
    os.environ.setdefault("LOCAL_RANK", "0")
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield Group(rank=0, world=1, device=torch.device("cpu"))
    leave_group()
    torch.set_num_threads(threads)


@pytest.fixture
def run_loop(process_group):
    """Run the loop with the stand-in in this process: (out, steps, hook, changed settings) -> Outcome."""

    def run(out: Path, steps: int, hook=None, loss=objective, validate=validate, warmup=5, **changes):
        out.mkdir(exist_ok=True)
        torch.manual_seed(0)
        settings = {"checkpoint_every": 5, "keep": 3, "sample_every": 4, "validate_every": 6, "log_every": 1} | changes
        accumulate = settings.pop("accumulate", 1)
        config = LoopConfig(
            out=out,
            optimizer=OptimizerConfig(warmup=warmup, accumulate=accumulate),
            zero=False,
            steps=steps,
            resolved={"seed": 0, "workers": 1},
            seed=0,
            **settings,
        )
        parts = parts_maker(hook, loss, validate)(TrainConfig(data=Path("none"), accumulate=accumulate), 0, 1)
        try:
            return Loop(config, parts, process_group, lambda row: None).run()
        finally:  # a process that dies takes its writing threads along; here they would meet the next run
            for thread in threading.enumerate():
                if thread.name.startswith("checkpoint"):
                    thread.join()

    return run


def run_one_of_two(out: Path, rank: int, make_parts, zero: bool):
    """Run the loop as one of two workers, in a process of its own; leave how it ended in a file."""
    os.environ.update(LOCAL_RANK="0", DS_ACCELERATOR="cpu")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/store", rank=rank, world_size=2)
    config = LoopConfig(
        out=out,
        optimizer=OptimizerConfig(),
        zero=zero,
        steps=6,
        resolved={"workers": 2},
        seed=0,
        checkpoint_every=5,
        keep=2,
        sample_every=0,
        validate_every=0,
        log_every=1,
    )
    parts = make_parts(TrainConfig(data=Path("none"), workers=2), rank, 2)
    group = Group(rank=rank, world=2, device=torch.device("cpu"))
    outcome = Loop(config, parts, group, lambda row: None).run()
    length = float(sum(weight.detach().double().square().sum() for weight in parts.model.parameters()))
    write_json(out / f"outcome-{rank}.json", [outcome.state, outcome.step, outcome.message, length])


@pytest.fixture
def run_two(tmp_path):
    """Run the loop in two processes: (make_parts, zero) -> how each ended. They cannot import this file either."""
    from ray import cloudpickle

    def run(make_parts, zero: bool):
        load = "import pickle, sys; pickle.load(sys.stdin.buffer)()"
        processes = []
        for rank in (0, 1):
            work = cloudpickle.dumps(partial(run_one_of_two, tmp_path, rank, make_parts, zero))
            processes.append(subprocess.Popen([sys.executable, "-c", load], stdin=subprocess.PIPE))
            processes[-1].stdin.write(work)
            processes[-1].stdin.close()
        assert [process.wait(300) for process in processes] == [0, 0]
        return [json.loads((tmp_path / f"outcome-{rank}.json").read_text()) for rank in (0, 1)]

    return run


@pytest.fixture
def empty_shards(tmp_path):
    """A folder that counts as shards for a stream that reads none."""
    write_json(tmp_path / "shards" / "index.json", {"schema": 1, "shards": []})
    return tmp_path / "shards"
