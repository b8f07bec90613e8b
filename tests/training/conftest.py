"""A tiny model, loss and stream with the interfaces of the real ones, and one-process DeepSpeed to run them in."""

import os
import sys
import time
from dataclasses import dataclass
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
    """Batches that are a function of the cursor and the rank; `hook` sees the position before each."""

    def __init__(self, rank=0, world=1, batch=4, hook=None):
        self.rank, self.world, self.batch, self.hook = rank, world, batch, hook
        self.skipped = {}

    def batches(self, start):
        position = start.position
        while True:
            if self.hook:
                self.hook(self, position // (self.batch * self.world))
            generator = torch.Generator().manual_seed(position * 10 + self.rank)
            position += self.batch * self.world
            yield Batch(torch.randn(self.batch, 6, generator=generator)), Cursor(0, position)


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


def parts_maker(hook=None, loss=objective):
    """Build a `make_parts` that also Ray's workers can run: they cannot import this file, so it travels by value."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def make_parts(config, rank, world):
        np.random.seed(1)
        return Parts(
            model=nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 6)),
            objective=loss,
            stream=Stream(rank, world, config.recipe().optimizer.batch_size // world, hook),
            draw=draw,
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

    def run(out: Path, steps: int, hook=None, loss=objective, warmup=5, **changes):
        out.mkdir(exist_ok=True)
        torch.manual_seed(0)
        settings = {"checkpoint_every": 5, "keep": 3, "sample_every": 4, "log_every": 1} | changes
        config = LoopConfig(
            out=out, optimizer=OptimizerConfig(warmup=warmup), steps=steps, resolved={"seed": 0}, seed=0, **settings
        )
        parts = parts_maker(hook, loss)(TrainConfig(data=Path("none")), 0, 1)
        return Loop(config, parts, process_group, lambda row: None).run()

    return run


@pytest.fixture
def empty_shards(tmp_path):
    """A folder that counts as shards for a stream that reads none."""
    write_json(tmp_path / "shards" / "index.json", {"schema": 1, "shards": []})
    return tmp_path / "shards"


def slow_steps(stream, step):
    """Make steps long enough to be interrupted."""
    time.sleep(0.1)


@pytest.fixture
def slow():
    return slow_steps
