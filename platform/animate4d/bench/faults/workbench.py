"""The real parts in which faults are made to happen: shards of generated objects, streams, runs, a small Ray."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from animate4d.assets.procedural import generate_objects
from animate4d.data.batch import TrainingBatch
from animate4d.data.config import DataConfig
from animate4d.data.loader import ClipStream, open_stream
from animate4d.data.order import Cursor
from animate4d.io.shards import ShardWriter
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples

OBJECTS, CLIPS_EACH, PER_SHARD = 7, 2, 5
VIEWS = 8
ITEMS = OBJECTS * CLIPS_EACH * VIEWS
"""Items per epoch where every view is an item: above 100, so that one damaged picture is less than the 1 % allowed."""

START = Cursor()

Item = tuple[str, str]
"""Id of a training item, and the hash of all that training sees of it."""


class Workbench:
    """Makes what scenarios share when it is first asked for; everything lies in one folder of the caller's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fresh = itertools.count()

    def fresh_folder(self, name: str) -> Path:
        """Return an empty folder of its own for a scenario."""
        path = self.folder / f"{name}-{next(self._fresh)}"
        path.mkdir(parents=True)
        return path

    @cached_property
    def members(self) -> dict[str, dict[str, bytes]]:
        """Real samples: sample key -> member -> bytes."""
        found = {}
        options = ClipOptions(views=VIEWS, frames=8, size=32, samples=1, min_motion=0.0, max_outside=1.0)
        for path in generate_objects(self.folder / "objects", count=OBJECTS, seed=3, clips_per_object=CLIPS_EACH):
            for outcome in clip_samples(path, options):
                assert outcome.members is not None, outcome.reason
                found[outcome.key] = outcome.members
        return found

    def write_shards(
        self,
        name: str,
        *,
        damage: Callable[[dict[str, bytes]], dict[str, bytes]] | None = None,
        per_shard: int = PER_SHARD,
    ) -> Path:
        """Write all samples into shards of their own; `damage` spoils the members of the one in the middle."""
        folder = self.fresh_folder(name) / "shards"
        with ShardWriter(folder, max_samples=per_shard) as writer:
            for key, members in self.members.items():
                writer.write(key, damage(members) if damage and key == self.victim else members)
        return folder

    @property
    def victim(self) -> str:
        """Key of the sample in the middle of the shard in the middle."""
        return list(self.members)[PER_SHARD + PER_SHARD // 2]

    def copy_shards(self, name: str) -> Path:
        """Return a copy of the sound shards that a scenario may spoil."""
        return shutil.copytree(self.shards, self.fresh_folder(name) / "shards")

    @cached_property
    def shards(self) -> Path:
        """Sound shards."""
        return self.write_shards("sound")

    @property
    def mlflow(self) -> str:
        """URI of a store for all runs."""
        return f"sqlite:///{self.folder}/mlflow.db"

    @cached_property
    def epoch(self) -> list[Item]:
        """The items of one undisturbed epoch, in order."""
        return read_items(data_config(self.shards))


def data_config(shards: Path, **changes: Any) -> DataConfig:
    """Return what the streams of the bench read: single views, so that a clip is eight items."""
    config = DataConfig(
        shards=shards,
        size=32,
        views=1,
        frames=4,
        stride=2,
        frames_per_step=3,
        points=4,
        flow=False,
        batch_size=1,
        prefetch=0,
    )
    return replace(config, **changes)


def read_steps(stream: ClipStream, start: Cursor, steps: int) -> Iterator[list[Item]]:
    """Yield the items of each of so many steps from a cursor."""
    batches: Any = stream.batches(start)
    with closing(batches):
        for batch, _ in itertools.islice(batches, steps):
            yield identify(batch)


def read_items(config: DataConfig, start: Cursor = START, items: int = ITEMS) -> list[Item]:
    """Return so many items from a cursor."""
    steps = read_steps(open_stream(config), start, items // config.batch_size)
    return [item for step in steps for item in step]


def identify(batch: TrainingBatch) -> list[Item]:
    """Return the items of a batch; a number that is none makes it an item that no sound run has."""
    tensors = (batch.video, batch.mask, batch.camera, batch.frame_index, batch.tracks, batch.visible)
    arrays = [tensor.numpy() for tensor in tensors]
    items = []
    for number, name in enumerate(batch.sample_ids):
        parts = [np.ascontiguousarray(array[number]) for array in arrays]
        finite = all(np.isfinite(part).all() for part in parts)
        digest = hashlib.sha256(b"".join(part.tobytes() for part in parts))
        items.append((name, digest.hexdigest() if finite else "not finite"))
    return items


def differences(expected: Sequence[Item], found: Sequence[Item], named: Collection[str] = ()) -> int:
    """Count the places at which two runs differ without a word.

    Args:
        expected: items of the undisturbed run.
        found: items of the disturbed one, from the same place on.
        named: ids that the platform said it left out; something else stands in their places.
    """
    pairs = itertools.zip_longest(expected, found)
    return sum(one != other and (one is None or one[0] not in named) for one, other in pairs)
