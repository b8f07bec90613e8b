from __future__ import annotations

import pytest
import torch

from animate4d.core.errors import ModelError
from animate4d.models import census
from animate4d.models.census import Census, count_weights, meta_network
from animate4d.models.config import paper, paper_sd21


def test_published_sizes_have_the_released_number_of_weights():
    """The released Animate3D network: 1526.20 M parameters, 642.70 M of them trained, 1614 tensors = 888 + 726."""
    found = count_weights(paper())
    assert found == Census(parameters=1_526_201_582, trained=642_699_562, tensors=1614, trained_tensors=888)


def test_the_other_base_has_more_weights_but_trains_the_same():
    found = count_weights(paper_sd21())
    assert (round(found.parameters / 1e6, 2), round(found.trained / 1e6, 2)) == (1540.03, 642.70)
    assert (found.tensors, found.trained_tensors) == (1614, 888)


def test_a_network_on_meta_runs_forward_without_memory():
    config = paper()
    network = meta_network(config)
    with torch.device("meta"), torch.no_grad():
        output, features = network(
            torch.empty(1, 4, 16, 4, 32, 32),
            torch.empty(1, dtype=torch.int64),
            torch.empty(1, 77, 768),
            camera=torch.empty(1, 4, 4, 4),
            frame_index=torch.empty(1, 16, dtype=torch.int64),
            image_embeds=torch.empty(1, 4, 1024),
            taps=["up_blocks.1.motion_modules.2", "up_blocks.1"],
        )
    assert output.shape == (1, 4, 16, 4, 32, 32)
    assert {tap: feature.shape[3:] for tap, feature in features.items()} == {
        "up_blocks.1.motion_modules.2": (1280, 8, 8),
        "up_blocks.1": (1280, 16, 16),
    }


def test_a_layer_that_ignores_the_meta_device_is_named(monkeypatch, tiny):
    class Stubborn(census.MultiViewUNetMotionModel):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            self.stray = torch.nn.Parameter(torch.Tensor([0.0]))

    monkeypatch.setattr(census, "MultiViewUNetMotionModel", Stubborn)
    with pytest.raises(ModelError, match="1 tensors are not on the meta device, first stray"):
        meta_network(tiny)
