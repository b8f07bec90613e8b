"""One shard sample is one clip: `meta.json`, a lossless WebP strip per view, exact tracks and backward flow.

Arrays keep the axis order V T ...; xy in pixels of the stored size, flow in half images (2 = one image width).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import ShardError
from animate4d.core.tracks import Tracks
from animate4d.io.arrays import array_names, pack_arrays, unpack_arrays
from animate4d.io.images import LOSSLESS, decode_strip, encode_strip

SCHEMA = 1

KINDS = {"fps": float, "size": int, "id": str, "caption": str, "source_url": str, "mask_confidence": float}
"""What numbers and words of `meta.json` are read as."""

MEASURED = ("motion", "magnitude")
"""Numbers of `meta.json` that may be null: not every source tells them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipMeta:
    """What a sample says about itself.

    Attributes:
        schema: version of this format.
        id: the sample's key.
        object: file stem of the asset.
        animation: name of the animation clip.
        caption: one sentence.
        licence: of the asset, empty where unknown.
        fps: stored frames per second.
        times: `[T]` seconds into the animation.
        camera_to_world: `[V, 4, 4]` float64, OpenGL axes.
        intrinsics: `[V, 3, 3]` float64 for `size` pixels.
        size: height and width in pixels.
        source_sha256: of the asset file.
        generator: program and version that rendered it.
        motion: mean vertex displacement over the clip, as a share of the bounding-sphere diameter; None where only
            videos are known.
        magnitude: Diffusion4D's motion magnitude of the stored pictures (`metrics.magnitude`), None if not measured.
        source_url: where the object came from, with its own licence; empty where unknown.
        mask_confidence: how far the alpha can be trusted: 1 where it was rendered, less where it was derived.
    """

    schema: int = SCHEMA
    id: str
    object: str
    animation: str
    caption: str
    licence: str
    fps: float
    times: np.ndarray
    camera_to_world: np.ndarray
    intrinsics: np.ndarray
    size: int
    source_sha256: str
    generator: str
    motion: float | None
    magnitude: float | None = None
    source_url: str = ""
    mask_confidence: float = 1.0

    def to_json(self) -> str:
        """Return `meta.json`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}
        return json.dumps(plain, allow_nan=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedClip:
    """The chosen views and frames of a sample.

    Attributes:
        meta: of the whole sample; its cameras and times are not restricted.
        video: the chosen views and frames.
        tracks: `xy [V, T, P, 2]` in pixels, or None where the sample has none.
        flow: `[V, T, h, w, 2]` float32 backward flow to frame 0 of the same view, in half images, or None.
        flow_mask: `[V, T, h, w]` uint8: 0 no object, 128 object that frame 0 of this view hides, 255 also seen there.
    """

    meta: ClipMeta
    video: MultiViewVideo
    tracks: Tracks | None
    flow: np.ndarray | None
    flow_mask: np.ndarray | None


def encode_sample(
    video: MultiViewVideo,
    meta: ClipMeta,
    tracks: Tracks | None = None,
    flow: np.ndarray | None = None,
    flow_mask: np.ndarray | None = None,
    *,
    quality: int = LOSSLESS,
) -> dict[str, bytes]:
    """Turn a clip into shard members.

    Args:
        video: V views, T frames of `meta.size` pixels.
        meta: its description.
        tracks: exact or cached point tracks of all V views and T frames; every track starts at frame 0.
        flow: `[V, T, h, w, 2]` float16 or float32.
        flow_mask: `[V, T, h, w]` uint8; required with `flow`.
        quality: of the colours, see `encode_strip`; alpha is always exact.
    """
    members = {"meta.json": meta.to_json().encode()}
    for view, (rgb, alpha) in enumerate(zip(video.rgb, video.alpha, strict=True)):
        members[f"view_{view:02d}.webp"] = encode_strip(
            np.concatenate([rgb, alpha[..., None]], axis=-1), quality=quality
        )
    if tracks is not None:
        arrays: dict[str, np.ndarray] = {
            "xy": tracks.xy.astype(np.float32),
            "visible": np.round(tracks.visible * 255).astype(np.uint8),
            "query_frame": np.zeros(tracks.xy.shape[2], np.int32),
            "tracker": np.frombuffer(tracks.tracker.encode(), np.uint8),
        }
        members["tracks.npz"] = pack_arrays(arrays)
    if flow is not None and flow_mask is not None:
        # An array per view: readers of a few views inflate only theirs, which halves the cost of an item of 4 of 16.
        arrays = {f"flow_{view:02d}": field.astype(np.float16) for view, field in enumerate(flow)}
        arrays |= {f"mask_{view:02d}": mask for view, mask in enumerate(flow_mask)}
        members["flow.npz"] = pack_arrays(arrays)
    return members


def decode_meta(members: Mapping[str, bytes]) -> ClipMeta:
    """Read and check `meta.json`.

    Raises:
        ShardError: missing, not JSON, a field missing or of the wrong kind.
    """
    if "meta.json" not in members:
        raise ShardError("sample without meta.json")
    return parse_meta(members["meta.json"])


@lru_cache(maxsize=256)
def parse_meta(text: bytes) -> ClipMeta:
    """Parse `meta.json`; kept for a while, because an item needs it several times and its parsing takes 0.3 ms."""
    try:
        values: dict[str, Any] = json.loads(text)
        if values.get("schema") != SCHEMA:
            raise ShardError(f"sample {values.get('id')!r} has schema {values.get('schema')!r}, expected {SCHEMA}")
        for name in ("times", "camera_to_world", "intrinsics"):
            values[name] = np.asarray(values[name], np.float64)
            values[name].setflags(write=False)
        for name, kind in KINDS.items():
            if name in values:
                values[name] = kind(values[name])
        for name in MEASURED:
            values[name] = None if values.get(name) is None else float(values[name])
        # Fields with a default came later: shards written before do without them.
        names = [field.name for field in fields(ClipMeta) if field.name in values or field.default is MISSING]
        meta = ClipMeta(**{name: values[name] for name in names})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ShardError(f"meta.json is not ours ({type(error).__name__}: {error})") from error
    views = len(meta.camera_to_world)
    numbers = (meta.times, meta.camera_to_world, meta.intrinsics)
    if (
        meta.times.ndim != 1
        or not 1 <= len(meta.times) <= 1024
        or not 1 <= views <= 256
        or meta.camera_to_world.shape != (views, 4, 4)
        or meta.intrinsics.shape != (views, 3, 3)
        or not 1 <= meta.size <= 4096
        or not all(np.isfinite(array).all() for array in numbers)
    ):
        raise ShardError(f"sample {meta.id}: frame times, cameras or size in meta.json are impossible")
    return meta


def decode_clip(members: Mapping[str, bytes], *, views: Sequence[int], frames: Sequence[int]) -> DecodedClip:
    """Decode only the wanted views and frames of a sample.

    Args:
        members: as given by `io.shards.iterate_shard`.
        views: indices into the stored views.
        frames: indices into the stored frames; flow and tracks refer to stored frame 0, so start with 0 to use them.

    Raises:
        ShardError: a member is missing, cannot be decoded, or does not fit `meta.json`; names the sample.
    """
    meta = decode_meta(members)
    stored_views, stored_frames = len(meta.camera_to_world), len(meta.times)
    views, frames = list(views), list(frames)
    if any(not 0 <= view < stored_views for view in views) or any(not 0 <= frame < stored_frames for frame in frames):
        raise ShardError(
            f"sample {meta.id} has {stored_views} views and {stored_frames} frames: "
            f"views {views} and frames {frames} are not all among them"
        )
    try:
        rgba = np.stack([decode_view(members, meta, view, frames) for view in views])
        tracks = decode_tracks(members, meta, views, frames) if "tracks.npz" in members else None
        flow, mask = decode_flow(members, meta, views, frames) if "flow.npz" in members else (None, None)
    except ShardError as error:
        raise ShardError(f"sample {meta.id}: {error}") from error
    video = MultiViewVideo(
        rgb=rgba[..., :3],
        alpha=rgba[..., 3],
        camera_to_world=meta.camera_to_world[views],
        intrinsics=meta.intrinsics[views],
        times=meta.times[frames],
    )
    return DecodedClip(meta=meta, video=video, tracks=tracks, flow=flow, flow_mask=mask)


def decode_view(members: Mapping[str, bytes], meta: ClipMeta, view: int, frames: list[int]) -> np.ndarray:
    """Decode one strip; returns `[T, size, size, 4]` uint8."""
    name = f"view_{view:02d}.webp"
    if name not in members:
        raise ShardError(f"{name} is missing")
    with naming(name):
        strip = decode_strip(members[name], len(meta.times), frames)
    if strip.shape[1:3] != (meta.size, meta.size):
        raise ShardError(f"{name} has frames of {strip.shape[1]} x {strip.shape[2]} px, meta.json says {meta.size}")
    return strip


def decode_tracks(members: Mapping[str, bytes], meta: ClipMeta, views: list[int], frames: list[int]) -> Tracks:
    """Decode `tracks.npz`, restricted to views and frames."""
    shape = (len(meta.camera_to_world), len(meta.times), None)
    with naming("tracks.npz"):
        arrays = unpack_arrays(
            members["tracks.npz"],
            {"xy": ("float32", (*shape, 2)), "visible": ("uint8", shape), "tracker": ("uint8", (None,))},
        )
    if arrays["xy"].shape[:3] != arrays["visible"].shape or not np.isfinite(arrays["xy"]).all():
        raise ShardError("tracks.npz: positions and visibility do not fit together, or positions are not finite")
    chosen = np.ix_(views, frames)
    return Tracks(
        xy=arrays["xy"][chosen],
        visible=arrays["visible"][chosen].astype(np.float32) / 255.0,
        tracker=arrays["tracker"].tobytes().decode("utf-8", "replace"),
    )


def decode_flow(
    members: Mapping[str, bytes], meta: ClipMeta, views: list[int], frames: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Decode `flow.npz`, restricted to views and frames."""
    data = members["flow.npz"]
    shape: tuple[int | None, ...] = (len(meta.times), None, None)
    with naming("flow.npz"):
        if "flow" in array_names(data):  # one array for all views, as written at first
            shape = (len(meta.camera_to_world), *shape)
            arrays = unpack_arrays(data, {"flow": ("float16", (*shape, 2)), "mask": ("uint8", shape)})
            flow, mask = arrays["flow"][views], arrays["mask"][views]
        else:
            flows = {f"flow_{view:02d}": ("float16", (*shape, 2)) for view in views}
            arrays = unpack_arrays(data, flows | {f"mask_{view:02d}": ("uint8", shape) for view in views})
            if len({array.shape[:3] for array in arrays.values()}) > 1:
                raise ShardError("flow and mask do not fit together")
            flow = np.stack([arrays[f"flow_{view:02d}"] for view in views])
            mask = np.stack([arrays[f"mask_{view:02d}"] for view in views])
        if flow.shape[:4] != mask.shape:
            raise ShardError("flow and mask do not fit together")
    return flow[:, frames].astype(np.float32), mask[:, frames]


@contextmanager
def naming(member: str) -> Iterator[None]:
    """Put a member's name in front of what is wrong with its bytes."""
    try:
        yield
    except ShardError as error:
        raise ShardError(f"{member}: {error}") from error
