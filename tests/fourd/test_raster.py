"""The C rasteriser against its twin in torch: values, gradients, conventions, determinism."""

import math

import numpy as np
import pytest
import torch

from animate4d.core.cameras import Rig, world_to_camera_cv
from animate4d.core.errors import ConfigError
from animate4d.fourd import native
from animate4d.fourd.raster_torch import draw
from animate4d.fourd.render import draw_factors, render

SIZE = (50, 44)


def cameras(views: int, size: int = 48, dtype=torch.float64):
    rig = Rig.even(views)
    view = torch.as_tensor(world_to_camera_cv(rig.camera_to_world()), dtype=dtype)
    return view, torch.as_tensor(rig.intrinsics(size), dtype=dtype)


def scene(count: int = 300, frames: int = 2, seed: int = 0, dtype=torch.float64, spread: float = 0.4):
    generator = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    means = spread * random(frames, count, 3)
    factors = 0.05 * random(frames, count, 3, 3)
    opacities = 0.05 + 0.9 * torch.rand(count, generator=generator, dtype=torch.float64)
    colors = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return [tensor.to(dtype) for tensor in (means, factors, opacities, colors)]


def difference(a, b) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30))


def gradients(tensors, view, matrix, size, backend, cotangent):
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    image = draw_factors(*leaves, view, matrix, size, backend=backend)
    (image * cotangent.to(image)).sum().backward()
    return image.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("seed", [0, 1])
