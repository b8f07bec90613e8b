"""The sides of the comparison, all as endless iterators of the same batches' work.

The webdataset package reads the very shards with its own tar reader and one worker process of its WebLoader. Its
decoder is ours, since its own would take other work (and unpickles what it finds): per item the same members, views,
frames and size, then the same collate. A sample is read once and gives an item per view group, which spares it the
seeks of our random order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from animate4d.data.batch import TrainingBatch, collate
from animate4d.data.config import DataConfig
from animate4d.data.loader import open_stream
from animate4d.data.order import Cursor, Item
from animate4d.data.reader import ItemReader
from animate4d.io.shards import read_index

Side = Callable[[DataConfig], Iterator[TrainingBatch]]


def ours(loader: Any, config: DataConfig, *, start: Cursor | None = None) -> Iterator[TrainingBatch]:
    """Read with one of our loaders, from the first epoch on."""
    batches = open_stream(replace(config, loader=loader)).batches(start or Cursor())
    return (batch for batch, _ in batches)


def webdataset(config: DataConfig) -> Iterator[TrainingBatch]:
    """Read with webdataset's own loader, shard by shard."""
    import webdataset as wds

    urls = [str(config.shards / info.name) for info in read_index(config.shards)]
    samples = wds.WebDataset(urls, shardshuffle=False, empty_check=False).repeat()
    items = samples.compose(DecodeItems(config)).batched(config.batch_size, collation_fn=collate)
    return iter(wds.WebLoader(items, batch_size=None, num_workers=1))


@dataclass(slots=True)
class DecodeItems:
    """Turns webdataset's samples into our items, one per view group."""

    config: DataConfig

    def __call__(self, samples: Iterator[dict[str, Any]]) -> Iterator[Any]:
        """Yield the examples of all samples."""
        reader = ItemReader(self.config)
        numbers = {key: number for number, key in enumerate(reader.store.keys)}
        place = Cursor()
        for sample in samples:
            key = sample["__key__"]
            for group in range(reader.order.groups):
                members = {name: sample[name] for name in reader.decoder.members(group) if name in sample}
                yield reader.decoder.decode(Item(place, numbers[key], group), key, members, None)
                place = reader.order.advance(place, 1)


SIDES: dict[str, Side] = {
    "ray": partial(ours, "ray"),
    "inprocess": partial(ours, "inprocess"),
    "webdataset": webdataset,
}
"""Loaders by name."""

WORK = {
    "ray": "a reading task sends encoded items by the object store; a thread of the consumer decodes, 1 batch ahead",
    "inprocess": "a thread of the consumer takes encoded items from memory (or reads them) and decodes, 1 batch ahead",
    "webdataset": "a worker process of its WebLoader reads shards through and decodes, 2 batches ahead",
}
"""What each of them does. Decoding, most of the work, is the same code on one core for all."""
