"""Encoded members of one item -> arrays of one example, as late as possible: encoded, a clip is 20 times smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from animate4d.core.errors import ConfigError, ShardError
from animate4d.core.tracks import Tracks
from animate4d.data.batch import Example
from animate4d.data.config import DataConfig
from animate4d.data.latents import draw_latents, latent_files, read_latents
from animate4d.data.order import DRAW_STREAM, Item, ItemOrder
from animate4d.data.schema import DecodedClip, decode_clip, decode_meta
from animate4d.data.sidecar import Sidecar
from animate4d.data.store import ShardStore
from animate4d.tracks.build import EXACT, NONE
from animate4d.tracks.queries import sample_points


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemDecoder:
    """Knows how the shards are laid out and which part of a sample an item is.

    Attributes:
        config: what is wanted.
        order: the sequence of items, source of the random draws.
        stored_views: views of every sample.
        stored_frames: frames of every sample.
        latents: where encoded pictures are kept, or None.
    """

    config: DataConfig
    order: ItemOrder
    stored_views: int
    stored_frames: int
    latents: Sidecar | None = None

    @classmethod
    def open(cls, config: DataConfig, store: ShardStore) -> ItemDecoder:
        """Look at the first sample to see how many views and frames the shards hold.

        Raises:
            ConfigError: the shards cannot give the wanted views, frames or size.
        """
        meta = decode_meta(store.read(0, ["meta.json"]))
        views, frames = len(meta.camera_to_world), len(meta.times)
        if views % config.views:
            raise ConfigError(f"data.views is {config.views}, but {config.shards} holds {views} views: give a divisor")
        if config.stored_frames[-1] >= frames:
            raise ConfigError(
                f"data.frames {config.frames} with data.stride {config.stride} needs {config.stored_frames[-1] + 1} "
                f"stored frames, but {config.shards} holds {frames}"
            )
        if meta.size < config.size:
            raise ConfigError(
                f"data.size is {config.size} px, but {config.shards} holds {meta.size} px: build larger shards"
            )
        latents = None if config.latents is None else latent_files(config.latents, config.codec, config.size)
        if latents is not None and not latents.folder.is_dir():
            raise ConfigError(
                f"data.latents: {config.latents} has none of this model's codec at {config.size} px "
                f"({latents.folder.name}): run jobs/encode_latents.py, or leave latents out"
            )
        order = ItemOrder(len(store.keys), views // config.views, config.seed, config.view_groups == "one")
        return cls(config=config, order=order, stored_views=views, stored_frames=frames, latents=latents)

    def views(self, group: int) -> list[int]:
        """Return the stored views of a group: evenly spread over the circle."""
        return view_group(self.stored_views, self.config.views, group)

    def members(self, group: int) -> list[str]:
        """Return the names of the members an item of this group is made from."""
        names = ["meta.json", *(f"view_{view:02d}.webp" for view in self.views(group))]
        if self.config.tracker == EXACT:
            names.append("tracks.npz")
        if self.config.flow:
            names.append("flow.npz")
        return names

    def check_exact(self, sample: str, members: Mapping[str, bytes]) -> None:
        """Stop a run that wants stored tracks from shards without them; this is no damage that could be skipped.

        Raises:
            ShardError: tracker is "exact" and the sample has no tracks.
        """
        if self.config.tracker == EXACT and "tracks.npz" not in members:
            raise ShardError(
                f"sample {sample} in {self.config.shards} has no tracks.npz: build shards with tracks, or label them "
                "with --tracker opencv-lk"
            )

    def decode(self, item: Item, sample: str, members: Mapping[str, bytes], labels: Tracks | None) -> Example:
        """Decode the views and drawn frames of an item.

        Args:
            item: its place in the order, which seeds the draws.
            sample: its key in the index.
            members: what `members(item.group)` names.
            labels: computed ones over all stored frames, or None for trackers "exact" and "none".

        Raises:
            ShardError: a member is missing, damaged or of another sample.
        """
        config, views = self.config, self.views(item.group)
        rng = self.order.random(DRAW_STREAM, item.cursor)
        frame_index = _draw_frames(config, rng)
        clip = decode_clip(members, views=views, frames=[int(frame) * config.stride for frame in frame_index])
        if clip.meta.id != sample:
            raise ShardError(f"sample {sample}: its meta.json is of sample {clip.meta.id}")
        if len(clip.meta.camera_to_world) != self.stored_views or len(clip.meta.times) != self.stored_frames:
            raise ShardError(f"sample {sample}: other numbers of views or frames than the first sample")
        if clip.meta.size < config.size:
            raise ShardError(f"sample {sample} has {clip.meta.size} px, less than the {config.size} px wanted")
        if labels is not None:
            tracks = _at_frames(labels, frame_index * config.stride)
        elif config.tracker == NONE:
            tracks = _no_tracks(len(views), len(frame_index))
        else:
            assert clip.tracks is not None, "check_exact comes before decode"
            tracks = clip.tracks
        points = sample_points(tracks, config.points, rng)
        video, mask = clip_pixels(clip, config.size)
        flow, flow_mask = _flow(clip, config.size // 2) if config.flow else (None, None)
        drawn = None
        if self.latents is not None:
            chosen = frame_index * config.stride
            drawn = draw_latents(*read_latents(self.latents, members, sample, views, self.stored_frames, chosen), rng)
        return Example(
            video=video,
            mask=mask,
            camera=clip.video.camera_to_world.astype(np.float32),
            frame_index=frame_index,
            caption=clip.meta.caption,
            tracks=points.xy * np.float32(config.size / clip.meta.size),
            visible=points.visible,
            flow=flow,
            flow_mask=flow_mask,
            sample_id=f"{sample}/{item.group}",
            latents=drawn,
        )


def view_group(stored: int, views: int, group: int) -> list[int]:
    """Return which of the stored views are in a group; there are `stored // views` groups."""
    return list(range(group, stored, stored // views))


def _draw_frames(config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    count = config.frames_per_step or config.frames
    others = 1 + rng.permutation(config.frames - 1)[: count - 1]
    return np.concatenate([[0], np.sort(others)]).astype(np.int64)


def _at_frames(tracks: Tracks, frames: np.ndarray) -> Tracks:
    return Tracks(xy=tracks.xy[:, frames], visible=tracks.visible[:, frames], tracker=tracks.tracker)


def _no_tracks(views: int, frames: int) -> Tracks:
    return Tracks(
        xy=np.zeros((views, frames, 0, 2), np.float32), visible=np.zeros((views, frames, 0), np.float32), tracker=NONE
    )


def clip_pixels(clip: DecodedClip, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the video on grey `[V, T, 3, size, size]` in [-1, 1] and coverage `[V, T, 1, size, size]` in [0, 1]."""
    rgb, alpha = clip.video.rgb, clip.video.alpha
    views, frames, stored = rgb.shape[:3]
    video = np.empty((views, frames, 3, stored, stored), np.float32)
    mask = np.empty((views, frames, 1, stored, stored), np.float32)
    np.divide(alpha, np.float32(255), out=mask[:, :, 0])
    # Grey is 0 here, so multiplying by alpha both composites and premultiplies, and area means stay right. In place:
    # pages for temporaries cost ten times the arithmetic.
    for channel in range(3):
        plane = video[:, :, channel]
        np.divide(rgb[..., channel], np.float32(127.5), out=plane)
        plane -= 1
        plane *= mask[:, :, 0]
    return (video, mask) if stored == size else (_shrunk(video, size), _shrunk(mask, size))


def _shrunk(planes: np.ndarray, size: int) -> np.ndarray:
    """Return area means of `[V, T, C, H, W]` planes at another size."""
    flat = planes.reshape(-1, *planes.shape[-2:])
    shrunk = np.stack([cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA) for plane in flat])
    return shrunk.reshape(*planes.shape[:3], size, size)


def _flow(clip: DecodedClip, size: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return flow `[V, T, 2, size, size]` and its mask `[V, T, 1, size, size]`, read at the nearest stored pixels.

    Nearest and not mean: across a silhouette the mean of two motions is the motion of nothing. Values are in half
    images and do not change with the resolution.
    """
    if clip.flow is None or clip.flow_mask is None:
        return None, None
    height, width = clip.flow_mask.shape[2:]
    rows = ((np.arange(size) + 0.5) * height / size).astype(int)[:, None]
    columns = ((np.arange(size) + 0.5) * width / size).astype(int)[None]
    flow = np.moveaxis(clip.flow[:, :, rows, columns], -1, 2).astype(np.float32)
    mask = clip.flow_mask[:, :, None, rows, columns].astype(np.float32) / 255.0
    return np.ascontiguousarray(flow), mask
