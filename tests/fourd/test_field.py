"""The motion field: kernels against their twin, and a new field that moves nothing."""

import math

import numpy as np
import pytest
import torch

from animate4d.core.errors import ConfigError
from animate4d.fourd.field import MotionField, apply_heads, cosine_basis, euler_quats, frame_times
from animate4d.fourd.field_config import DistillConfig, FieldConfig, FieldFitConfig, PlaneConfig, paper, released
from animate4d.fourd.field_native import head_outputs
from animate4d.fourd.raster_torch import factors_from_quats

PLANES = (PlaneConfig(side=9, steps=4, channels=8),)


def field_of(extra=0, **changes) -> MotionField:
    return MotionField(FieldConfig(planes=PLANES, **changes), extra, torch.Generator().manual_seed(0))


def shaken(field: MotionField) -> MotionField:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return field


def ask(field, points, frames=3, extra=None, *, sizes=True, backend="native", body=None):
    times = frame_times(torch.arange(1, frames + 1), frames + 1)
    body = len(points) if body is None else body
    return field(points, times, extra, body=body, sizes=sizes, backend=backend)


@pytest.fixture
def points():
    return 1.6 * torch.rand(40, 3, generator=torch.Generator().manual_seed(1)) - 0.8


@pytest.mark.parametrize(("rows", "inputs", "heads"), [(1, 8, 1), (131, 24, 3), (1200, 16, 2)])
def test_heads_match_their_twin(rows, inputs, heads):
    generator = torch.Generator().manual_seed(rows)
    tensors = [
        torch.randn(*shape, generator=generator) for shape in ((rows, inputs), (heads, inputs, 32), (heads, 32, 8))
    ]
    weights = torch.randn(rows, heads, 8, generator=generator)
    results = []
    for function in (head_outputs, apply_heads):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        found = function(*leaves)
        (found * weights).sum().backward()
        results.append([found.detach(), *(leaf.grad for leaf in leaves)])
    for got, want in zip(*results, strict=True):
        assert float((got - want).norm() / want.norm()) < 1e-5


def test_the_twin_of_the_heads_has_the_gradient_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (2, 4, 5), (2, 5, 8))
    leaves = [torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(apply_heads, leaves, eps=1e-6, atol=1e-6)


def test_heads_do_not_hide_what_is_no_number():
    inputs = torch.tensor([[float("nan")] * 8, [float("inf")] * 8, [1.0] * 8])
    first, second = torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(0)), torch.ones(1, 32, 8)
    for function in (head_outputs, apply_heads):
        assert function(inputs, first, second).isfinite().all((1, 2)).tolist() == [False, False, True]


def test_threads_do_not_change_a_bit_of_the_heads():
    generator = torch.Generator().manual_seed(2)
    tensors = [torch.randn(*shape, generator=generator) for shape in ((5000, 16), (3, 16, 32), (3, 32, 8))]
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            leaves = [tensor.clone().requires_grad_() for tensor in tensors]
            found = head_outputs(*leaves)
            found.square().sum().backward()
        finally:
            torch.set_num_threads(1)
        results.append([found.detach(), *(leaf.grad for leaf in leaves)])
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize("global_motion", [False, True])
def test_both_backends_are_one_field(points, global_motion):
    extra = torch.randn(3, 40, 8, generator=torch.Generator().manual_seed(2))
    results = []
    for backend in ("native", "torch"):
        field = shaken(field_of(8, global_motion=global_motion))
        found = ask(field, points, extra=extra, backend=backend, body=30)
        quats = torch.nn.functional.normalize(torch.ones(30, 4), dim=-1)
        moved, turned = found.move(points), found.turned(quats, 30)
        assert moved.shape == (3, 40, 3)
        assert turned.shape == (3, 30, 4)
        (moved.square().sum() + turned.sum().square() + found.size.exp().sum()).backward()
        results.append([moved.detach(), turned.detach(), *(parameter.grad for parameter in field.parameters())])
    for got, want in zip(*results, strict=True):
        assert float((got - want).norm() / want.norm()) < 1e-4


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_new_field_moves_nothing_to_the_bit(points, backend):
    found = ask(field_of(global_motion=True), points, backend=backend)
    quats = torch.nn.functional.normalize(torch.randn(40, 4, generator=torch.Generator().manual_seed(3)), dim=-1)
    for frame in range(3):
        np.testing.assert_array_equal(found.move(points).detach()[frame], points)
        np.testing.assert_array_equal(found.turned(quats, 40).detach()[frame], quats)
    np.testing.assert_array_equal(found.size.detach().exp(), torch.ones(3, 40, 3))


