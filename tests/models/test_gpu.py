"""What only a GPU can show: its fused kernels, their grid limit, its compiler. The same answers as on the CPU."""

from __future__ import annotations

import pytest
import torch

from animate4d.models.attention import GRID_LIMIT, attend
from animate4d.models.execution import ExecutionConfig
from animate4d.models.mv_vdm import MVVDM

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


def on_gpu(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.cuda() for name, value in given.items()}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    difference = (found.double().cpu() - expected).square().mean().sqrt()
    return float(difference / expected.square().mean().sqrt())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 0.05)], ids=["float32", "bfloat16"]
)
def test_a_gpu_computes_what_the_cpu_does(published, network, arguments, dtype: torch.dtype, tolerance: float):
    unet, given = network(published), arguments(published)
    taps = ["up_blocks.1", "up_blocks.1.motion_modules.0.temporal"]
    with torch.no_grad():
        exact, features = unet(**given, taps=taps)
        found, found_features = unet.to("cuda", dtype)(**on_gpu(given), taps=taps)
    assert relative(found, exact) < tolerance
    assert all(relative(found_features[tap], features[tap]) < tolerance for tap in taps)


def test_more_sequences_than_the_grid_of_a_kernel():
    tokens = [torch.randn(GRID_LIMIT + 5_000, 16, 80, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    found = attend(*tokens, 2)
    tail = attend(*(each[-64:] for each in tokens), 2)
    torch.testing.assert_close(found[-64:], tail)
    assert found.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        ExecutionConfig(channels_last=True),
        ExecutionConfig(compiler="inductor"),
        ExecutionConfig(compiler="inductor", channels_last=True, checkpoint_layers=True),
    ],
    ids=["channels-last", "compiled", "all"],
)
def test_options_train_alike(tiny, shake, arguments, how: ExecutionConfig):
    model = MVVDM(tiny).cuda()
    shake(model)
    given = {name: value.float() if value.is_floating_point() else value for name, value in arguments(tiny).items()}

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model.unet(**on_gpu(given))[0].square().mean().backward()
        return {
            name: weight.grad.double().cpu() for name, weight in model.named_parameters() if weight.grad is not None
        }

    plain = gradients()
    torch._dynamo.reset()
    model.execute(how)
    found = gradients()
    assert found.keys() == plain.keys()
    scale = max(gradient.abs().max() for gradient in plain.values())
    assert all((found[name] - gradient).abs().max() < 1e-3 * scale for name, gradient in plain.items())
