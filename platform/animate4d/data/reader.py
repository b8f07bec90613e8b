"""From an item to an example, in two halves: fetch (encoded bytes and labels, may run anywhere) and decode (late).

Both loaders are made of these halves. What cannot be decoded is skipped, named, counted and replaced by another item
drawn from the same seed; shards that are gone, cut or lack the wanted tracks stop the run, as does failing storage.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from animate4d.core.errors import ShardError, StorageError
from animate4d.core.tracks import Tracks
from animate4d.data.batch import Example
from animate4d.data.config import DataConfig
from animate4d.data.decode import ItemDecoder
from animate4d.data.labels import Labeller, read_labels
from animate4d.data.order import Item
from animate4d.data.store import ShardStore

log = logging.getLogger(__name__)

SKIP_WINDOW = 1000
"""Items over which the share of undecodable ones is judged at least, unless an epoch is shorter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedItem:
    """An item before decoding; small enough to travel.

    Attributes:
        sample: shard key.
        group: view group.
        members: the sample's members that this group needs.
        labels: computed labels (`labels.read_labels`), empty where none are computed.
        damage: why the item cannot be labelled, empty if nothing is wrong; the item will be skipped.
        fatal: why the shards cannot be read, empty if they can; the run will stop here.
    """

    sample: str
    group: int
    members: Mapping[str, bytes]
    labels: bytes = b""
    damage: str = ""
    fatal: str = ""


class ItemReader:
    """Everything one process needs to turn items into examples.

    Attributes:
        order: the sequence of items.
        skipped: id -> reason of the items that could not be decoded.
    """

    def __init__(self, config: DataConfig, *, cache_bytes: int = 0, device: str | None = None) -> None:
        """Open the shards; raises ShardError or ConfigError where they do not fit.

        Args:
            config: what is wanted.
            cache_bytes: see `ShardStore`.
            device: of a learned tracker; default the GPU if there is one.
        """
        self.store = ShardStore(config.shards, cache_bytes=cache_bytes, keep=config.keep, split=config.split)
        self.decoder = ItemDecoder.open(config, self.store)
        self.order = self.decoder.order
        self.skipped: dict[str, str] = {}
        self._max_bad_share = config.max_bad_share
        self._labeller = None
        if config.computes_labels:
            self._labeller = Labeller(
                config.tracker,
                config.grid,
                config.labels_folder,
                config.tracker_checkpoint,
                precision=config.tracker_precision,
                device=device,
            )
        self._held: dict[tuple[str, int], Tracks] = {}
        self._seen = self._bad = 0

    def fetch(self, item: Item) -> EncodedItem:
        """Read an item's members, without labels.

        Raises:
            ShardError: the shard is gone or damaged, or has no tracks where the tracker is "exact".
        """
        sample = self.store.keys[item.sample]
        members = self.store.read(item.sample, self.decoder.members(item.group))
        self.decoder.check_exact(sample, members)
        return EncodedItem(sample=sample, group=item.group, members=members)

    def label(self, encoded: EncodedItem) -> EncodedItem:
        """Add computed labels, or the reason why there are none; items pass through where none are computed.

        Raises:
            StorageError: labels cannot be read or kept; no item is to blame.
        """
        if self._labeller is None or encoded.fatal or (encoded.sample, encoded.group) in self._held:
            return encoded
        try:
            return replace(encoded, labels=self._labeller.label(encoded.members, self.decoder.views(encoded.group)))
        except StorageError:
            raise
        except ShardError as error:
            return replace(encoded, damage=str(error))

    def example(self, item: Item, encoded: EncodedItem | None = None) -> Example:
        """Return the example of an item, or of its replacement where it cannot be decoded.

        Args:
            item: the item.
            encoded: the item fetched and labelled by someone else; None to do that here.

        Raises:
            ShardError: too many items cannot be decoded, or what `fetch` raises.
        """
        attempt, wanted = 0, item
        while True:
            encoded = encoded or self.label(self.fetch(wanted))
            if encoded.fatal:
                raise ShardError(encoded.fatal)
            assert (encoded.sample, encoded.group) == (self.store.keys[wanted.sample], wanted.group), (
                "rows out of order"
            )
            self._seen += 1
            try:
                if encoded.damage:
                    raise ShardError(encoded.damage)
                return self.decoder.decode(wanted, encoded.sample, encoded.members, self._tracks(encoded))
            except StorageError:
                raise
            except ShardError as error:
                self._skip(encoded, error)
            attempt, encoded = attempt + 1, None
            wanted = self.order.replacement(item, attempt)

    def _tracks(self, encoded: EncodedItem) -> Tracks | None:
        """Return an item's computed labels, None where none are computed."""
        place = encoded.sample, encoded.group
        if place in self._held or not encoded.labels:
            return self._held.get(place)
        tracks = read_labels(
            encoded.labels, encoded.sample, self.decoder.views(encoded.group), self.decoder.stored_frames
        )
        if self.store.in_memory:  # its pictures cannot change any more: labels were checked against them once for all
            self._held[place] = tracks
        return tracks

    def _skip(self, encoded: EncodedItem, error: ShardError) -> None:
        name = f"{encoded.sample}/{encoded.group}"
        self._bad += 1
        if name not in self.skipped:
            self.skipped[name] = str(error)
            log.warning("skipped %s: %s", name, error)
        if self._bad > self._max_bad_share * max(self._seen, min(SKIP_WINDOW, self.order.epoch_items)):
            raise ShardError(
                f"{self._bad} of {self._seen} items read cannot be decoded (limit {self._max_bad_share:.0%}), the last "
                f"one {name} in {self.store.folder}: {error}; build the shards again, or leave it out with --keep-list"
            ) from error
