"""Hex-planes in C and in torch: the same features, the same gradients, whatever the sizes."""

import numpy as np
import pytest
import torch

from animate4d.fourd.field_config import PlaneConfig
from animate4d.fourd.field_native import hex_features
from animate4d.fourd.hexplane import HexPlanes, sample_planes

SMALL = (PlaneConfig(side=7, steps=4, channels=8),)
TWO = (PlaneConfig(side=6, steps=9, channels=8), PlaneConfig(side=11, steps=3, channels=24))


def planes_of(scales, seed=0) -> HexPlanes:
    generator = torch.Generator().manual_seed(seed)
    planes = HexPlanes(scales, generator)
    with torch.no_grad():
        for plane in planes.parameters():
            plane.add_(0.3 * torch.randn(plane.shape, generator=generator))
    return planes


def places(count=50, frames=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    # some lie outside, where the border value holds
    return 2.4 * torch.rand(count, 3, generator=generator) - 1.2, torch.linspace(-1, 1, frames)


def difference(a, b) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30))


@pytest.mark.parametrize("scales", [SMALL, TWO], ids=["one scale", "two scales"])
def test_values_and_gradients_match_the_twin(scales):
    points, times = places()
    extra = torch.randn(5, 50, 16, generator=torch.Generator().manual_seed(3))
    results = []
    for backend in ("native", "torch"):
        planes = planes_of(scales)
        features = planes(points, times, extra, backend=backend)
        assert features.shape == (5, 50, planes.channels + 16)
        weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(4))
        (features * weights).sum().backward()
        results.append([features.detach(), *(plane.grad for plane in planes.parameters())])
    for got, want in zip(*results, strict=True):
        assert difference(got, want) < 1e-5
    torch.testing.assert_close(results[0][0][..., -16:], extra, rtol=0, atol=0)


def test_the_twin_has_the_gradient_of_finite_differences():
    points, times = (tensor.double() for tensor in places(count=4, frames=2))
    leaves = [plane.detach().double().requires_grad_() for plane in planes_of(SMALL).parameters()]
    assert torch.autograd.gradcheck(lambda a, b: sample_planes(points, times, a, b), leaves, eps=1e-6, atol=1e-6)


def test_planes_are_read_along_the_right_axes():
    """Each plane gets values that say where they are; a swap of two axes would show."""
    side, steps = 5, 3
    nodes, moments = torch.linspace(-1, 1, side), torch.linspace(-1, 1, steps)
    spatial, temporal = torch.ones(3, side, side, 8), torch.ones(3, steps, side, 8)
    spatial[0, ..., 0] = 2 + nodes[:, None] + 10 * nodes  # y + 10 x
    spatial[1, ..., 1] = 2 + nodes[:, None] + 10 * nodes  # z + 10 x
    spatial[2, ..., 2] = 2 + nodes[:, None] + 10 * nodes  # z + 10 y
    for axis in range(3):
        temporal[axis, ..., 3 + axis] = 2 + moments[:, None] + 10 * nodes  # t + 10 of that axis
    x, y, z, t = 0.3, -0.45, 0.8, -0.2
    expected = [y + 10 * x, z + 10 * x, z + 10 * y, t + 10 * x, t + 10 * y, t + 10 * z]
    for features in (hex_features, lambda p, s, extra, planes: sample_planes(p, s, *planes)):
        found = features(torch.tensor([[x, y, z]]), torch.tensor([t]), None, (spatial, temporal))
        assert found[0, 0].tolist() == pytest.approx([*(2 + np.array(expected)), 1, 1], rel=1e-5)


def test_new_planes_do_not_depend_on_time():
    planes = HexPlanes(TWO, torch.Generator().manual_seed(0))
    features = planes(*places(), backend="native")
    np.testing.assert_array_equal(features[0].detach(), features[4].detach())
    assert float(features.detach().min()) >= 0.1**3
    assert float(features.detach().max()) <= 0.5**3
    variation, bumps, change = (value.item() for value in planes.roughness())
    assert (bumps, change) == (0.0, 0.0)
    assert variation > 0


def test_roughness_grows_with_what_it_names():
    planes = planes_of(SMALL)
    before = [value.item() for value in planes.roughness()]
    with torch.no_grad():
        planes.spatial[0].mul_(2)
    variation, bumps, change = (value.item() for value in planes.roughness())
    assert variation > before[0]
    assert (bumps, change) == (before[1], before[2])
    with torch.no_grad():
        planes.temporal[0].copy_(torch.ones_like(planes.temporal[0]))
        planes.temporal[0][:, 1] += 1
    assert planes.roughness()[1].item() == pytest.approx((4 + 1) / 2)


def test_threads_do_not_change_a_bit():
    points, times = places(count=300)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            planes = planes_of(TWO)
            features = planes(points, times, backend="native")
            features.square().sum().backward()
        finally:
            torch.set_num_threads(1)
        results.append([features.detach(), *(plane.grad for plane in planes.parameters())])
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, three)


def test_no_points_and_points_that_are_no_numbers():
    planes = planes_of(SMALL)
    assert planes(torch.zeros(0, 3), torch.zeros(2), backend="native").shape == (2, 0, 8)
    lost = torch.full((1, 3), float("nan"))
    assert bool(planes(lost, torch.zeros(1), backend="native").isfinite().all())


def test_foreign_tensors_are_refused():
    points, times = places()
    spatial, temporal = (plane.detach() for plane in planes_of(SMALL).parameters())
    with pytest.raises(ValueError, match=r"float32 on the CPU, got torch\.float64"):
        hex_features(points.double(), times, None, (spatial, temporal))
    with pytest.raises(ValueError, match="multiples of 8"):
        hex_features(points, times, None, (spatial[..., :4].contiguous(), temporal[..., :4].contiguous()))
