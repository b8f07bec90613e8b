"""Small real shards written by code: a striped disc that walks and turns, with exact tracks and flow."""

import json
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from animate4d.core.cameras import Rig
from animate4d.core.clip import MultiViewVideo
from animate4d.core.tracks import Tracks
from animate4d.data.schema import ClipMeta, encode_sample
from animate4d.io.shards import ShardWriter


def make_sample(
    number: int, *, views=8, frames=8, size=32, tracks=True, flow=True, clips_per_object=None
) -> tuple[str, dict[str, bytes]]:
    """One clip; the object moves size/32 px a frame to the right and differs between samples and views."""
    rng = np.random.default_rng(number)
    texture = rng.integers(0, 256, (views, 2 * size, 2 * size, 3), dtype=np.uint8)
    texture = texture.repeat(3, 1).repeat(3, 2)[:, : 2 * size, : 2 * size]
    row, column = np.mgrid[:size, :size] + 0.5
    step = size / 32
    rgb = np.zeros((views, frames, size, size, 3), np.uint8)
    alpha = np.zeros((views, frames, size, size), np.uint8)
    flow_xy = np.zeros((views, frames, size // 2, size // 2, 2), np.float16)
    flow_mask = np.zeros((views, frames, size // 2, size // 2), np.uint8)
    points = np.stack(np.meshgrid(*[np.arange(0.3, 0.62, 0.08) * size] * 2), -1).reshape(-1, 2)
    xy = np.zeros((views, frames, len(points), 2), np.float32)
    for frame in range(frames):
        shift = round(step * frame)
        inside = (row - 0.45 * size) ** 2 + (column - shift - 0.45 * size) ** 2 < (0.25 * size) ** 2
        alpha[:, frame] = inside * 255
        rgb[:, frame] = texture[
            :, size // 2 : size // 2 + size, size - shift - size // 2 : 2 * size - shift - size // 2
        ]
        flow_xy[:, frame, ..., 0] = -shift / (size / 2)
        flow_mask[:, frame] = inside[::2, ::2] * 255
        xy[:, frame] = points + np.array([shift, 0])
    rig = Rig.even(views)
    video = MultiViewVideo(
        rgb=rgb,
        alpha=alpha,
        camera_to_world=rig.camera_to_world(),
        intrinsics=rig.intrinsics(size),
        times=np.arange(frames) / 8,
    )
    name = "disc" if clips_per_object is None else f"disc{number // clips_per_object}"
    key = f"{name}-{number:08x}-00-00000"
    meta = ClipMeta(
        id=key,
        object=f"disc{number}",
        animation="walk",
        caption=f"disc {number} walking",
        licence="CC0-1.0",
        fps=8.0,
        times=video.times,
        camera_to_world=video.camera_to_world,
        intrinsics=video.intrinsics,
        size=size,
        source_sha256=f"{number:064x}",
        generator="test/1",
        motion=0.1,
    )
    exact = Tracks(xy=xy, visible=np.ones(xy.shape[:3], np.float32), tracker="exact/1") if tracks else None
    return key, encode_sample(video, meta, exact, flow_xy if flow else None, flow_mask if flow else None)


def write_shards(folder: Path, samples: int, *, per_shard: int = 3, damage: dict | None = None, **options) -> Path:
    """Write shards; `damage` maps a sample number to a function that spoils its members."""
    with ShardWriter(folder, max_samples=per_shard) as writer:
        for number in range(samples):
            key, members = make_sample(number, **options)
            if damage and number in damage:
                members = damage[number](members)
            writer.write(key, members)
    return folder


def add_foreign_member(path: Path, name: str, data: bytes) -> None:
    """Append a member to a tar and make the index believe the new size."""
    with tarfile.open(path, "a") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, BytesIO(data))
    index = json.loads((path.parent / "index.json").read_text())
    for shard in index["shards"]:
        if shard["name"] == path.name:
            shard["bytes"] = path.stat().st_size
    (path.parent / "index.json").write_text(json.dumps(index))


@pytest.fixture(scope="session", name="make_sample")
def make_sample_fixture():
    return make_sample


@pytest.fixture(scope="session", name="write_shards")
def write_shards_fixture():
    return write_shards


@pytest.fixture(scope="session", name="add_foreign_member")
def add_foreign_member_fixture():
    return add_foreign_member
