"""Feature taps: the named places of a network whose activations a forward pass can return.

"down_blocks.I", "mid_block" and "up_blocks.I" are block outputs, after their resampler; "<block>.resnets.J",
"<block>.attentions.J" and "<block>.motion_modules.J" are outputs of one layer, its residual included; ".temporal" and
".spatial" behind a motion module are its branches before they are blended, in its last attention.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from animate4d.core.errors import ConfigError
from animate4d.models.config import MVVDMConfig

BRANCHES = ("temporal", "spatial")
"""Of a motion module."""


def layer_taps(config: MVVDMConfig, block: str, index: int, level: int) -> tuple[str, ...]:
    """Return the taps of layer `index` of a block in the order they are passed.

    The middle block starts with a ResNet block of its own; there, layer 1 is attention and motion module 0 and ResNet
    block 1 behind them.
    """
    resnet = f"{block}.resnets.{index}"
    if block == "mid_block" and index == 0:
        return (resnet,)
    number = index - 1 if block == "mid_block" else index
    motion = f"{block}.motion_modules.{number}"
    inner = []
    if block == "mid_block" or config.attention_levels[level]:
        inner.append(f"{block}.attentions.{number}")
    branches = BRANCHES if config.spatial_levels[level] else BRANCHES[:1]
    inner += [f"{motion}.{branch}" for branch in branches]
    inner.append(motion)
    return (*inner, resnet) if block == "mid_block" else (resnet, *inner)


def check_taps(taps: Iterable[str], known: Collection[str]) -> frozenset[str]:
    """Return the taps as a set.

    Raises:
        ConfigError: one is not among the known ones.
    """
    wanted = frozenset(taps)
    for tap in sorted(wanted.difference(known)):
        near = get_close_matches(tap, known, n=3, cutoff=0.5) or sorted(known)[:3]
        raise ConfigError(f"tap {tap!r} is unknown: this network has {len(known)}, such as {', '.join(near)}")
    return wanted
