import pickle
from pathlib import Path

import pytest
import torch

from animate4d.core.errors import ModelError
from animate4d.core.hashing import hash_file
from animate4d.tracks.cotracker3.checkpoint import load_cotracker3
from animate4d.tracks.cotracker3.model import time_table


@pytest.fixture
def saved(tmp_path):
    def save(content) -> Path:
        torch.save(content, tmp_path / "weights.pth")
        return tmp_path / "weights.pth"

    return save


def fault(path: Path) -> str:
    with pytest.raises(ModelError) as error:
        load_cotracker3(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def test_both_layouts_load_and_are_told_apart(released, saved):
    state = dict(released.state_dict())
    path = saved({"model": state})
    model, fingerprint = load_cotracker3(path)
    assert not model.config.online
    assert fingerprint == hash_file(path)
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model, other = load_cotracker3(saved(state | {"time_emb": time_table(16, 1110)}))
    assert model.config.online
    assert model.config.window == 16
    assert other != fingerprint


def test_loading_leaves_the_random_numbers_alone(released, saved):
    path = saved(released.state_dict())
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load_cotracker3(path)
    assert torch.equal(torch.rand(3), wanted)


def test_a_missing_file_says_where_to_get_one(tmp_path):
    said = fault(tmp_path / "scaled_offline.pth")
    assert "huggingface.co/facebook/cotracker3" in said
    assert "CC BY-NC" in said


def test_anything_but_tensors_is_refused(tmp_path, saved):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    assert "more than tensors" in fault(saved({"model": Evil()}))
    path = tmp_path / "plain.pth"
    path.write_bytes(pickle.dumps(Evil()))
    assert "more than tensors" in fault(path)
    path.write_bytes(b"")
    assert "damaged" in fault(path)
    path.write_bytes(saved({"a": torch.zeros(9)}).read_bytes()[:-40])
    assert "damaged" in fault(path)
    assert not (tmp_path / "touched").exists()
    assert "list" in fault(saved([torch.zeros(3)]))


def test_other_networks_are_refused_with_the_first_difference_of_each_kind(released, saved):
    state = dict(released.state_dict())
    said = fault(saved({name: tensor for name, tensor in state.items() if "layer4" not in name}))
    assert "10 missing (fnet.layer4.0.conv1.weight)" in said
    said = fault(saved(state | {"fnet.norm1.weight": torch.ones(3)}))
    assert "1 unknown (fnet.norm1.weight)" in said
    said = fault(saved(state | {"corr_mlp.fc1.weight": torch.ones(384, 200), "corr_mlp.fc2.bias": 3}))
    assert "2 of another shape (corr_mlp.fc1.weight is (384, 200), expected (384, 2401))" in said
    assert "missing" not in said
    assert "188 missing" in fault(saved({}))
