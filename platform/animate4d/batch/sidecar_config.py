"""Settings of the jobs that compute what training would otherwise compute on the way: labels and latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from animate4d.core.errors import ConfigError
from animate4d.tracks.build import COMPUTED, EXACT, NONE, check_tracker
from animate4d.tracks.cotracker3.config import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelTracksConfig:
    """Track points on every clip of a folder of shards and keep the labels where training looks for them."""

    shards: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SHARDS")]
    """Folder of shards with its index.json."""

    tracker: str = "opencv-lk"
    """opencv-lk, opencv-dis, cotracker3 or cotracker3-official; exact (stored in the shards) for a preview only."""

    checkpoint: Path | None = None
    """Weights of cotracker3, scaled_offline.pth or scaled_online.pth (CC BY-NC 4.0, as the labels may be then)."""

    precision: Precision = "fp32"
    """Arithmetic of cotracker3: bf16 is meant for GPUs. Labels of the two are kept apart; training takes its own
    --tracker-precision."""

    grid: int = 15
    """Side of the grid of points in frame 0 (paper 001 section 3.2; training uses 15)."""

    views: int = 4
    """Views per item of training (4 in every preset)."""

    keep_list: Path | None = None
    """List of the clips to label, as written by jobs/curate_shards.py; default all."""

    labels: Path | None = None
    """Where labels are kept; default `labels` beside the shards. Give training the same --labels."""

    preview: int = 0
    """Clips drawn with their tracks into tracks.html, evenly chosen; 0 for no page."""

    workers: int | None = None
    """Clips labelled at once; unset: one per CPU, or as many as the GPUs hold."""

    gpu_share: float = 0.5
    """Share of a GPU that each worker of a learned tracker takes, where there are GPUs."""

    def __post_init__(self) -> None:
        check_counts(self, {"grid": 1, "views": 1, "preview": 0, "workers": 1})
        check_share(self.gpu_share)
        check_tracker(self.tracker, self.checkpoint, self.precision)
        if self.tracker == NONE:
            raise ConfigError(f"tracker none makes no labels: give one of {', '.join(COMPUTED)}")
        if self.tracker == EXACT and not self.preview:
            raise ConfigError("tracker exact: these tracks are in the shards already; add --preview 6 to look at them")
        if self.checkpoint is not None and not self.checkpoint.expanduser().is_file():
            raise ConfigError(f"checkpoint is {self.checkpoint}: there is no such file")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeLatentsConfig:
    """Encode every clip of a folder of shards once; training draws its latents from what is kept (--latents)."""

    shards: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SHARDS")]
    """Folder of shards with its index.json."""

    model: Path
    """Model folder whose autoencoder encodes; its config says the picture size and the views per item."""

    latents: Path | None = None
    """Where latents are kept; default `latents` beside the shards. 32 kB per view and frame at 256 px."""

    keep_list: Path | None = None
    """List of the clips to encode, as written by jobs/curate_shards.py; default all."""

    workers: int | None = None
    """Clips encoded at once; unset: one per GPU, or one per CPU where there is no GPU."""

    gpu_share: float = 1.0
    """Share of a GPU that each worker takes, where there are GPUs."""

    def __post_init__(self) -> None:
        check_counts(self, {"workers": 1})
        check_share(self.gpu_share)


def check_counts(config: object, least: dict[str, int]) -> None:
    """Check that the named fields are unset or large enough; raises ConfigError."""
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise ConfigError(f"{name} is {value}: give at least {bound}")


def check_share(share: float) -> None:
    """Check a share of a GPU; raises ConfigError."""
    if not 0 < share <= 1:
        raise ConfigError(f"gpu_share is {share}: give more than 0 and at most 1")
