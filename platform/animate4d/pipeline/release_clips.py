"""One animation of a video release to training samples, without a cluster: decode, find the object, resize, encode.

The release states elevation and first azimuth; field of view and distance are assumed (see `ReleaseOptions`), because
neither is seen by the network: it is given directions only.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from animate4d import __version__
from animate4d.core.cameras import Rig
from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import SourceError
from animate4d.core.hashing import slug
from animate4d.data.grey_masks import find_background, mask_confidence, object_masks
from animate4d.data.mv_video import Shot, SourceAnimation
from animate4d.data.schema import ClipMeta, encode_sample
from animate4d.io.mp4 import decode_video
from animate4d.metrics.magnitude import motion_magnitude
from animate4d.pipeline.clip_samples import ClipOutcome
from animate4d.pipeline.release_options import SOURCE_VIEWS, ReleaseOptions


def release_rig(shot: Shot, options: ReleaseOptions) -> Rig:
    """Return the cameras of the kept views."""
    turn = -1.0 if options.clockwise else 1.0
    azimuths = (
        options.front_deg + turn * (shot.azimuth_deg + 360.0 * view / SOURCE_VIEWS) for view in options.kept_views
    )
    return Rig(
        azimuths_deg=tuple(azimuth % 360.0 for azimuth in azimuths),
        elevation_deg=shot.elevation_deg,
        distance=options.distance,
        fov_deg=options.fov_deg,
    )


def release_samples(animation: SourceAnimation, shot: Shot, options: ReleaseOptions) -> Iterator[ClipOutcome]:
    """Turn one animation into a sample per start frame; some 6 CPU-seconds for 16 views x 48 frames of 256 px.

    Raises:
        SourceError: a view is missing or cannot be decoded, the views do not fit together, or nothing is seen.
    """
    videos = decode_views(animation, options)
    count = len(videos[0])
    background = find_background(videos)
    masks = [object_masks(video, background) for video in videos]
    empty = [view for view, found in zip(options.kept_views, masks, strict=True) if not found.alpha.any()]
    if empty:
        raise SourceError(f"view_{empty[0]}.mp4 shows nothing that differs from its background")
    confidence = round(mask_confidence(background, masks), 4)
    doubts = ["no caption"] * (not shot.caption)
    doubts += [f"mask confidence {confidence:.2f}"] * (confidence < options.doubtful_below)
    doubt = ", ".join(doubts)
    rgba = np.stack([resized(video, found.alpha, options.size) for video, found in zip(videos, masks, strict=True)])
    rig = release_rig(shot, options)
    sha256 = animation.sha256()
    for start in options.starts:
        name = f"{animation.animation} from {start}"
        seconds = start / options.source_fps
        key = f"{slug(animation.uid)}-{sha256[:8]}-{int(animation.animation):02d}-{round(seconds * 1000):05d}"
        if start + options.span > count:
            reason = f"has {count} frames; from frame {start} it takes {start + options.span}"
            yield ClipOutcome(key=key, animation=name, reason=reason)
            continue
        chosen = range(start, start + options.span, options.stride)
        clip = rgba[:, chosen]
        video = MultiViewVideo(
            rgb=clip[..., :3],
            alpha=clip[..., 3],
            camera_to_world=rig.camera_to_world(),
            intrinsics=rig.intrinsics(options.size),
            times=np.array(chosen) / options.source_fps,
        )
        meta = ClipMeta(
            id=key,
            object=animation.uid,
            animation=animation.animation,
            caption=shot.caption,
            licence=options.licence,
            fps=options.source_fps / options.stride,
            times=video.times,
            camera_to_world=video.camera_to_world,
            intrinsics=video.intrinsics,
            size=options.size,
            source_sha256=sha256,
            generator=f"animate4d/{__version__} import",
            motion=None,
            magnitude=round(motion_magnitude(video).picture, 8),
            source_url=shot.url,
            mask_confidence=confidence,
        )
        members = encode_sample(video, meta, quality=options.quality)
        yield ClipOutcome(key=key, animation=name, members=members, doubt=doubt)


def decode_views(animation: SourceAnimation, options: ReleaseOptions) -> list[np.ndarray]:
    """Decode the kept views, `[T, S, S, 3]` uint8 each.

    Raises:
        SourceError: one is missing or broken, or they differ in size or length.
    """
    if animation.problem:
        raise SourceError(animation.problem)
    missing = [view for view in options.kept_views if view not in animation.views]
    if missing:
        names = ", ".join(f"view_{view}.mp4" for view in missing[:4])
        raise SourceError(f"{len(missing)} of {options.views} views are missing: {names}{', ...' * (len(missing) > 4)}")
    videos: list[np.ndarray] = []
    for view in options.kept_views:
        try:
            videos.append(decode_video(animation.views[view]))
        except SourceError as error:
            raise SourceError(f"view_{view}.mp4: {error}") from error
        count, height, width, _ = videos[-1].shape
        if height != width:
            raise SourceError(f"view_{view}.mp4 is {width} x {height} px: views must be square")
        if videos[-1].shape != videos[0].shape:
            raise SourceError(
                f"view_{view}.mp4 has {count} frames of {width} px, "
                f"view_{options.kept_views[0]}.mp4 {len(videos[0])} of {videos[0].shape[2]} px"
            )
    return videos


def resized(video: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    """Return `[T, size, size, 4]` uint8 straight-alpha frames; off the object they are mid grey."""
    frames = np.empty((len(video), size, size, 4), np.uint8)
    for frame, picture, inside in zip(frames, video, mask, strict=True):
        layers = np.concatenate([picture * inside[..., None], inside[..., None] * np.uint8(255)], axis=-1)
        if len(picture) != size:
            way = cv2.INTER_AREA if size < len(picture) else cv2.INTER_LINEAR
            layers = cv2.resize(layers, (size, size), interpolation=way)
        coverage = layers[..., 3:].astype(np.float32) / 255.0
        straight = layers[..., :3] / np.maximum(coverage, 1 / 255)
        frame[..., :3] = np.where(coverage > 0, np.minimum(np.round(straight), 255), 128)
        frame[..., 3] = layers[..., 3]
    return frames
