"""The device to compute on, by the word of an option."""

from __future__ import annotations

import torch

from animate4d.core.errors import ConfigError


def pick_device(word: str, option: str = "device") -> torch.device:
    """Return the device asked for: cpu, cuda, or auto, which is a GPU where torch sees one.

    Args:
        word: what was asked.
        option: its name, for the message.

    Raises:
        ConfigError: it is not there.
    """
    there = torch.cuda.is_available()
    if word == "cuda" and not there:
        raise ConfigError(f"{option} is cuda: torch sees no CUDA GPU here; leave it out to use the CPU")
    return torch.device("cuda" if word == "cuda" or (word == "auto" and there) else "cpu")
