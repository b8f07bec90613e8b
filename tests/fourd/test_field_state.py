"""Checkpoints of a fit: whole, named where they do not fit, and enough to go on to the bit."""

import pytest
import torch

from animate4d.core.errors import ConfigError
from animate4d.fourd.field_config import FieldFitConfig
from animate4d.fourd.field_state import Place, adam_tensors, fingerprint, load_state, restore_adam, save_state


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path, place = tmp_path / "deep" / "fit.safetensors", Place(stage=1, steps=[12, 3], losses=[0.1, 1 / 3])
    tensors = {"a": torch.randn(3, 2).T, "b": torch.tensor(7)}
    save_state(path, "id", place, tensors)
    found, kept = load_state(path, "id")
    assert found == place
    assert kept.keys() == tensors.keys()
    assert all(torch.equal(kept[name], tensors[name]) for name in tensors)
    assert [file.name for file in path.parent.iterdir()] == ["fit.safetensors"]


def test_no_file_is_no_checkpoint(tmp_path):
    assert load_state(tmp_path / "none.safetensors", "id") is None


def test_checkpoints_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "fit.safetensors"
    save_state(path, "one", Place(), {"a": torch.zeros(3)})
    with pytest.raises(ConfigError, match=r"fit\.safetensors is of a fit with another object"):
        load_state(path, "two")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ConfigError, match=r"fit\.safetensors is damaged .*delete it"):
        load_state(path, "one")


def test_a_fingerprint_depends_on_settings_and_every_tensor():
    one, two = torch.zeros(3), torch.ones(3)
    base = fingerprint(FieldFitConfig(), [one, None])
    assert base == fingerprint(FieldFitConfig(), [one.clone()])
    assert len({base, fingerprint(FieldFitConfig(seed=1), [one]), fingerprint(FieldFitConfig(), [two])}) == 3


def test_a_restored_optimiser_takes_the_same_steps():
    def descend(leaves, optimiser, steps):
        for _ in range(steps):
            optimiser.zero_grad()
            sum((leaf - 1).square().sum() * (1 + n) for n, leaf in enumerate(leaves)).backward()
            optimiser.step()

    def fresh():
        leaves = [torch.zeros(4, requires_grad=True), torch.full((2, 3), 3.0, requires_grad=True)]
        return leaves, torch.optim.Adam([{"params": leaves[:1], "lr": 0.1}, {"params": leaves[1:], "lr": 0.01}])

    whole, optimiser = fresh()
    descend(whole, optimiser, 7)
    first, optimiser = fresh()
    descend(first, optimiser, 4)
    kept = adam_tensors(optimiser) | {"other": torch.zeros(1)}
    second, optimiser = fresh()
    with torch.no_grad():
        for leaf, value in zip(second, first, strict=True):
            leaf.copy_(value)
    restore_adam(optimiser, kept)
    descend(second, optimiser, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole, second, strict=True))
