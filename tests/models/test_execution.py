from __future__ import annotations

import shutil

import pytest
import torch

from animate4d.core.errors import ConfigError
from animate4d.models.execution import ExecutionConfig
from animate4d.models.mv_vdm import MVVDM

TAPS = ["up_blocks.1", "mid_block.motion_modules.0.temporal", "up_blocks.1.attentions.0"]


def outcome(unet: torch.nn.Module, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return output, features and gradients of everything, by name."""
    given = given | {"sample": given["sample"].clone().requires_grad_()}
    output, features = unet(**given, taps=TAPS)
    loss = output.square().mean() + sum(feature.square().mean() for feature in features.values())
    names = [name for name, parameter in unet.named_parameters() if parameter.requires_grad]
    sources = [given["sample"], *(unet.get_parameter(name) for name in names)]
    gradients = torch.autograd.grad(loss, sources)
    return {"output": output, **features} | dict(zip(("sample", *names), gradients, strict=True))


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= tolerance * max(1.0, value.abs().max().item()), name


@pytest.fixture
def saved_bytes():
    """Run a function and count the bytes autograd keeps of it, each storage once."""

    def measured(run) -> int:
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            result = run()
        del result
        return sum(kept.values())

    return measured


@pytest.mark.parametrize("frozen", [False, True])
def test_checkpointing_changes_memory_and_nothing_else(published, network, arguments, saved_bytes, frozen: bool):
    unet, given = network(published), arguments(published)
    if frozen:
        unet.freeze_base()
    plain = outcome(unet, given)
    weights = sum(parameter.nbytes for parameter in unet.parameters())
    ran = []
    unet.up_blocks[1].motion_modules[0].register_forward_pre_hook(lambda *_: ran.append(1))
    kept = saved_bytes(lambda: unet(**given))
    unet.checkpoint_layers = True
    less = saved_bytes(lambda: unet(**given))
    # Left of what autograd keeps are weights, resamplers, first and last convolution. (Checkpointing itself holds each
    # layer's input, one map where the layer keeps dozens.)
    assert less - weights < 0.35 * (kept - weights)
    ran.clear()
    same(outcome(unet, given), plain, 1e-12)
    assert len(ran) == 2
    ran.clear()
    with torch.no_grad():
        unet(**given)
    assert len(ran) == 1


@pytest.mark.parametrize(
    "how", [ExecutionConfig(channels_last=True), ExecutionConfig(temporal_chunk=7), ExecutionConfig()]
)
def test_memory_options_change_no_value_and_no_gradient(tiny, arguments, shake, how: ExecutionConfig):
    model = MVVDM(tiny)
    shake(model)
    model.unet.double()
    given = arguments(tiny)
    plain = outcome(model.unet, given)
    names = list(model.state_dict())
    model.execute(how)
    same(outcome(model.unet, given), plain, 1e-11)
    assert list(model.state_dict()) == names
    assert model.unet.conv_in.weight.is_contiguous(memory_format=model.unet.memory_format)
    model.execute(ExecutionConfig())
    same(outcome(model.unet, given), plain, 1e-11)
    assert model.unet.up_blocks[0].resnets[0].conv1.weight.is_contiguous()


def test_half_precision_is_close(published, network, arguments):
    unet, given = network(published), arguments(published)
    with torch.no_grad():
        exact, features = unet(**given, taps=TAPS)
        rough, rough_features = unet.to(torch.bfloat16)(**given, taps=TAPS)
    assert rough.dtype == torch.bfloat16
    for found, expected in ((rough, exact), *((rough_features[tap], features[tap]) for tap in TAPS)):
        assert found.isfinite().all()
        # bfloat16 keeps 8 bits; errors of some thirty layers add up like noise.
        assert (found - expected).square().mean().sqrt() < 0.05 * expected.square().mean().sqrt()


def test_half_precision_by_autocast_is_close(tiny, network, arguments):
    unet = network(tiny).float()
    given = {name: value.float() if value.is_floating_point() else value for name, value in arguments(tiny).items()}
    exact, _ = unet(**given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = unet(**given)
    assert (rough - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()
    rough.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in unet.parameters() if p.grad is not None)


def compiled(unet: torch.nn.Module, backend: str) -> torch.nn.Module:
    torch._dynamo.reset()
    unet.compile(backend=backend, fullgraph=True, dynamic=False)
    return unet


@pytest.mark.slow
def test_the_network_compiles_as_one_graph(tiny, arguments, shake):
    """`fullgraph` turns a graph break into an error; weights keep their names; compiler "none" undoes it."""
    model = MVVDM(tiny).eval()
    shake(model)
    names = list(model.state_dict())
    given = {name: value.float() if value.is_floating_point() else value for name, value in arguments(tiny).items()}
    with torch.no_grad():
        plain, features = model.unet(**given, taps=TAPS)
        torch._dynamo.reset()
        model.execute(ExecutionConfig(compiler="aot_eager"))
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        found, found_features = model.unet(**given, taps=TAPS)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs + 1
        same({"output": found, **found_features}, {"output": plain, **features}, 1e-5)
        assert list(model.state_dict()) == names
        model.execute(ExecutionConfig())
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert torch.equal(model.unet(**given)[0], plain)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_traced_network_trains_alike(published, network, arguments, checkpointed: bool):
    unet, given = network(published), arguments(published)
    plain = outcome(unet, given)
    unet.checkpoint_layers = checkpointed
    same(outcome(compiled(unet, "aot_eager"), given), plain, 1e-9)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_network_trains_alike(tiny, network, arguments):
    unet = network(tiny).float()
    given = {name: value.float() if value.is_floating_point() else value for name, value in arguments(tiny).items()}
    plain = outcome(unet, given)
    same(outcome(compiled(unet, "inductor"), given), plain, 1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compiler": "gcc"}, "execution.compiler is 'gcc'"),
        ({"compile_mode": "max-autotune"}, "only compiler inductor has modes"),
        ({"temporal_chunk": -1}, "temporal_chunk is -1"),
        ({"codec_chunk": 0}, "codec_chunk 0"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        ExecutionConfig(**options)
