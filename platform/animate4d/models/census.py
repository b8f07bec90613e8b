"""Networks without memory: their weights counted, their forward pass traced for its cost, on the meta device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from animate4d.core.errors import ModelError
from animate4d.models.config import MVVDMConfig
from animate4d.models.unet import MultiViewUNetMotionModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Census:
    """The weights of a network; "trained" is what `freeze_base` leaves.

    Attributes:
        parameters: numbers in all parameters.
        trained: numbers in those that train.
        tensors: entries of the state dict, buffers included.
        trained_tensors: entries that belong to MV2V and motion modules, buffers included.
    """

    parameters: int
    trained: int
    tensors: int
    trained_tensors: int


def meta_network(config: MVVDMConfig) -> MultiViewUNetMotionModel:
    """Build a network on the meta device: every shape and name, no numbers, no memory, in a fraction of a second.

    Raises:
        ModelError: a layer made its tensors elsewhere (some libraries' constructors ignore the device they are under).
    """
    with torch.device("meta"):
        network = MultiViewUNetMotionModel(
            config, in_channels=config.input_channels, out_channels=config.output_channels
        )
    strays = [name for name, tensor in network.state_dict().items() if not tensor.is_meta]
    if strays:
        raise ModelError(f"{len(strays)} tensors are not on the meta device, first {strays[0]}")
    return network


def count_weights(config: MVVDMConfig) -> Census:
    """Count a configuration's weights."""
    network = meta_network(config)
    network.freeze_base()
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    return Census(
        parameters=sum(sizes.values()),
        trained=sum(sizes[name] for name, parameter in network.named_parameters() if parameter.requires_grad),
        tensors=len(network.state_dict()),
        trained_tensors=sum(network.is_adapter(name) for name in network.state_dict()),
    )
