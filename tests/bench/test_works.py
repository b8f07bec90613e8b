"""Pieces of work run on the code paths of a GPU: bf16, other layouts, every preset's structure."""

import pytest
import torch

from animate4d.bench.works import WORKS


@pytest.mark.parametrize("name", ["forward, guided", "cached forward, guided", "sampling", "sampling, FreeInit"])
def test_inference_runs_in_bf16(make_plan, tiny, name):
    found = WORKS[name](make_plan(tiny, precision="bf16", execution={"channels_last": True}))()
    exact = WORKS[name](make_plan(tiny))()
    assert torch.isfinite(found).all()
    share = float((found.float() - exact).norm() / exact.norm())
    assert 1e-4 < share < 0.3


def test_the_same_seed_builds_the_same_work(make_plan, tiny):
    first, again, other = (WORKS["forward"](make_plan(tiny, seed=seed))() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_checkpointing_changes_no_loss(make_plan, tiny):
    losses = []
    for name in ("training step", "training step, checkpointing"):
        step = WORKS[name](make_plan(tiny))
        step()
        losses.append(step.__self__.losses[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_decoding_gives_pictures(make_plan, tiny):
    if tiny.preset != "paper":
        pytest.skip("only measured with an autoencoder, which all such presets share")
    pictures = WORKS["decode"](make_plan(tiny))()
    assert pictures.shape == (1, tiny.views, tiny.frames, 3, tiny.image_size, tiny.image_size)


def test_nothing_is_compiled_to_be_counted(make_plan, tiny):
    plan = make_plan(tiny, device="meta", execution={"compiler": "inductor", "compile_mode": "max-autotune"})
    assert plan.runs().compiler == "none"
