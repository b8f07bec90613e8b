"""Which samples train and which are held out: by object, so that no model is judged on an object it has seen.

The split depends on the objects' names alone: it is the same for every seed, order of shards and number of workers.
Different objects of one name count as one. That makes shares coarser and never puts an object on both sides, which
going by content would: an object's animations may come from files of their own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from animate4d.core.errors import ConfigError

CLIP_PART = re.compile(r"-[0-9a-f]{8}-\d{2,}-\d{5,}$")
"""What follows the object in a sample key: hash of its source, animation, first frame in milliseconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One side of the split.

    Attributes:
        share: of the objects that are held out, rounded down to whole objects.
        part: which side.
    """

    share: float
    part: Literal["train", "held_out"]

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 0.5:
            raise ConfigError(f"held_out is {self.share}: give a share from 0 to 0.5")

    def choose(self, keys: Iterable[str]) -> list[str]:
        """Return this side's samples in the order given."""
        keys = list(keys)
        objects = sorted({object_of(key) for key in keys}, key=lambda name: hashlib.sha256(name.encode()).digest())
        # 1e-9: a tenth of ten objects is one, whatever 0.1 is in binary.
        away = set(objects[: int(self.share * len(objects) + 1e-9)])
        return [key for key in keys if (object_of(key) in away) == (self.part == "held_out")]


def object_of(key: str) -> str:
    """Return the object's name in a sample key; a key of another form is an object of its own."""
    return CLIP_PART.sub("", key)
