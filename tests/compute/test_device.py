import pytest
import torch

from animate4d.compute.device import pick_device
from animate4d.core.errors import ConfigError


@pytest.mark.parametrize("there", [False, True])
def test_the_device_is_the_one_asked_for(monkeypatch, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if there else "cpu")
    if there:
        assert pick_device("cuda").type == "cuda"
    else:
        with pytest.raises(ConfigError, match="fit-device is cuda: torch sees no CUDA GPU"):
            pick_device("cuda", "fit-device")
