"""Point tracks for samples that carry none: computed once per (sample, view group), kept beside the shards.

Labels are made on all stored frames, because small steps are easier to follow than the model's large ones (tracking
notes, section 7), and on the very views an item shows. Each label file names its sample, views, tracker and the hash of
the pictures it was made from; it is refused for any other sample and made again when the pictures have changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from animate4d.core.errors import ConfigError, ShardError
from animate4d.core.hashing import slug
from animate4d.core.tracks import Tracks
from animate4d.data.schema import decode_clip, decode_meta
from animate4d.io.arrays import pack_arrays, unpack_arrays
from animate4d.io.atomic import write_bytes
from animate4d.io.images import composite_grey
from animate4d.tracks.build import make_tracker
from animate4d.tracks.protocol import PointTracker
from animate4d.tracks.queries import grid_queries


class LabelSource(Protocol):
    """Whatever turns an item's members into labels; raises ShardError when they cannot be decoded."""

    def label(self, members: Mapping[str, bytes], views: Sequence[int]) -> bytes:
        """Return labels of these views as npz bytes for `read_labels`."""
        ...


class Labeller:
    """Computes labels, or finds them where they were kept.

    Raises:
        ConfigError: the tracker is not available, or the folder cannot be made.
        ModelError: the tracker's checkpoint is missing or does not fit.
    """

    def __init__(self, tracker: str, grid: int, folder: Path, checkpoint: Path | None = None) -> None:
        self._tracker = make_tracker(tracker, checkpoint=checkpoint)
        self._grid = grid
        self._folder = folder / f"{slug(self._tracker.id)}-grid{grid}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"data.labels: {self._folder} cannot be made ({error.strerror}): give a folder that can be written"
            ) from error

    def label(self, members: Mapping[str, bytes], views: Sequence[int]) -> bytes:
        """Return labels of these views as npz bytes for `read_labels`.

        Args:
            members: `meta.json` and the strips of these views.
            views: stored view numbers.

        Raises:
            ShardError: a member is missing or cannot be decoded.
        """
        meta = decode_meta(members)
        path = self._folder / f"{meta.id}.v{'-'.join(map(str, views))}.npz"
        pictures = pictures_hash(members, views)
        if path.exists():
            kept = path.read_bytes()
            if _note(kept)["pictures"] == pictures:
                return kept
        data = label_clip(self._tracker, members, views, self._grid)
        write_bytes(path, data)
        return data


def label_clip(tracker: PointTracker, members: Mapping[str, bytes], views: Sequence[int], grid: int) -> bytes:
    """Track a grid of points of frame 0 through all stored frames, without looking for kept labels."""
    meta = decode_meta(members)
    pictures = {name: data for name, data in members.items() if not name.endswith(".npz")}
    video = decode_clip(pictures, views=views, frames=range(len(meta.times))).video
    queries, valid = grid_queries(video.alpha[:, 0], grid)
    on_grey = composite_grey(np.concatenate([video.rgb, video.alpha[..., None]], axis=-1))
    tracks = tracker.track(on_grey, queries, video.alpha, valid)
    note = {
        "sample": meta.id,
        "views": list(views),
        "tracker": tracks.tracker,
        "pictures": pictures_hash(members, views),
    }
    return pack_arrays(
        {
            "xy": tracks.xy.astype(np.float32),
            "visible": np.round(tracks.visible * valid[:, None] * 255).astype(np.uint8),
            "note": np.frombuffer(json.dumps(note).encode(), np.uint8),
        }
    )


def read_labels(data: bytes, sample: str, views: Sequence[int], frames: int) -> Tracks:
    """Read labels and check whose they are.

    Args:
        data: npz bytes made by `label_clip`.
        sample: id of the sample they are wanted for.
        views: its views.
        frames: its stored frames.

    Returns:
        `xy [V, T, P, 2]` in stored pixels over all stored frames.

    Raises:
        ShardError: the labels are damaged, or belong to another sample or to other views.
    """
    note = _note(data)
    if (note["sample"], note["views"]) != (sample, list(views)):
        raise ShardError(
            f"labels of sample {note['sample']} views {note['views']} were offered to {sample} views {list(views)}: "
            "delete the labels folder beside the shards"
        )
    shape = (len(views), frames, None)
    arrays = unpack_arrays(data, {"xy": ("float32", (*shape, 2)), "visible": ("uint8", shape)})
    if arrays["xy"].shape[:3] != arrays["visible"].shape:
        raise ShardError(f"labels of sample {sample} are damaged: delete the labels folder beside the shards")
    return Tracks(xy=arrays["xy"], visible=arrays["visible"].astype(np.float32) / 255.0, tracker=note["tracker"])


def pictures_hash(members: Mapping[str, bytes], views: Sequence[int]) -> str:
    """Return the sha256 of what a label depends on besides its tracker: the pictures of these views."""
    digest = hashlib.sha256()
    for view in views:
        name = f"view_{view:02d}.webp"
        if name not in members:
            raise ShardError(f"{name} is missing")
        digest.update(members[name])
    return digest.hexdigest()


def _note(data: bytes) -> dict:
    note = unpack_arrays(data, {"note": ("uint8", (None,))})["note"].tobytes()
    try:
        content = json.loads(note)
    except ValueError as error:
        raise ShardError(f"kept labels are damaged ({error}): delete the labels folder beside the shards") from error
    if not isinstance(content, dict) or not {"sample", "views", "tracker", "pictures"} <= set(content):
        raise ShardError("kept labels do not say whose they are: delete the labels folder beside the shards")
    return content
