from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch.nn.functional import scaled_dot_product_attention

from animate4d.models.attention import MultiViewAttention, TextImageAttention, views_apart, views_together

B, V, F, L, C, HEADS = 2, 3, 4, 5, 16, 2
SIZES = {"views": V, "frames": F}


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


def test_grouping_views_undoes_itself():
    tokens = torch.randn(B * V * F, L, C)
    together = views_together(tokens, V, F)
    assert together.shape == (B * F, V * L, C)
    assert torch.equal(views_apart(together, V, F), tokens)
    sample, view, frame = 1, 2, 3
    row = (sample * V + view) * F + frame
    assert torch.equal(together[sample * F + frame, view * L : (view + 1) * L], tokens[row])


def test_multi_view_attention_equals_its_definition():
    attention = self_attention(loud=True)
    branch = attention.processor
    tokens = torch.randn(B * V * F, L, C)
    result = attention(tokens, **SIZES)
    grid = tokens.view(B, V, F, L, C)
    for sample, frame in [(0, 0), (1, 2)]:
        x, first = grid[sample, :, frame].reshape(V * L, C), grid[sample, :, 0].reshape(V * L, C)
        seen = plain(attention.to_q(x), attention.to_k(x), attention.to_v(x))
        asked = plain(branch.to_q_i2v(x), attention.to_k(first), attention.to_v(first))
        expected = attention.to_out[0](seen + branch.to_out_i2v(asked)).view(V, L, C)
        torch.testing.assert_close(result.view(B, V, F, L, C)[sample, :, frame], expected, atol=1e-5, rtol=1e-4)


def test_mv2v_is_silent_at_the_start_and_copies_the_query():
    attention = self_attention(loud=False)
    tokens = torch.randn(B * V * F, L, C)
    grouped = views_together(tokens, V, F)
    query, key, value = (
        project(grouped).view(B * F, V * L, HEADS, -1).transpose(1, 2)
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    alone = attention.to_out[0](scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(tokens, **SIZES), views_apart(alone, V, F))
    assert torch.equal(attention.processor.to_q_i2v.weight, attention.to_q.weight)


def test_multi_view_attention_follows_a_permutation_of_views():
    attention = self_attention(loud=True)
    tokens = torch.randn(B, V, F, L, C)
    order = [2, 0, 1]
    straight = attention(tokens.flatten(0, 2), **SIZES).view(B, V, F, L, C)
    permuted = attention(tokens[:, order].flatten(0, 2), **SIZES).view(B, V, F, L, C)
    torch.testing.assert_close(permuted, straight[:, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("image_tokens", [0, 2])
def test_cross_attention_reads_text_per_sample_and_images_per_view(image_tokens: int):
    attention = Attention(C, cross_attention_dim=8, heads=HEADS, dim_head=C // HEADS)
    attention.set_processor(TextImageAttention(C, 8, image_tokens))
    tokens, text = torch.randn(B, V, F, L, C), torch.randn(B, 6, 8)
    images = torch.randn(B, V, image_tokens, 8)
    context = torch.cat((text, images.flatten(1, 2)), dim=1)
    result = attention(tokens.flatten(0, 2), encoder_hidden_states=context, **SIZES).view(B, V, F, L, C)
    sample, view, frame = 1, 2, 3
    query = attention.to_q(tokens[sample, view, frame])
    expected = plain(query, attention.to_k(text[sample]), attention.to_v(text[sample]))
    if image_tokens:
        image = images[sample, view]
        expected = expected + plain(query, attention.processor.to_k_ip(image), attention.processor.to_v_ip(image))
    torch.testing.assert_close(result[sample, view, frame], attention.to_out[0](expected), atol=1e-5, rtol=1e-4)
