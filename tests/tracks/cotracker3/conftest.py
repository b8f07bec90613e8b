import math

import pytest
import torch

from animate4d.tracks.cotracker3.config import CoTracker3Config
from animate4d.tracks.cotracker3.model import CoTracker3

TINY = {
    "stages": (8, 8, 16, 16),
    "fusion": 16,
    "features": 16,
    "correlation_hidden": 24,
    "correlation": 8,
    "hidden": 32,
    "heads": 2,
    "depth": 2,
    "virtual_tracks": 4,
}


def sine_weights(model: CoTracker3) -> CoTracker3:
    """Fill in weights anyone can compute: no generator's version matters."""
    state = model.state_dict()
    for number, name in enumerate(sorted(name for name in state if name != "time_emb"), start=1):
        tensor = state[name]
        element = torch.arange(tensor.numel(), dtype=torch.float64)
        value = torch.sin(12.9898 * element + 78.233 * number) * 43758.5453
        value = (2 * (value - value.floor()) - 1).reshape(tensor.shape)
        if name.endswith("virual_tracks"):
            scale = 1.0
        elif tensor.ndim >= 2:
            scale = math.sqrt(3 / tensor[0].numel())
        else:
            scale = 0.1
        value = value * scale + (1 if name.endswith("norm_context.weight") else 0)
        value = value * {"updateformer.flow_head.weight": 0.15, "updateformer.vis_conf_head.weight": 0.5}.get(name, 1)
        tensor.copy_(value.float())
    return model


def waves(frames: int, height: int, width: int, *, clips: int = 1) -> torch.Tensor:
    """Moving sine waves `[B, T, 3, H, W]` in 0..255; every clip has other colours."""
    t, y, x = torch.meshgrid(*(torch.arange(float(size)) for size in (frames, height, width)), indexing="ij")
    channels = [
        torch.stack(
            [127.5 + 80 * torch.sin(0.31 * (x - 1.5 * t) + c) + 40 * torch.cos(0.23 * (y + 0.7 * t) + 2 * c)], dim=1
        )
        for c in range(3 * clips)
    ]
    return torch.stack([torch.cat(channels[3 * clip : 3 * clip + 3], dim=1) for clip in range(clips)])


@pytest.fixture(scope="session", name="waves")
def waves_maker():
    return waves


@pytest.fixture(scope="session")
def released():
    """The released sizes; the weights are computed."""
    return sine_weights(CoTracker3(CoTracker3Config())).eval()


@pytest.fixture(scope="session")
def offline():
    return sine_weights(CoTracker3(CoTracker3Config(**TINY))).eval()


@pytest.fixture(scope="session")
def online():
    return sine_weights(CoTracker3(CoTracker3Config(**TINY, online=True, window=8))).eval()


@pytest.fixture(scope="session")
def queries():
    """Points `[3, 7, 3]` of three clips of 20 frames of 48 x 64 pixels."""
    rng = torch.Generator().manual_seed(0)
    frame = torch.randint(0, 20, (3, 7, 1), generator=rng)
    frame[:, 0] = 0
    return torch.cat([frame.float(), torch.rand(3, 7, 2, generator=rng) * torch.tensor([63.0, 47.0])], dim=-1)
