"""A tiny model, loss and stream with the interfaces of the real ones."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from animate4d.data.order import Cursor
from animate4d.training.loop import Parts


@dataclass
class Batch:
    x: torch.Tensor

    def to(self, device):
        return Batch(self.x.to(device))


class Stream:
    """Batches that are a function of the cursor and the rank."""

    fingerprint = "standin"

    def __init__(self, rank=0, world=1, batch=4):
        self.rank, self.world, self.batch = rank, world, batch

    def batches(self, start):
        position = start.position
        while True:
            generator = torch.Generator().manual_seed(position * 10 + self.rank)
            position += self.batch * self.world
            yield Batch(torch.randn(self.batch, 6, generator=generator)), Cursor(0, position)


def objective(model, batch, generator):
    noisy = batch.x + 0.3 * torch.randn(batch.x.shape, generator=generator)
    dropped = nn.functional.dropout(noisy, 0.2)  # draws from the global generator on purpose
    error = (model(dropped) - batch.x.flip(1)).square().mean()
    return {"loss": 2 * error, "diffusion": error.detach()}


class Tiny(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 6))


def export(model, folder, facts):
    folder.mkdir(exist_ok=True)
    torch.save(model.state_dict(), folder / "weights.pt")
    (folder / "facts.txt").write_text(str(facts["step"]))


def draw(model, path: Path):
    path.parent.mkdir(exist_ok=True)
    torch.randn(3)  # a sampler that draws from the global generator must not change the run
    from PIL import Image

    Image.new("RGB", (8, 8)).save(path)


def make_parts(config, rank, world):
    return Parts(
        model=Tiny(),
        objective=objective,
        stream=Stream(rank, world, config.recipe().optimizer.batch_size // world),
        draw=draw,
        export=export,
    )
