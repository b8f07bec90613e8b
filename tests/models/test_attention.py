from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention

from animate4d.models.attention import MultiViewAttention, TextImageAttention, attend

B, V, F, L, C, HEADS = 2, 3, 4, 5, 16, 2


def self_attention(loud: bool) -> Attention:
    torch.manual_seed(3)
    attention = Attention(C, heads=HEADS, dim_head=C // HEADS)
    processor = MultiViewAttention(C)
    processor.start_from(attention)
    if loud:
        torch.nn.init.normal_(processor.to_out_i2v.weight, std=0.3)
        torch.nn.init.normal_(processor.to_q_i2v.weight, std=0.3)
    attention.set_processor(processor)
    return attention


def plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """One head at a time, spelled out: tokens `[L, C]`."""
    outputs = []
    for head in range(HEADS):
        part = slice(head * C // HEADS, (head + 1) * C // HEADS)
        scores = query[:, part] @ key[:, part].T / (C // HEADS) ** 0.5
        outputs.append(scores.softmax(-1) @ value[:, part])
    return torch.cat(outputs, dim=-1)


def views_attend(attention: Attention, tokens: torch.Tensor) -> torch.Tensor:
    """Attend from `[b, f, n, l, c]` tokens."""
    return attention.processor(attention, tokens.flatten(2, 3).flatten(0, 1), tokens.shape[1]).view_as(tokens)


def gradients(result: torch.Tensor, *sources: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(5))
    return list(torch.autograd.grad((result * weights).sum(), sources, retain_graph=True))


def test_fused_attention_equals_its_definition_in_values_and_gradients():
    tokens = [torch.randn(3, length, C, requires_grad=True) for length in (5, 7, 7)]
    fused = attend(*tokens, HEADS)
    spelled = torch.stack([plain(*(each[row] for each in tokens)) for row in range(3)])
    torch.testing.assert_close(fused, spelled, atol=1e-6, rtol=1e-5)
    for found, expected in zip(gradients(fused, *tokens), gradients(spelled, *tokens), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_more_sequences_than_a_kernel_takes_are_attended_in_parts(limit: int):
    tokens = [torch.randn(5, length, C, requires_grad=True) for length in (3, 4, 4)]
    whole, parts = attend(*tokens, HEADS), attend(*tokens, HEADS, limit=limit)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)
    for found, expected in zip(gradients(parts, *tokens), gradients(whole, *tokens), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_multi_view_attention_equals_its_definition_in_values_and_gradients():
    """out = W_O(A + W'_O A'), the second output projection inside the first, keys of frame 0 of all views."""
    attention = self_attention(loud=True)
    branch = attention.processor
    tokens = torch.randn(B, F, V, L, C, requires_grad=True)
    result = views_attend(attention, tokens)
    spelled = torch.zeros_like(result)
    for sample in range(B):
        first = tokens[sample, 0].flatten(0, 1)
        for frame in range(F):
            x = tokens[sample, frame].flatten(0, 1)
            seen = plain(attention.to_q(x), attention.to_k(x), attention.to_v(x))
            asked = plain(branch.to_q_i2v(x), attention.to_k(first), attention.to_v(first))
            spelled[sample, frame] = attention.to_out[0](seen + branch.to_out_i2v(asked)).view(V, L, C)
    torch.testing.assert_close(result, spelled, atol=1e-5, rtol=1e-4)
    sources = (tokens, *attention.parameters())
    for found, expected in zip(gradients(result, *sources), gradients(spelled, *sources), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_mv2v_copies_the_query_and_is_exactly_silent_until_its_output_is_perturbed():
    attention = self_attention(loud=False)
    tokens = torch.randn(B, F, V, L, C)
    with_branch = views_attend(attention, tokens)
    assert torch.equal(attention.processor.to_q_i2v.weight, attention.to_q.weight)
    torch.nn.init.normal_(attention.processor.to_out_i2v.weight, std=0.1)
    assert (views_attend(attention, tokens) - with_branch).abs().max() > 1e-3
    attention.set_processor(MultiViewAttention(C, mv2v=False))
    assert torch.equal(views_attend(attention, tokens), with_branch)
    assert not list(attention.processor.parameters())


def test_multi_view_attention_follows_a_permutation_of_views():
    attention = self_attention(loud=True)
    tokens = torch.randn(B, F, V, L, C)
    order = [2, 0, 1]
    permuted = views_attend(attention, tokens[:, :, order])
    torch.testing.assert_close(permuted, views_attend(attention, tokens)[:, :, order], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("image_tokens", [0, 2])
def test_cross_attention_reads_text_per_sample_and_images_per_view(image_tokens: int):
    attention = Attention(C, cross_attention_dim=8, heads=HEADS, dim_head=C // HEADS)
    attention.set_processor(TextImageAttention(C, 8, image_tokens))
    branch = attention.processor
    tokens, text = torch.randn(B, F, V, L, C, requires_grad=True), torch.randn(B, 6, 8, requires_grad=True)
    image = torch.randn(B, V, image_tokens, 8, requires_grad=True) if image_tokens else None
    result = branch(attention, tokens.flatten(0, 2), text, image).view_as(tokens)
    spelled = torch.zeros_like(result)
    for sample in range(B):
        for frame in range(F):
            for view in range(V):
                query = attention.to_q(tokens[sample, frame, view])
                seen = plain(query, attention.to_k(text[sample]), attention.to_v(text[sample]))
                if image is not None:
                    prompt = image[sample, view]
                    seen = seen + plain(query, branch.to_k_ip(prompt), branch.to_v_ip(prompt))
                spelled[sample, frame, view] = attention.to_out[0](seen)
    torch.testing.assert_close(result, spelled, atol=1e-5, rtol=1e-4)
    sources = (tokens, text) if image is None else (tokens, text, image)
    for found, expected in zip(gradients(result, *sources), gradients(spelled, *sources), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
