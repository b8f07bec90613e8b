"""Shards to measure on: rendered objects, and samples as large as asked for."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from animate4d.assets.procedural import generate_objects
from animate4d.core.cameras import Rig
from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import ConfigError
from animate4d.core.tracks import Tracks
from animate4d.data.config import DataConfig
from animate4d.data.schema import ClipMeta, decode_meta, encode_sample
from animate4d.data.store import ShardStore
from animate4d.io.shards import ShardWriter
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples

SEED = 0
VIEWS, FRAMES = 4, 16
SHARD_CLIPS = 8


def rendered_shards(folder: Path, clips: int, size: int) -> Path:
    """Render procedural objects, with exact tracks and flow; about 0.5 CPU-seconds a clip at 64 px."""
    paths = generate_objects(folder / "objects", count=(clips + 1) // 2, seed=SEED, clips_per_object=2)
    outcomes = (outcome for path in paths for outcome in clip_samples(path, ClipOptions(size=size)))
    with ShardWriter(folder / "shards", max_samples=SHARD_CLIPS) as writer:
        for outcome in islice((outcome for outcome in outcomes if outcome.members), clips):
            assert outcome.members is not None
            writer.write(outcome.key, outcome.members)
    return folder / "shards"


def noise_shards(folder: Path, clips: int, sample_bytes: int) -> Path:
    """Write clips of noise, which hardly shrinks, of one size each; all show the same, under names of their own."""
    # Noise takes 3 bytes a pixel: alpha is plain.
    size = max(16, 2 * round((sample_bytes / (VIEWS * FRAMES * 3)) ** 0.5 / 2))
    rgb = np.random.default_rng(SEED).integers(0, 256, (VIEWS, FRAMES, size, size, 3), dtype=np.uint8)
    rig = Rig.even(VIEWS)
    video = MultiViewVideo(
        rgb=rgb,
        alpha=np.full(rgb.shape[:-1], 255, np.uint8),
        camera_to_world=rig.camera_to_world(),
        intrinsics=rig.intrinsics(size),
        times=np.arange(FRAMES) / 8,
    )
    meta = ClipMeta(
        id="",
        object="noise",
        animation="noise",
        caption="noise",
        licence="",
        fps=8.0,
        times=video.times,
        camera_to_world=video.camera_to_world,
        intrinsics=video.intrinsics,
        size=size,
        source_sha256="0" * 64,
        generator="bench",
        motion=None,
    )
    xy = np.full((VIEWS, FRAMES, 1, 2), size / 2, np.float32)
    members = encode_sample(video, meta, Tracks(xy=xy, visible=np.ones(xy.shape[:3], np.float32), tracker="exact/1"))
    with ShardWriter(folder, max_samples=SHARD_CLIPS) as writer:
        for number in range(clips):
            key = f"noise-{number:08x}-00-00000"
            writer.write(key, members | {"meta.json": replace(meta, id=key).to_json().encode()})
    return folder


def stream_config(shards: Path, batch_size: int) -> DataConfig:
    """Return how a stream reads these shards: four views where there are four, up to 8 frames, at their own size.

    Raises:
        ShardError: they cannot be read.
        ConfigError: they have fewer than two frames.
    """
    meta = decode_meta(ShardStore(shards).read(0, ["meta.json"]))
    views, stored = len(meta.camera_to_world), len(meta.times)
    if stored < 2:
        raise ConfigError(f"data: the clips of {shards} have one frame: give shards of moving clips")
    frames = min(8, stored)
    return DataConfig(
        shards=shards,
        size=meta.size,
        views=4 if views % 4 == 0 else 1,
        frames=frames,
        stride=stored // frames,
        frames_per_step=min(4, frames),
        batch_size=batch_size,
    )
