import numpy as np
import pytest
import torch

from animate4d.assets.procedural import generate_objects
from animate4d.io.ply import write_splat_ply
from animate4d.pipeline.animate import animate
from animate4d.pipeline.config import AnimateOptions, Request

torch.set_num_threads(1)

FAST = AnimateOptions(fit="draft", frames=3)


@pytest.fixture(scope="session")
def barrel(tmp_path_factory):
    """A generated barrel with several clips."""
    return generate_objects(tmp_path_factory.mktemp("barrel"), count=1, seed=5, families=("barrel",))[0]


@pytest.fixture(scope="session")
def truth_request(barrel):
    return Request(asset=barrel, prompt="a barrel bouncing", video="ground-truth", clip="bounce gently", options=FAST)


@pytest.fixture(scope="session")
def truth_bundle(truth_request, tmp_path_factory):
    """The barrel's own clip fitted once for all tests: (result, what progress was told)."""
    told = []
    out = tmp_path_factory.mktemp("truth") / "barrel"
    result = animate(truth_request, None, out, progress=lambda stage, share: told.append((stage, share)))
    return result, told


@pytest.fixture
def splat_file(tmp_path):
    from animate4d.core.splats import SplatCloud

    rng = np.random.default_rng(0)
    cloud = SplatCloud(
        means=rng.normal(size=(50, 3)).astype(np.float32),
        quats=np.tile(np.float32([1, 0, 0, 0]), (50, 1)),
        scales=np.full((50, 3), 0.05, np.float32),
        opacities=np.full(50, 0.9, np.float32),
        sh=np.zeros((50, 1, 3), np.float32),
    )
    write_splat_ply(tmp_path / "captured.ply", cloud)
    return tmp_path / "captured.ply"
