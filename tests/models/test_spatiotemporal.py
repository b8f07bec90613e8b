from __future__ import annotations

import math

import torch

from animate4d.models.spatiotemporal import SpatioTemporalAttention, SpatioTemporalTransformer, sine_encoding_2d

B, V, F, L, C, HEADS = 2, 2, 3, 4, 16, 2


def test_sine_encoding_puts_rows_first_and_alternates_sine_and_cosine():
    encoding = sine_encoding_2d(3, 5, 8).view(3, 5, 8)
    y, x = 2 / (3 + 1e-6) * 2 * math.pi, 4 / (5 + 1e-6) * 2 * math.pi
    slow = 10000 ** (-2 / 4)
    expected = [f(v) for v in (y, x) for f in (math.sin, math.cos)]
    assert torch.allclose(encoding[1, 3, [0, 1, 4, 5]], torch.tensor(expected), atol=1e-5)
    assert math.isclose(encoding[1, 3, 2].item(), math.sin(y * slow), abs_tol=1e-5)
    assert torch.equal(encoding[:, 0, :4], encoding[:, 4, :4])
    assert torch.equal(encoding[0, :, 4:], encoding[2, :, 4:])


def mixed(factor: float) -> tuple[SpatioTemporalAttention, torch.Tensor]:
    torch.manual_seed(2)
    attention = SpatioTemporalAttention(C, HEADS, max_frames=8)
    torch.nn.init.constant_(attention.mix_factor, factor)
    tokens = torch.randn(B, V, F, L, C)
    return attention, attention(tokens, sine_encoding_2d(2, 2, C), torch.tensor([[0, 2, 5]] * B))


def test_branches_are_blended_half_and_half_at_the_start():
    attention = SpatioTemporalAttention(C, HEADS, max_frames=8)
    assert attention.mix_factor.sigmoid().item() == 0.5
    _, half = mixed(0.0)
    _, space = mixed(50.0)
    _, time = mixed(-50.0)
    torch.testing.assert_close(half, (space + time) / 2, atol=1e-6, rtol=1e-5)


def test_temporal_branch_stays_at_its_place_and_spatial_branch_at_its_time():
    torch.manual_seed(2)
    attention = SpatioTemporalAttention(C, HEADS, max_frames=8)
    positions, index = sine_encoding_2d(2, 2, C), torch.tensor([[0, 2, 5]] * B)
    tokens = torch.randn(B, V, F, L, C, requires_grad=True)
    with torch.no_grad():
        attention.mix_factor.fill_(-50.0)
    attention(tokens, positions, index)[0, 1, 2, 3].sum().backward()
    touched = tokens.grad.abs().sum(-1) > 1e-9
    assert touched[0, 1, :, 3].all()
    assert touched.sum() == F
    tokens.grad = None
    with torch.no_grad():
        attention.mix_factor.fill_(50.0)
    attention(tokens, positions, index)[0, 1, 2, 3].sum().backward()
    touched = tokens.grad.abs().sum(-1) > 1e-9
    assert touched[0, :, 2].all()
    assert touched.sum() == V * L


def test_true_frame_numbers_matter():
    torch.manual_seed(2)
    attention = SpatioTemporalAttention(C, HEADS, max_frames=8)
    tokens, positions = torch.randn(1, V, F, L, C), sine_encoding_2d(2, 2, C)
    early = attention(tokens, positions, torch.tensor([[0, 1, 2]]))
    late = attention(tokens, positions, torch.tensor([[0, 1, 7]]))
    assert not torch.allclose(early, late, atol=1e-4)


def test_motion_module_is_residual_and_batches_are_independent():
    torch.manual_seed(2)
    module = SpatioTemporalTransformer(C, heads=2, norm_groups=4, max_frames=8, attentions=2, ff_mult=1, spatial=True)
    features = torch.randn(B * V * F, C, 4, 2)
    index = torch.tensor([[0, 1, 2], [0, 4, 6]])
    both = module(features, V, index)
    alone = [module(features.view(B, V * F, C, 4, 2)[b], V, index[b : b + 1]) for b in range(B)]
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-5, rtol=1e-4)
    torch.nn.init.zeros_(module.proj_out.weight)
    torch.nn.init.zeros_(module.proj_out.bias)
    assert torch.equal(module(features, V, index), features)


def test_without_its_spatial_branch_only_the_temporal_one_remains():
    full, tokens = SpatioTemporalAttention(C, HEADS, max_frames=8), torch.randn(B, V, F, L, C)
    lean = SpatioTemporalAttention(C, HEADS, max_frames=8, spatial=False)
    lean.load_state_dict(full.state_dict(), strict=False)
    torch.nn.init.constant_(full.mix_factor, -50.0)
    index, positions = torch.tensor([[0, 1, 2]] * B), sine_encoding_2d(2, 2, C)
    torch.testing.assert_close(lean(tokens, positions, index), full(tokens, positions, index))
    assert not any("_sp" in name or "mix" in name for name in lean.state_dict())
