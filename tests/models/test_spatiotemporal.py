from __future__ import annotations

import math

import pytest
import torch

from animate4d.models.conditions import sine_encoding_2d
from animate4d.models.spatiotemporal import SpatioTemporalAttention, SpatioTemporalBlock, SpatioTemporalTransformer

B, F, V, H, W, C, HEADS = 2, 3, 2, 2, 3, 16, 2
L = H * W
INDEX = torch.tensor([[0, 2, 5], [0, 1, 2]])
POSITIONS = sine_encoding_2d(H, W, C)


def attention(**options: object) -> SpatioTemporalAttention:
    torch.manual_seed(2)
    return SpatioTemporalAttention(C, HEADS, max_frames=8, **options)


def spelled_attention(tokens: torch.Tensor, project: list[torch.nn.Module], out: torch.nn.Module) -> torch.Tensor:
    """One head at a time for tokens `[L, C]`."""
    query, key, value = (layer(tokens) for layer in project)
    heads = []
    for head in range(HEADS):
        part = slice(head * C // HEADS, (head + 1) * C // HEADS)
        scores = query[:, part] @ key[:, part].T / (C // HEADS) ** 0.5
        heads.append(scores.softmax(-1) @ value[:, part])
    return out(torch.cat(heads, dim=-1))


def spelled_blend(module: SpatioTemporalAttention, tokens: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Loop over samples, views and cells for time, over samples and frames for space; tokens `[b, f, n, l, c]`."""
    temporal, spatial = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for b in range(B):
        for n in range(V):
            for cell in range(L):
                timed = torch.stack([tokens[b, f, n, cell] + time_encoding(int(INDEX[b, f])) for f in range(F)])
                temporal[b, :, n, cell] = spelled_attention(
                    timed, [module.to_q, module.to_k, module.to_v], module.to_out[0]
                )
        for f in range(F):
            placed = (tokens[b, f] + POSITIONS).flatten(0, 1)
            spatial[b, f] = spelled_attention(
                placed, [module.to_q_sp, module.to_k_sp, module.to_v_sp], module.to_out_sp
            ).view(V, L, C)
    return share * spatial + (1 - share) * temporal


def time_encoding(frame: int) -> torch.Tensor:
    angles = [frame * math.exp(-math.log(10000.0) * (i - i % 2) / C) for i in range(C)]
    return torch.tensor([math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angles)])


def gradients(result: torch.Tensor, sources: list[torch.Tensor]) -> list[torch.Tensor]:
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(5))
    return list(torch.autograd.grad((result * weights).sum(), sources))


def test_sine_encoding_equals_an_independent_computation():
    """Half the channels for y, then half for x; rows and columns count from 1 up to 2 pi; sine first, then cosine."""
    height, width, channels = 3, 5, 8
    encoding = sine_encoding_2d(height, width, channels)
    half = channels // 2
    for row in range(height):
        for column in range(width):
            expected = []
            for place, count in ((row, height), (column, width)):
                scaled = (place + 1) / (count + 1e-6) * 2 * math.pi
                for i in range(half):
                    angle = scaled / 10000 ** (2 * (i // 2) / half)
                    expected.append(math.cos(angle) if i % 2 else math.sin(angle))
            torch.testing.assert_close(encoding[row * width + column], torch.tensor(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("factor", [0.0, 1.3])
def test_attention_equals_its_definition_in_values_and_gradients(factor: float):
    module = attention()
    torch.nn.init.constant_(module.mix_factor, factor)
    tokens = torch.randn(B, F, V, L, C, requires_grad=True)
    blend = module(tokens, POSITIONS, INDEX)[0]
    spelled = spelled_blend(module, tokens, module.mix_factor.sigmoid())
    torch.testing.assert_close(blend, spelled, atol=1e-5, rtol=1e-4)
    sources = [tokens, *module.parameters()]
    for found, expected in zip(gradients(blend, sources), gradients(spelled, sources), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_branches_are_blended_half_and_half_at_the_start_and_returned_beside():
    module = attention()
    assert module.mix_factor.sigmoid().item() == 0.5
    blend, temporal, spatial = module(torch.randn(B, F, V, L, C), POSITIONS, INDEX)
    torch.testing.assert_close(blend, (spatial + temporal) / 2, atol=1e-6, rtol=1e-5)


def test_who_owns_the_blend():
    """One scalar per attention, one per module, or none; the sum is the same wherever the scalar is the same."""
    tokens = torch.randn(B, F, V, L, C)
    outputs = {}
    for blend in ("attention", "module", "fixed"):
        torch.manual_seed(2)
        block = SpatioTemporalBlock(C, HEADS, 8, attentions=2, ff_mult=1, spatial=True, blend=blend)
        owners = [name for name, _ in block.named_parameters() if "mix_factor" in name]
        assert (
            owners
            == {
                "attention": ["attn1.mix_factor", "attn2.mix_factor"],
                "module": ["mix_factor"],
                "fixed": [],
            }[blend]
        )
        outputs[blend] = [block(tokens, POSITIONS, INDEX)[0]]
        for parameter in (value for name, value in block.named_parameters() if "mix_factor" in name):
            torch.nn.init.constant_(parameter, 1.5)
        outputs[blend].append(block(tokens, POSITIONS, INDEX)[0])
    assert torch.equal(outputs["attention"][1], outputs["module"][1])
    assert torch.equal(outputs["fixed"][0], outputs["fixed"][1])
    torch.testing.assert_close(outputs["attention"][0], outputs["fixed"][0], atol=1e-6, rtol=1e-5)
    assert (outputs["attention"][1] - outputs["fixed"][1]).abs().max() > 1e-3


def test_temporal_branch_stays_at_its_place_and_spatial_branch_at_its_time():
    tokens = torch.randn(B, F, V, L, C, requires_grad=True)
    _, temporal, spatial = attention()(tokens, POSITIONS, INDEX)
    for branch, reached in ((temporal, (0, slice(None), 1, 3)), (spatial, (0, 2))):
        touched = torch.autograd.grad(branch[0, 2, 1, 3].sum(), tokens, retain_graph=True)[0].abs().sum(-1) > 1e-9
        assert touched[reached].all()
        assert touched.sum() == touched[reached].numel()


def test_true_frame_numbers_matter():
    module, tokens = attention(), torch.randn(1, F, V, L, C)
    early = module(tokens, POSITIONS, torch.tensor([[0, 1, 2]]))[0]
    late = module(tokens, POSITIONS, torch.tensor([[0, 1, 7]]))[0]
    assert not torch.allclose(early, late, atol=1e-4)


def test_chunks_of_sequences_change_nothing():
    tokens = torch.randn(B, F, V, L, C, requires_grad=True)
    whole, parts = attention(), attention()
    parts.chunk = 5
    results = [module(tokens, POSITIONS, INDEX)[0] for module in (whole, parts)]
    torch.testing.assert_close(results[1], results[0], atol=1e-6, rtol=1e-5)
    found, expected = (
        gradients(result, [tokens, *module.parameters()])
        for module, result in zip((parts, whole), reversed(results), strict=True)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_motion_module_equals_its_definition():
    """Group norm over a view's whole clip, projection, block, projection, residual; rows are (sample, frame, view)."""
    torch.manual_seed(2)
    module = SpatioTemporalTransformer(C, heads=2, norm_groups=4, max_frames=8, attentions=2, ff_mult=1, spatial=True)
    grid = torch.randn(B, F, V, C, H, W)
    mixed, temporal, spatial = module(grid.flatten(0, 2), INDEX, POSITIONS)
    normed = torch.zeros_like(grid)
    size = C // 4
    for b in range(B):
        for n in range(V):
            for group in range(4):
                part = grid[b, :, n, group * size : (group + 1) * size]
                normed[b, :, n, group * size : (group + 1) * size] = (part - part.mean()) / (
                    part.var(unbiased=False) + 1e-6
                ).sqrt()
    tokens = module.proj_in(normed.permute(0, 1, 2, 4, 5, 3).flatten(3, 4))
    tokens, *branches = module.transformer_blocks[0](tokens, POSITIONS, INDEX)
    expected = grid + module.proj_out(tokens).transpose(3, 4).unflatten(4, (H, W))
    torch.testing.assert_close(mixed.view_as(grid), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(temporal, branches[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(spatial, branches[1], atol=1e-5, rtol=1e-4)
    torch.nn.init.zeros_(module.proj_out.weight)
    torch.nn.init.zeros_(module.proj_out.bias)
    assert torch.equal(module(grid.flatten(0, 2), INDEX, POSITIONS)[0].view_as(grid), grid)


def test_without_its_spatial_branch_only_the_temporal_one_remains():
    full, lean = attention(), attention(spatial=False)
    lean.load_state_dict(full.state_dict(), strict=False)
    tokens = torch.randn(B, F, V, L, C)
    blend, temporal, spatial = lean(tokens, None, INDEX)
    assert spatial is None
    torch.testing.assert_close(temporal, full(tokens, POSITIONS, INDEX)[1])
    assert torch.equal(blend, temporal)
    assert not any("_sp" in name or "mix" in name for name in lean.state_dict())
