"""Point tracks for samples that carry none: computed once per (sample, view group), kept beside the shards.

Labels are made on all stored frames, because small steps are easier to follow than the model's large ones (tracking
notes, section 7), and on the very views an item shows. Each label file names its sample, views, tracker and the hash of
the pictures it was made from; it is refused for any other sample and made again when pictures or tracker are others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from animate4d.core.errors import ShardError
from animate4d.core.hashing import slug
from animate4d.core.tracks import Tracks
from animate4d.data.schema import decode_clip, decode_meta
from animate4d.data.sidecar import Sidecar, check_note, pack_sidecar
from animate4d.io.images import composite_grey
from animate4d.io.tensors import unpack_tensors
from animate4d.tracks.build import make_tracker
from animate4d.tracks.cotracker3.config import Precision, TrackingSettings
from animate4d.tracks.protocol import PointTracker
from animate4d.tracks.queries import grid_queries


class LabelSource(Protocol):
    """Whatever turns an item's members into labels; raises ShardError when they cannot be decoded."""

    def label(self, members: Mapping[str, bytes], views: Sequence[int]) -> bytes:
        """Return labels of these views as bytes for `read_labels`."""
        ...


class Labeller:
    """Computes labels, or finds them where they were kept.

    Args:
        tracker: its name.
        grid: side of the query grid.
        folder: of all labels.
        checkpoint: weights of a learned tracker.
        precision: of a learned tracker; part of its id, so labels of one are never taken for those of the other.
        device: of a learned tracker; default the GPU if there is one.

    Raises:
        ConfigError: the tracker is not available, or the folder cannot be made.
        ModelError: the tracker's checkpoint is missing or does not fit.
    """

    def __init__(
        self,
        tracker: str,
        grid: int,
        folder: Path,
        checkpoint: Path | None = None,
        *,
        precision: Precision = "fp32",
        device: str | None = None,
    ) -> None:
        settings = TrackingSettings(precision=precision)
        self._tracker = make_tracker(tracker, checkpoint=checkpoint, settings=settings, device=device)
        self._grid = grid
        self._files = Sidecar(
            folder=folder / f"{slug(self._tracker.id)}-grid{grid}",
            noun="labels",
            maker=maker_facts(self._tracker, grid),
        )
        self._files.make_folder()

    @property
    def folder(self) -> Path:
        """Where the labels of this tracker and grid are kept."""
        return self._files.folder

    def label(self, members: Mapping[str, bytes], views: Sequence[int]) -> bytes:
        """Return labels of these views as bytes for `read_labels`.

        Args:
            members: `meta.json` and the strips of these views.
            views: stored view numbers.

        Raises:
            ShardError: a member is missing or cannot be decoded, or the kept file is damaged.
            StorageError: labels cannot be read or written.
        """
        kept = self._files.find(members, views)
        return self._make(members, views) if kept is None else kept

    def keep(self, members: Mapping[str, bytes], views: Sequence[int]) -> bool:
        """See that labels of these views are kept; a damaged or unreadable file is replaced.

        Returns:
            Whether they had to be made.

        Raises:
            ShardError: a member is missing or cannot be decoded.
            StorageError: the labels cannot be written.
        """
        decode_meta(members)
        with suppress(ShardError):
            if self._files.has(members, views):
                return False
        self._make(members, views)
        return True

    def _make(self, members: Mapping[str, bytes], views: Sequence[int]) -> bytes:
        data = label_clip(self._tracker, members, views, self._grid)
        self._files.write(members, views, data)
        return data


def label_clip(tracker: PointTracker, members: Mapping[str, bytes], views: Sequence[int], grid: int) -> bytes:
    """Track a grid of points of frame 0 through all stored frames, without looking for kept labels."""
    meta = decode_meta(members)
    pictures = {name: data for name, data in members.items() if not name.endswith(".npz")}
    video = decode_clip(pictures, views=views, frames=range(len(meta.times))).video
    queries, valid = grid_queries(video.alpha[:, 0], grid)
    on_grey = composite_grey(np.concatenate([video.rgb, video.alpha[..., None]], axis=-1))
    tracks = tracker.track(on_grey, queries, video.alpha, valid)
    arrays = {
        "xy": tracks.xy.astype(np.float32),
        "visible": np.round(tracks.visible * valid[:, None] * 255).astype(np.uint8),
    }
    return pack_sidecar(members, views, arrays, maker_facts(tracker, grid))


def maker_facts(tracker: PointTracker, grid: int) -> dict[str, str]:
    """Return what labels say of how they were made: everything but the pictures that decides them."""
    return {"tracker": tracker.id, "grid": str(grid)}


def read_labels(data: bytes, sample: str, views: Sequence[int], frames: int) -> Tracks:
    """Read labels and check whose they are.

    Args:
        data: made by `label_clip`.
        sample: id of the sample they are wanted for.
        views: its views.
        frames: its stored frames.

    Returns:
        `xy [V, T, P, 2]` in stored pixels over all stored frames.

    Raises:
        ShardError: the labels are damaged, or belong to another sample or to other views.
    """
    shape = (len(views), frames, None)
    arrays, text = unpack_tensors(data, {"xy": ("float32", (*shape, 2)), "visible": ("uint8", shape)})
    note = check_note(text, "labels", sample, views)
    if "tracker" not in note:
        raise ShardError(f"labels of sample {sample} do not name their tracker: delete the labels folder")
    if arrays["xy"].shape[:3] != arrays["visible"].shape:
        raise ShardError(f"labels of sample {sample} are damaged: delete the labels folder beside the shards")
    return Tracks(xy=arrays["xy"], visible=arrays["visible"].astype(np.float32) / 255.0, tracker=note["tracker"])
