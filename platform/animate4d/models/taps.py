"""Feature taps: the named places of a network whose activations a forward pass can return.

"down_blocks.I", "mid_block" and "up_blocks.I" are block outputs, after their resampler; "<block>.resnets.J",
"<block>.attentions.J" and "<block>.motion_modules.J" are outputs of one layer, its residual included; ".temporal" and
".spatial" behind a motion module are its branches before they are blended, in its last attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from torch import nn

from animate4d.core.errors import ConfigError

LAYERS = ("resnets", "attentions", "motion_modules")
BRANCHES = ("temporal", "spatial")


def list_taps(blocks: Iterable[tuple[str, nn.Module]]) -> Iterator[str]:
    """Yield the taps of named blocks, block by block; branches are listed where the module has two."""
    for name, block in blocks:
        for kind in LAYERS:
            for index, layer in enumerate(getattr(block, kind, ())):
                yield f"{name}.{kind}.{index}"
                if kind == "motion_modules" and layer.spatial:
                    yield from (f"{name}.{kind}.{index}.{branch}" for branch in BRANCHES)
        yield name


def check_taps(taps: Iterable[str], known: Iterable[str]) -> frozenset[str]:
    """Return the taps as a set.

    Raises:
        ConfigError: one is not among the known ones.
    """
    known = tuple(known)
    for tap in taps:
        if tap not in known:
            near = get_close_matches(tap, known, n=3, cutoff=0.5) or list(known[:3])
            raise ConfigError(f"tap {tap!r} is unknown: this network has {len(known)}, such as {', '.join(near)}")
    return frozenset(taps)
