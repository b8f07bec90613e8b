"""Settings of shard building."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from animate4d.core.errors import ConfigError
from animate4d.pipeline.clip_options import ClipOptions, Light


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildShardsConfig:
    """Render every clip of every asset into WebDataset shards; running the same command again does what is missing."""

    assets: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ASSETS")]
    """Folder of .glb and .gltf files (searched below, too), or one file."""

    out: Path = Path("out/shards")
    """Folder of the shards, index.json, report.csv, contact.png. All workers must see it."""

    views: int = 16
    """Cameras, evenly around the object."""

    frames: int = 16
    """Frames per clip, evenly spaced over its duration."""

    size: int = 64
    """Pixels per side of a frame; even."""

    elevation_deg: float = 15.0
    """Camera height in degrees above the horizon."""

    samples: int = 2
    """Rays per pixel side; 2 gives 4 rays and 5 levels of coverage."""

    max_seconds: float = 4.0
    """Longer clips are cut to their first seconds."""

    limit: int | None = None
    """Use only the first so many asset files, in order of their names."""

    captions: Path | None = None
    """CSV with columns file,clip,caption; default captions.csv beside the assets, where there is one."""

    licence: str = ""
    """Licence of the assets, stored with every sample."""

    light: Light = "own"
    """own: our lights, exact and quick; baked: four lights that Blender bakes into vertex colours (paper 000); cycles:
    ray-traced by Blender, 0.2 s a picture."""

    blender: Path | None = None
    """A blender program, or a Python that has bpy, for light baked and cycles. It stays a process of its own."""

    blender_samples: int = 16
    """Cycles samples per pixel or vertex."""

    samples_per_shard: int = 32
    """Clips per shard file."""

    workers: int | None = None
    """Assets rendered at once; unset: one per CPU."""

    asset_minutes: float = 30.0
    """An asset that takes longer is stopped and counts as failed."""

    def __post_init__(self) -> None:
        for name in ("limit", "workers", "samples_per_shard"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: give at least 1")
        if not self.asset_minutes > 0:
            raise ConfigError(f"asset_minutes is {self.asset_minutes}: give a positive number")
        self.clip_options()

    def clip_options(self) -> ClipOptions:
        """Return what concerns a single clip."""
        return ClipOptions(
            views=self.views,
            frames=self.frames,
            size=self.size,
            elevation_deg=self.elevation_deg,
            samples=self.samples,
            max_seconds=self.max_seconds,
            licence=self.licence,
            light=self.light,
            blender=self.blender,
            blender_samples=self.blender_samples,
            blender_minutes=self.asset_minutes,
        )
