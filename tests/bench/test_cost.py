"""FLOPs and memory found out on meta, against closed forms and the published network's numbers."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from animate4d.bench.cost import REST, count_bytes, count_flops, flops_by_part
from animate4d.bench.works import WORKS
from animate4d.models.config import paper, paper_sd21, smoke

TERA = 1e12


def meta(*shape, grad=False):
    return torch.empty(shape, device="meta", requires_grad=grad)


def test_attention_is_seen_on_meta_forward_and_backward():
    query, key = meta(2, 3, 5, 8, grad=True), meta(2, 3, 7, 8, grad=True)
    forward = 2 * 2 * (2 * 3 * 5 * 7 * 8)  # two products, two FLOPs per multiply-add
    assert count_flops(lambda: scaled_dot_product_attention(query, key, key)) == forward
    assert count_flops(lambda: scaled_dot_product_attention(query, key, key).sum().backward()) == 3 * forward


def test_bytes_follow_what_lives_at_the_same_time():
    start = meta(1000)

    def work():
        first = start + 1
        second = first * 2
        del first
        third = second * 2  # as large as `first`, which is gone
        return third.view(10, 100)

    assert count_bytes(work) == 2 * 4000


def test_bytes_do_not_hold_the_scores_of_fused_attention_even_where_it_runs_again():
    tokens = meta(1, 1, 512, 8, grad=True)

    def work():
        checkpoint(scaled_dot_product_attention, tokens, tokens, tokens, use_reentrant=False).sum().backward()

    assert count_bytes(work) < 512 * 512 * 4


def test_attention_on_meta_falls_apart_again_afterwards():
    tokens = meta(1, 1, 16, 8)
    before = count_flops(lambda: scaled_dot_product_attention(tokens, tokens, tokens))
    count_bytes(lambda: scaled_dot_product_attention(tokens, tokens, tokens))
    assert count_flops(lambda: scaled_dot_product_attention(tokens, tokens, tokens)) == before > 0


@pytest.mark.parametrize(
    ("preset", "published", "repeated"),
    # The published network works out keys and values of text and image anew for every frame; ours once per clip.
    [
        pytest.param(paper, 25.97, 0.195, marks=pytest.mark.slow),
        pytest.param(paper_sd21, 26.04, 0.260, marks=pytest.mark.slow),
    ],
)
def test_a_forward_pass_costs_what_was_published_less_repeated_keys(make_plan, preset, published, repeated):
    plan = make_plan(preset(), device="meta")
    single, double = (count_flops(WORKS[name](plan)) / TERA for name in ("forward", "forward, guided"))
    assert single == pytest.approx(published - repeated, abs=0.006)
    assert double == pytest.approx(2 * single, rel=1e-6)


@pytest.mark.slow
def test_parts_of_the_published_size(make_plan):
    config = paper()
    plan = make_plan(config, device="meta")
    parts = flops_by_part(WORKS["forward, guided"](plan))
    assert sum(parts.values()) == count_flops(WORKS["forward, guided"](plan))
    wanted = {
        "multi-view self-attention, MV2V": 10.30,
        "their feed-forward": 4.91,
        "motion attention": 7.49 * 2,
        "motion feed-forward": 5.32,
    }
    assert {name: parts[name] / TERA for name in wanted} == pytest.approx(wanted, abs=0.006)
    assert parts[REST] < 0.05 * sum(parts.values())


@pytest.mark.slow
@pytest.mark.parametrize(("change", "saved"), [({"mv2v": False}, 2.37), ({"spatial_levels": (False,) * 4}, 5.69)])
def test_branches_of_the_published_size(make_plan, change, saved):
    whole, without = (
        count_flops(WORKS["forward"](make_plan(config, device="meta"))) / TERA
        for config in (paper(), replace(paper(), **change))
    )
    assert whole - without == pytest.approx(saved, abs=0.006)


@pytest.mark.slow
def test_a_training_step_costs_less_than_three_forward_passes_with_a_frozen_base(make_plan):
    plan = make_plan(paper(), device="meta")
    step = count_flops(WORKS["training step"](plan)) / TERA
    assert step == pytest.approx(65, abs=1)


@pytest.mark.slow
def test_checkpointing_takes_less_memory(make_plan):
    plan = make_plan(replace(smoke(), image_size=32, flow_size=16, views=2, frames=4), device="meta", clips=4)
    plain, again = WORKS["training step"](plan), WORKS["training step, checkpointing"](plan)
    assert count_bytes(again) < 0.9 * count_bytes(plain)
