"""Real animations as clips with exact tracks, chosen evenly over the objects."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from animate4d.assets.asset import Asset
from animate4d.assets.load import load_asset
from animate4d.bench.trackers_config import BenchTrackersConfig
from animate4d.core.cameras import Rig
from animate4d.core.errors import AssetError
from animate4d.core.tracks import Tracks
from animate4d.io.images import composite_grey
from animate4d.views.clip import frame_times, mesh_of, pose_vertices, render_labelled_clip

SUFFIXES = (".glb", ".gltf")
MINIMUM_MOTION_PX = 1.0
"""Mean motion of visible points, pixels of 256, below which there is nothing to follow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrueClip:
    """A rendered animation and where its points really are.

    Attributes:
        name: object and animation.
        video: `[V, T, H, W, 3]` uint8 on grey.
        masks: `[V, T, H, W]` uint8 coverage.
        tracks: exact; points visible in frame 0 are the queries.
        motion_px: mean distance of visible points from their start, pixels of a picture of 256.
    """

    name: str
    video: np.ndarray
    masks: np.ndarray
    tracks: Tracks
    motion_px: float

    @property
    def queries(self) -> np.ndarray:
        """Positions `[V, P, 2]` in frame 0."""
        return self.tracks.xy[:, 0]

    @property
    def valid(self) -> np.ndarray:
        """Which of them are points `[V, P]`, and not padding."""
        return self.tracks.visible[:, 0] > 0


def find_assets(path: Path) -> list[Path]:
    """Return the animated files of a folder, or the one file.

    Raises:
        AssetError: there are none.
    """
    if path.is_file():
        return [path]
    found = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in SUFFIXES)
    if not found:
        raise AssetError(f"{path}: holds no .glb or .gltf file")
    return found


def choose_clips(paths: list[Path], seed: int) -> Iterator[tuple[Asset, int]]:
    """Yield all animations, one of every object before a second of any; objects and animations in seeded order.

    Args:
        paths: files; those that cannot be read are named and skipped.
        seed: of both orders.

    Yields:
        An asset, loaded in the pose its animation begins with, and the animation's number.
    """
    rng = random.Random(seed)
    queues = []
    for path in rng.sample(paths, len(paths)):
        try:
            asset = load_asset(path)
        except AssetError as error:
            sys.stderr.write(f"left out: {error}\n")
            continue
        numbers = rng.sample(range(len(asset.clips)), len(asset.clips))
        if numbers:
            yield load_asset(path, clip=numbers[0]), numbers[0]
            queues.append((path, numbers[1:]))
    for turn in range(max((len(numbers) for _, numbers in queues), default=0)):
        for path, numbers in queues:
            if turn < len(numbers):
                yield load_asset(path, clip=numbers[turn]), numbers[turn]


def render_true_clip(asset: Asset, clip: int, config: BenchTrackersConfig) -> TrueClip | None:
    """Render one animation with exact tracks; None where nothing moves or it has no length.

    Raises:
        AssetError: the asset is no mesh.
    """
    entry = asset.clips[clip]
    if not entry.duration > 0:
        return None
    times = frame_times(entry.duration, config.frames, config.max_seconds)
    rig = Rig.even(config.views)
    made = render_labelled_clip(mesh_of(asset), pose_vertices(asset, clip, times), times, rig, config.size)
    weight = made.tracks.visible[:, 1:] * made.tracks.visible[:, :1]
    shift = np.linalg.norm(made.tracks.xy[:, 1:] - made.tracks.xy[:, :1], axis=-1) * (256 / config.size)
    motion = float((shift * weight).sum() / max(float(weight.sum()), 1.0))
    if motion < MINIMUM_MOTION_PX:
        return None
    return TrueClip(
        name=f"{asset.name} {entry.name}",
        video=composite_grey(np.concatenate([made.video.rgb, made.video.alpha[..., None]], axis=-1)),
        masks=made.video.alpha,
        tracks=made.tracks,
        motion_px=motion,
    )
