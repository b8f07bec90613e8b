"""Depth and features: values in closed form, and kernel against twin with gradients."""

import pytest
import torch

from animate4d.core.cameras import Rig, world_to_camera_cv
from animate4d.fourd.channels import draw_depth, draw_features
from animate4d.fourd.render import draw_factors

SIZE = (40, 36)


def cameras(views):
    rig = Rig.even(views)
    view = torch.as_tensor(world_to_camera_cv(rig.camera_to_world()), dtype=torch.float64)
    return view, torch.as_tensor(rig.intrinsics(40), dtype=torch.float64)


def scene(count=120, frames=2, channels=7):
    generator = torch.Generator().manual_seed(2)
    random = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    opacities = 0.05 + 0.9 * torch.rand(count, generator=generator, dtype=torch.float64)
    return 0.4 * random(frames, count, 3), 0.05 * random(frames, count, 3, 3), opacities, random(count, channels)


def difference(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("changing", [False, True])
def test_features_and_gradients_match_the_twin(changing):
    view, matrix = cameras(2)
    tensors = list(scene())
    if changing:
        tensors[3] = torch.stack([tensors[3], 2 * tensors[3]])
    weights = torch.randn(2, 2, 7, *SIZE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    results = []
    for backend in ("native", "torch"):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        image = draw_features(*leaves, view, matrix, SIZE, backend=backend)
        assert image.shape == (2, 2, 7, *SIZE)
        (image * weights).sum().backward()
        results.append((image.detach(), *(leaf.grad for leaf in leaves)))
    for name, got, want in zip(("image", "means", "factors", "opacities", "features"), *results, strict=True):
        assert difference(got, want) < 2e-3, name


def test_three_features_are_a_colour():
    view, matrix = cameras(2)
    means, factors, opacities, features = scene(channels=3)
    image = draw_factors(means, factors, opacities, features, view, matrix, SIZE, backend="native")
    drawn = draw_features(means, factors, opacities, features, view, matrix, SIZE, backend="native")
    torch.testing.assert_close(drawn, image[:, :, :3], rtol=0, atol=0)


def test_depth_and_gradients_match_the_twin():
    view, matrix = cameras(2)
    means, factors, opacities, _ = scene()
    weights = torch.rand(2, 2, *SIZE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    results = []
    for backend in ("native", "torch"):
        leaves = [tensor.clone().requires_grad_() for tensor in (means, factors, opacities)]
        depth, alpha = draw_depth(*leaves, view, matrix, SIZE, backend=backend)
        assert depth.shape == alpha.shape == (2, 2, *SIZE)
        # pixels hardly covered have a depth of large slope: leave them to the covered ones
        (depth * weights * (alpha.detach() > 0.3)).sum().backward()
        results.append((depth.detach() * (alpha > 0.3), *(leaf.grad for leaf in leaves)))
    for name, got, want in zip(("depth", "means", "factors", "opacities"), *results, strict=True):
        assert difference(got, want) < 2e-3, name


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_depth_is_the_distance_along_the_axis(backend):
    view, matrix = cameras(4)
    # azimuth 0 looks from +x: a splat at x = 0.5 is nearer by the cosine of the elevation
    means = torch.tensor([[[0.5, 0.0, 0.0]]], dtype=torch.float64)
    factors = 0.2 * torch.eye(3, dtype=torch.float64)[None, None]
    depth, alpha = draw_depth(
        means, factors, torch.tensor([0.9], dtype=torch.float64), view, matrix, (40, 40), backend=backend
    )
    expected = means[0, 0] @ view[:, 2, :3].T + view[:, 2, 3]
    assert float(expected.min()) < 2.6
    assert float(expected.max()) > 3.4
    for number in range(4):
        seen = alpha[0, number] > 0.05
        assert int(seen.sum()) > 10
        torch.testing.assert_close(
            depth[0, number][seen].double(), expected[number].expand(int(seen.sum())), rtol=1e-4, atol=0
        )
    assert float(depth[0, 0, 0, 0]) == 0.0
