"""The plain network out of diffusers' blocks gives what ours gives, and costs what was published."""

from dataclasses import replace

import pytest
import torch

from animate4d.bench.cost import count_flops
from animate4d.bench.twin import map_encoding
from animate4d.bench.works import WORKS
from animate4d.models.config import paper, paper_sd21
from animate4d.models.sampler import Sampler


def largest_difference(ours, plain):
    return float((ours - plain).abs().max() / plain.abs().max())


@pytest.mark.parametrize("work", ["forward", "forward, guided", "sampling"])
def test_the_plain_twin_gives_the_same_result(make_plan, tiny, work):
    plan = make_plan(tiny)
    ours, plain = WORKS[work](plan)(), WORKS[f"plain {work}"](plan)()
    assert plain.std() > 0.05
    assert largest_difference(ours, plain) < 1e-4


@pytest.mark.parametrize("changes", [{"spatial_levels": (True, True), "motion_attentions": 2}, {"layers_per_block": 2}])
def test_the_twin_follows_the_configuration(make_plan, tiny, changes):
    if tiny.preset != "smoke":
        pytest.skip("its presets fix these")
    plan = make_plan(replace(tiny, **changes))
    assert largest_difference(WORKS["forward"](plan)(), WORKS["plain forward"](plan)()) < 1e-4


def test_every_weight_of_ours_counts_in_the_twin(make_plan, tiny):
    """A twin that ignored a part would be no yardstick: changing any weight changes both alike."""
    from animate4d.bench.twin import PlainModel

    plan = make_plan(tiny)
    subject = plan.subject()
    inputs = subject.forward_inputs(1)
    with torch.no_grad():
        for name, weight in subject.model.unet.named_parameters():
            if any(part in name for part in ("i2v", "_sp", "_ip", "mix_factor", "position_map", "frame_embedding")):
                weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
        plain = PlainModel(subject.model)
        ours = subject.model(**inputs).prediction
        assert largest_difference(ours, plain.predicted(plain.forward(**inputs), inputs["first_frame"])) < 1e-4


def test_map_encoding_counts_y_before_x():
    encoding = torch.tensor(map_encoding(3, 8)).view(3, 3, 8)
    assert torch.equal(encoding[0, :, :4], encoding[0, :1, :4].expand(3, 4))
    assert torch.equal(encoding[:, 0, 4:], encoding[:1, 0, 4:].expand(3, 4))


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "tflop"), [(paper, 25.97), (paper_sd21, 26.04)])
def test_the_twin_costs_what_the_published_network_does(make_plan, preset, tflop):
    plan = make_plan(preset(), device="meta")
    assert count_flops(WORKS["plain forward"](plan)) / 1e12 == pytest.approx(tflop, abs=0.005)


def test_sampling_uses_the_same_steps_and_guidance(make_plan, tiny):
    plan = make_plan(tiny, steps=2)
    other = make_plan(tiny, steps=2, guidance=1.5)
    assert Sampler(plan.subject().model).steps == tiny.sample_steps
    assert largest_difference(WORKS["sampling"](plan)(), WORKS["plain sampling"](other)()) > 1e-4
