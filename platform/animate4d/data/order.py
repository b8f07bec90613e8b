"""The order of training items, computed and never stored, so that a run can stop anywhere and go on with the next item.

An item is a (sample, view group) pair. Epoch e is a permutation of all items seeded by (seed, e), and the epochs follow
one another as one endless sequence. Step k of W ranks takes the next W * batch_size items of it, rank r the r-th
batch_size of those. So every item comes exactly once per epoch, all ranks make the same number of steps however few
shards there are, and a cursor means the same to one rank as to eight: a run may resume with another number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

ORDER_STREAM, GROUP_STREAM, DRAW_STREAM, REPLACEMENT_STREAM = range(4)
"""Last word of a seed: keeps the random numbers of one purpose apart from those of another."""


@dataclass(frozen=True, order=True, slots=True)
class Cursor:
    """The next item to be used: `position` items of `epoch` are done, counted over all ranks. Stored in checkpoints."""

    epoch: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the sequence.

    Attributes:
        cursor: where it stands.
        sample: index of the sample in the shards' index.
        group: number g of its views g, g + G, g + 2 G, ... where G is the number of groups.
    """

    cursor: Cursor
    sample: int
    group: int


@dataclass(frozen=True, slots=True)
class ItemOrder:
    """The endless sequence of items. Memory: 8 bytes per item of an epoch.

    Attributes:
        samples: samples in the data set.
        groups: view groups per sample.
        seed: of the run.
        one_group: each sample once per epoch with a random group, instead of once per group.
    """

    samples: int
    groups: int
    seed: int
    one_group: bool = False

    @property
    def epoch_items(self) -> int:
        """Items per epoch."""
        return self.samples if self.one_group else self.samples * self.groups

    def item(self, cursor: Cursor) -> Item:
        """Return the item at a cursor whose position lies inside its epoch."""
        number = int(_permutation(self.seed, cursor.epoch, self.epoch_items)[cursor.position])
        if self.one_group:
            return Item(cursor, number, int(self.random(GROUP_STREAM, cursor).integers(self.groups)))
        return Item(cursor, number // self.groups, number % self.groups)

    def advance(self, cursor: Cursor, items: int) -> Cursor:
        """Return the cursor `items` further on."""
        epochs, position = divmod(cursor.position + items, self.epoch_items)
        return Cursor(cursor.epoch + epochs, position)

    def step(self, cursor: Cursor, batch_size: int, rank: int, world: int) -> tuple[list[Item], Cursor]:
        """Return one rank's items of the step at `cursor`, and the cursor of the next step (the same on all ranks)."""
        first = rank * batch_size
        items = [self.item(self.advance(cursor, first + offset)) for offset in range(batch_size)]
        return items, self.advance(cursor, batch_size * world)

    def replacement(self, item: Item, attempt: int) -> Item:
        """Return what stands in for an item that cannot be decoded: a random one, the same whenever asked again."""
        number = int(self.random(REPLACEMENT_STREAM, item.cursor, attempt).integers(self.samples * self.groups))
        return Item(item.cursor, number // self.groups, number % self.groups)

    def random(self, stream: int, cursor: Cursor, *more: int) -> np.random.Generator:
        """Return the random numbers of one purpose at one place of the sequence."""
        return np.random.default_rng((self.seed, cursor.epoch, cursor.position, stream, *more))


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, items: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, ORDER_STREAM)).permutation(items)