def test_yet_every_layer_learns_from_the_first_steps(points):
    field = field_of(global_motion=True)
    optimiser = torch.optim.Adam(field.parameters(), 1e-2)
    for _ in range(2):
        found = ask(field, points)
        loss = (found.move(points) - points - 0.1).square().sum() + (found.rotation - 0.1).square().sum()
        loss = loss + (found.size - 0.1).square().sum() + (found.turn - 0.1).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in field.parameters())


def test_sizes_are_asked_for_only_when_wanted(points):
    assert ask(shaken(field_of()), points, sizes=False).size is None


def test_global_motion_comes_before_the_offset(points):
    field = field_of(global_motion=True)
    with torch.no_grad():
        field.global_second[0].fill_(0.3)
        field.global_second[1].fill_(-0.2)
    found = ask(field, points, frames=1)
    moved = found.move(points).detach()[0]
    # rigid: distances stay
    before, after = (torch.pdist(places.double()) for places in (points, moved))
    np.testing.assert_allclose(after, before, atol=2e-6)
    assert float((moved - points).norm(dim=-1).mean()) > 0.05
    turn = factors_from_quats(found.turn[0], torch.ones(3)).detach()
    np.testing.assert_allclose(moved, points @ turn.T + found.shift[0].detach(), atol=1e-6)
    identity = torch.tensor([[1.0, 0, 0, 0]]).expand(40, 4)
    np.testing.assert_allclose(found.turned(identity, 40).detach()[0], found.turn.detach().expand(40, 4), atol=1e-6)


def test_euler_angles_turn_about_x_then_y_then_z():
    angles = torch.tensor([0.3, -0.7, 1.1])
    single = [factors_from_quats(euler_quats(angles * torch.eye(3)[axis]), torch.ones(3)) for axis in range(3)]
    assert single[0][2].tolist() == pytest.approx([0, math.sin(0.3), math.cos(0.3)], abs=1e-6)
    whole = factors_from_quats(euler_quats(angles), torch.ones(3))
    np.testing.assert_allclose(whole, single[2] @ single[1] @ single[0], atol=1e-6)


def test_colour_waves_are_pinned_at_frame_0_and_span_the_papers_cosines():
    frames = torch.arange(16)
    basis = cosine_basis(frames, 16, 5)
    assert basis.shape == (16, 4)
    np.testing.assert_array_equal(basis[0], torch.zeros(4))
    papers = torch.stack([torch.cos(i * math.pi * frames / 16) for i in range(5)], 1)
    ours = torch.cat([torch.ones(16, 1), basis], 1)
    assert float((ours @ torch.linalg.lstsq(ours, papers).solution - papers).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlaneConfig(channels=12), r"planes\.channels is 12: give a multiple of 8"),
        (lambda: PlaneConfig(side=1), r"planes\.side is 1: expected 2 to 512"),
        (lambda: FieldConfig(planes=()), r"field\.planes is empty"),
        (lambda: FieldConfig(hidden=20), r"field\.hidden is 20"),
        (lambda: FieldConfig(sizes="late"), r"field\.sizes is 'late': give one of never, refine, always"),
        (lambda: FieldFitConfig(rigidity=float("nan")), r"field_fit\.rigidity is nan"),
        (lambda: FieldFitConfig(gradient_share=0.0), r"field_fit\.gradient_share is 0"),
        (lambda: FieldFitConfig(frames="some"), r"field_fit\.frames is 'some': give one of all, light"),
        (lambda: DistillConfig(least_noise=0.5), r"distill noise is 0\.5 to 0\.2"),
        (lambda: DistillConfig(elevations=(30, 0)), r"distill\.elevations is 30 to 0"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_presets_differ_where_the_released_code_left_the_papers():
    ours, theirs = paper(), released()
    assert ours.frame_steps * 15 + ours.full_steps == 750
    assert theirs.frame_steps * 15 + theirs.full_steps == 800
    assert len(theirs.field.planes) == 2
