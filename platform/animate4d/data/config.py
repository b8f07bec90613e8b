"""What the trainer reads and in which order. The defaults are those of the `smoke` preset; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from animate4d.core.errors import ConfigError
from animate4d.data.split import Split
from animate4d.tracks.build import COMPUTED, LEARNED, check_tracker
from animate4d.tracks.cotracker3.config import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Clips for training: which views and frames of which shards, how many at a time, and who labels their tracks."""

    shards: Path
    """Folder of shards with its index.json, as written by jobs/build_shards.py."""
    keep: Path | None = None
    """List of the samples to use, one key per line, such as keep.txt by jobs/curate_shards.py; default all."""
    split: Split | None = None
    """Side of the split by object to read; None reads both."""
    size: int = 64
    """Image side the model sees, pixels; larger shards are averaged down, smaller ones refused."""
    views: int = 4
    """Views per item, evenly spread over the stored ones: 4 of 16 gives the groups (i, i+4, i+8, i+12)."""
    view_groups: Literal["all", "one"] = "all"
    """all: every group of views is one item per epoch; one: each clip once per epoch, with a random group."""
    frames: int = 8
    """Frames of a clip the model knows."""
    stride: int = 2
    """Every how many stored frames one is taken, starting with the first."""
    frames_per_step: int | None = 4
    """Frames trained per step: the first and this many minus one random others; None: all frames."""
    points: int = 8
    """Tracked points per view and step (paper 001 section 3.2)."""
    tracker: str = "exact"
    """exact (labels stored by the renderer), opencv-lk, opencv-dis, cotracker3, cotracker3-official, or none."""
    tracker_checkpoint: Path | None = None
    """Weights of cotracker3: scaled_offline.pth (clips of 30-60 frames) or scaled_online.pth (16), CC BY-NC 4.0."""
    tracker_precision: Precision = "fp32"
    """Arithmetic of cotracker3: bf16 is meant for GPUs. Labels of the two are kept apart."""
    grid: int = 15
    """Side of the query grid for trackers that label (paper 001 section 3.2)."""
    labels: Path | None = None
    """Folder in which computed labels are kept; default `labels` beside the shards."""
    latents: Path | None = None
    """Folder of latents that jobs/encode_latents.py kept; default none, the trainer encodes."""
    codec: str = ""
    """Id of the codec the latents must be of; given together with `latents`."""
    flow: bool = True
    """Read the exact backward flow where shards have it."""
    batch_size: int = 4
    """Items per rank and step."""
    seed: int = 0
    """Seed of order, frames and points; one seed gives one sequence of batches, whatever the loader."""
    loader: Literal["inprocess", "ray"] = "inprocess"
    """inprocess: read in the trainer's process; ray: Ray Data tasks read and label ahead of the trainer."""
    cache_mb: int = 1024
    """In-process loader: shards up to this size together are checked in full and held in memory, encoded."""
    prefetch: int = 1
    """Batches prepared ahead in a background thread; 0 prepares them when asked."""
    readers: int = 1
    """Ray loader: reading tasks at a time, per rank."""
    labellers: int = 1
    """Ray loader: labelling actors per rank."""
    labeller_gpus: float | None = None
    """Ray loader: share of a GPU for each labelling actor of cotracker3, where the cluster has GPUs. Default: of GPUs
    that no trainer needs, else 0.25 of its trainer's for all labellers of a rank. 0 labels on the CPU."""
    stream_cpus: float = 0.25
    """Ray loader: CPUs each reader and labeller asks the cluster for."""
    max_bad_share: float = 0.01
    """Share of undecodable items that is skipped and named before the run stops."""

    def __post_init__(self) -> None:
        checks = [
            ("size", self.size >= 8, "at least 8"),
            ("views", self.views >= 1, "at least 1"),
            ("view_groups", self.view_groups in ("all", "one"), "all or one"),
            ("frames", self.frames >= 1, "at least 1"),
            ("stride", self.stride >= 1, "at least 1"),
            ("frames_per_step", self.frames_per_step is None or 1 <= self.frames_per_step <= self.frames, "1..frames"),
            ("points", self.points >= 1, "at least 1"),
            ("grid", self.grid >= 1, "at least 1"),
            ("codec", bool(self.codec) == (self.latents is not None), "an id with data.latents, else nothing"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("seed", 0 <= self.seed < 2**63, "0 <= seed < 2^63"),
            ("loader", self.loader in ("inprocess", "ray"), "inprocess or ray"),
            ("cache_mb", self.cache_mb >= 0, "0 or more"),
            ("prefetch", self.prefetch >= 0, "0 or more"),
            ("readers", self.readers >= 1, "at least 1"),
            ("labellers", self.labellers >= 1, "at least 1"),
            ("labeller_gpus", self.labeller_gpus is None or 0 <= self.labeller_gpus <= 1, "0 to 1"),
            ("stream_cpus", self.stream_cpus > 0, "more than 0"),
            ("max_bad_share", 0 <= self.max_bad_share <= 0.5, "0 to 0.5"),
        ]
        for name, good, expected in checks:
            if not good:
                raise ConfigError(f"data.{name} is {getattr(self, name)!r}: expected {expected}")
        check_tracker(self.tracker, self.tracker_checkpoint, self.tracker_precision)

    @property
    def stored_frames(self) -> tuple[int, ...]:
        """Indices of the model's frames among the stored ones."""
        return tuple(range(0, self.frames * self.stride, self.stride))

    @property
    def computes_labels(self) -> bool:
        """Whether tracks are computed and kept, and not stored in the shards or left out."""
        return self.tracker in COMPUTED

    @property
    def gpu_labellers(self) -> int:
        """Labelling actors per rank that can use a GPU."""
        return self.labellers if self.loader == "ray" and self.tracker in LEARNED else 0

    @property
    def labels_folder(self) -> Path:
        """Where computed labels are kept."""
        return self.labels or self.shards / "labels"
