"""Score distillation: sums where the papers sum, cameras in range, and a pull towards what the model believes."""

import math

import numpy as np
import pytest
import torch

from animate4d.core.clip import GREY
from animate4d.fourd.distill import distillation, draw_shot
from animate4d.fourd.field_config import DistillConfig
from animate4d.fourd.raster_torch import factors_from_quats
from animate4d.fourd.render import draw_factors


class Believer:
    """A model whose clean clip is always the same object: the optimum of distilling from it is known."""

    views, frames, size = 4, 4, 24

    def __init__(self, paint):
        self.paint, self.calls = paint, []

    def __call__(self, images, camera_to_world, noise, generator):
        self.calls.append((images.shape, noise))
        with torch.no_grad():
            clean = self.paint(camera_to_world, images.shape[1])
        return images[:, 1:], clean[:, 1:]


def test_loss_is_half_the_square_summed_over_a_latent_and_averaged_over_images():
    latents, clean = torch.zeros(4, 15, 4, 32, 32), torch.ones(4, 15, 4, 32, 32)
    # 0.5 * sum / 64 images * 16 / 15, as the released code has it
    assert float(distillation(latents, clean)) == pytest.approx(0.5 * latents.numel() / 64 * 16 / 15)
    assert float(distillation(latents, clean)) == pytest.approx(2048)


def test_shots_stay_within_their_ranges_and_differ():
    config, rng = DistillConfig(), np.random.default_rng(0)
    score = Believer(None)
    shots = [draw_shot(config, score, 16, rng) for _ in range(40)]
    for shot in shots:
        position = shot.camera_to_world[:, :3, 3]
        distance = np.linalg.norm(position, axis=1)
        assert np.ptp(distance) < 1e-9
        fov = 2 * math.degrees(math.atan(score.size / 2 / float(shot.intrinsics[0, 0, 0])))
        assert 15 <= fov <= 60
        assert 0.8 - 1e-6 <= distance[0] * math.tan(math.radians(fov) / 2) <= 1.0 + 1e-6
        assert 0 <= math.degrees(math.asin(position[0, 2] / distance[0])) <= 30
        turns = np.diff(np.unwrap(np.arctan2(position[:, 1], position[:, 0])))
        np.testing.assert_allclose(np.degrees(turns), 90, atol=1e-6)
        assert shot.frames.tolist() == [0, 5, 10, 15]
        assert 0.02 <= shot.noise <= 0.2
    assert len({shot.noise for shot in shots}) == 40
    assert draw_shot(config, score, 3, rng).frames.tolist() == [0, 1, 2]


def test_gradient_pulls_a_perturbed_object_towards_the_data():
    """Three balls were displaced; distilling from a model that has seen them in place brings them back."""
    torch.manual_seed(0)
    true = torch.tensor([[0.4, 0.0, 0.1], [-0.3, 0.3, 0.0], [0.0, -0.4, -0.2]])
    colors, opacities = torch.eye(3), torch.full((3,), 0.9)
    factors = factors_from_quats(torch.tensor([[1.0, 0, 0, 0]]).expand(3, 4), torch.full((3, 3), 0.15))

    def draw(means, viewmats, intrinsics):
        frames = len(means)
        image = draw_factors(
            means, factors.expand(frames, 3, 3, 3), opacities, colors, viewmats, intrinsics, (24, 24), backend="native"
        )
        return (image[:, :, :3] + GREY * (1 - image[:, :, 3:])).transpose(0, 1)

    shot = {}
    score = Believer(lambda camera, frames: draw(true.expand(frames, 3, 3), shot["v"], shot["k"]))
    start = true + torch.tensor([[0.1, -0.1, 0.05], [-0.1, -0.05, 0.1], [0.1, 0.1, -0.1]])
    means = start.clone().requires_grad_()
    optimiser, rng, config = torch.optim.Adam([means], 5e-3), np.random.default_rng(1), DistillConfig()
    for _ in range(60):
        look = draw_shot(config, score, 4, rng)
        shot["v"], shot["k"] = look.viewmats, look.intrinsics
        images = draw(means.expand(4, 3, 3), look.viewmats, look.intrinsics)
        camera = torch.from_numpy(look.camera_to_world)
        loss = distillation(*score(images, camera, look.noise, torch.Generator()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    before, after = ((places - true).norm(dim=1).mean().item() for places in (start, means))
    assert after < 0.15 * before
    assert score.calls[0][0] == (4, 4, 3, 24, 24)