def test_values_and_gradients_match_the_twin(seed):
    view, matrix = cameras(3)
    tensors = scene(seed=seed)
    cotangent = torch.randn(2, 3, 4, *SIZE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    image, grads = gradients(tensors, view, matrix, SIZE, "native", cotangent)
    expected, expected_grads = gradients(tensors, view, matrix, SIZE, "torch", cotangent)
    assert difference(image, expected) < 1e-4
    for name, got, want in zip(("means", "factors", "opacities", "colors"), grads, expected_grads, strict=True):
        assert difference(got, want) < 2e-3, name
    assert float(image[:, :, 3].max()) > 0.5


def test_quats_and_scales_have_the_gradients_of_the_twin():
    view, matrix = cameras(2)
    means, _, opacities, colors = scene(count=100)
    generator = torch.Generator().manual_seed(3)
    quats = torch.randn(100, 4, generator=generator, dtype=torch.float64)
    scales = 0.02 + 0.06 * torch.rand(100, 3, generator=generator, dtype=torch.float64)
    results = []
    for backend in ("native", "torch"):
        leaves = [quats.clone().requires_grad_(), scales.clone().requires_grad_()]
        rgb, alpha = render(means, *leaves, opacities, colors, view, matrix, 48, backend=backend)
        assert rgb.shape == (2, 2, 48, 48, 3)
        assert alpha.shape == (2, 2, 48, 48)
        (rgb.square().sum() + (alpha * torch.linspace(0, 1, 48)).sum()).backward()
        results.append([leaf.grad for leaf in leaves])
    for got, want in zip(*results, strict=True):
        assert difference(got, want) < 2e-3


def test_twin_gradient_is_the_finite_difference():
    view, matrix = cameras(1, size=20)
    tensors = [tensor[:1] if tensor.ndim > 2 else tensor for tensor in scene(count=6, frames=1)]
    # well inside every threshold: broad, half transparent, so that no pixel crosses 1/255 for a small step
    tensors[1] = 1.5 * torch.eye(3, dtype=torch.float64).expand(1, 6, 3, 3) + tensors[1]
    tensors[2] = torch.full((6,), 0.3, dtype=torch.float64)
    weights = torch.rand(4, 20, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    assert torch.autograd.gradcheck(
        lambda *t: (draw(*t, view, matrix, (20, 20)) * weights).sum(), leaves, eps=1e-6, atol=1e-6
    )


def test_one_splat_is_a_gaussian_at_half_integer_centres():
    # The camera at distance 3 looks at the origin: the mean falls on the corner between the four middle pixels.
    view, matrix = cameras(1, size=32, dtype=torch.float32)
    sigma, opacity = 0.1, 0.8
    means, factors = torch.zeros(1, 1, 3), sigma * torch.eye(3)[None, None]
    image = draw_factors(
        means,
        factors,
        torch.tensor([opacity]),
        torch.tensor([[1.0, 0.5, 0.25]]),
        view,
        matrix,
        (32, 32),
        backend="native",
    )[0, 0]
    variance = (float(matrix[0, 0, 0]) / 3.0 * sigma) ** 2 + native.EPS2D
    expected = opacity * math.exp(-0.5 * (0.5**2 + 0.5**2) / variance)
    assert image[3, 15:17, 15:17].numpy() == pytest.approx(np.full((2, 2), expected), rel=1e-4)
    torch.testing.assert_close(image[0] * 0.25, image[2])
    reach = math.sqrt(2 * math.log(255 * opacity) * variance)
    assert float(image[3, 15, int(16 + reach + 1.5)]) == 0.0


def test_near_splat_hides_the_far_one_and_saturated_pixels_stop():
    view, matrix = cameras(1, size=32, dtype=torch.float32)
    # azimuth 0 looks along -x: larger x is nearer
    means = torch.tensor([[[-0.3, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    factors = (2.0 * torch.eye(3)).expand(1, 3, 3, 3)
    colors = torch.eye(3)
    image = draw_factors(
        means, factors, torch.tensor([0.9, 0.999, 0.95]), colors, view, matrix, (32, 32), backend="native"
    )[0, 0, :, 16, 16]
    # the second splat would leave 5e-5 < 1e-4 of the light, so it and the third are dropped
    assert image.numpy() == pytest.approx([0.0, 0.999, 0.0, 0.999], abs=2e-3)


def test_behind_the_camera_and_outside_the_image_nothing_is_drawn():
    view, matrix = cameras(1, size=32, dtype=torch.float32)
    means = torch.tensor([[[4.0, 0.0, 0.0], [0.0, 30.0, 0.0], [float("nan"), 0.0, 0.0]]]).requires_grad_()
    factors = (0.05 * torch.eye(3)).expand(1, 3, 3, 3)
    image = draw_factors(
        means, factors, torch.full((3,), 0.9), torch.ones(3, 3), view, matrix, (32, 32), backend="native"
    )
    image.sum().backward()
    assert float(image.detach().abs().max()) == 0.0
    assert float(means.grad.abs().max()) == 0.0


def test_threads_do_not_change_a_bit():
    view, matrix = cameras(3, dtype=torch.float32)
    arrays = [tensor.numpy() for tensor in (*scene(dtype=torch.float32), view, matrix)]
    cotangent = np.random.default_rng(0).normal(size=(2, 3, 4, *SIZE)).astype(np.float32)
    results = []
    for threads in (1, 3):
        drawing = native.Drawing(*arrays, SIZE, threads)
        results.append((drawing.image, *drawing.pull(cotangent)))
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, three)


def test_no_splats_gives_an_empty_image():
    view, matrix = cameras(2, dtype=torch.float32)
    empty = (torch.zeros(1, 0, 3), torch.zeros(1, 0, 3, 3), torch.zeros(0), torch.zeros(0, 3))
    for backend in ("native", "torch"):
        assert float(draw_factors(*empty, view, matrix, (20, 20), backend=backend).abs().max()) == 0.0


def test_library_is_built_once_and_kept(tmp_path):
    first = native.build(tmp_path)
    stamp = first.stat().st_mtime_ns
    assert native.build(tmp_path) == first
    assert first.stat().st_mtime_ns == stamp
    assert list(tmp_path.iterdir()) == [first]


def test_without_a_compiler_torch_draws_and_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    native.load.cache_clear()
    try:
        view, matrix = cameras(1, dtype=torch.float32)
        tensors = scene(count=5, frames=1, dtype=torch.float32)
        quats, scales = torch.ones(5, 4), torch.full((5, 3), 0.05)
        for _ in range(2):
            rgb, _ = render(tensors[0], quats, scales, *tensors[2:], view, matrix, 48)
        assert float(rgb.max()) > 0
        assert [record.message.split(",")[0] for record in caplog.records] == ["splats are drawn in plain torch"]
        assert "no C compiler" in caplog.text
        with pytest.raises(ConfigError, match="install a C compiler"):
            render(tensors[0], quats, scales, *tensors[2:], view, matrix, 48, backend="native")
    finally:
        native.load.cache_clear()


def test_unknown_backend_is_named():
    view, matrix = cameras(1)
    with pytest.raises(ConfigError, match=r"'cuda'.*auto, native, torch, gsplat"):
        render(
            *scene(count=2)[:1],
            torch.ones(2, 4),
            torch.ones(2, 3),
            torch.ones(2),
            torch.ones(2, 3),
            view,
            matrix,
            8,
            backend="cuda",
        )


def test_colours_may_change_from_frame_to_frame():
    view, matrix = cameras(2)
    means, factors, opacities, _ = scene(count=120)
    colors = torch.rand(2, 120, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    cotangent = torch.randn(2, 2, 4, *SIZE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    image, grads = gradients([means, factors, opacities, colors], view, matrix, SIZE, "native", cotangent)
    expected, expected_grads = gradients([means, factors, opacities, colors], view, matrix, SIZE, "torch", cotangent)
    assert difference(image, expected) < 1e-4
    for got, want in zip(grads, expected_grads, strict=True):
        assert got.shape == want.shape
        assert difference(got, want) < 2e-3
    still, _ = gradients([means, factors, opacities, colors[1]], view, matrix, SIZE, "native", cotangent)
    np.testing.assert_array_equal(image[1], still[1])
    assert difference(image[0], still[0]) > 0.01
