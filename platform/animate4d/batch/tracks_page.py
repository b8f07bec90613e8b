"""`tracks.html`: clips with their tracks drawn over the frames, all views in step. One file that opens from disk."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from animate4d.batch.shard_contact import spread
from animate4d.core.errors import ShardError
from animate4d.core.tracks import Tracks
from animate4d.data.decode import view_group
from animate4d.data.labels import read_labels
from animate4d.data.schema import DecodedClip, decode_clip, decode_meta
from animate4d.data.sidecar import Sidecar
from animate4d.data.store import ShardStore
from animate4d.io.atomic import write_text
from animate4d.io.images import composite_grey
from animate4d.io.pages import escape, part, policy

EIGHTHS = 8
"""Positions are written in eighths of a pixel: finer than a tracker errs, and half the text of floats."""

MAX_POINTS = 400
"""Points drawn per view; exact tracks may carry thousands."""

QUALITY = 82
"""Of the WebP pictures in the page: about 4 kB a frame of 256 px."""


def write_tracks_page(
    path: Path, store: ShardStore, samples: Sequence[int], labels: Path | None, views: int, count: int
) -> int:
    """Draw clips chosen evenly over samples.

    Args:
        path: of the page; written atomically.
        store: the shards.
        samples: numbers of the samples to choose from.
        labels: folder of one tracker's labels, or None for the tracks in the shards.
        views: per clip; its first group of them is shown.
        count: clips wanted.

    Returns:
        How many are drawn.

    Raises:
        ShardError: no sample to choose from, or one without tracks.
    """
    if not samples:
        raise ShardError(f"{store.folder}: no clip has tracks that could be drawn")
    clips = [clip_data(store, samples[number], labels, views) for number in spread(len(samples), count)]
    frames = max(clip["frames"] for clip in clips)
    trackers = sorted({clip["tracker"] for clip in clips})
    style, script = part("animate4d.batch", "tracks.css"), part("animate4d.batch", "tracks.js")
    drawn = ({name: clip[name] for name in ("size", "frames", "views")} for clip in clips)
    page = Template(part("animate4d.batch", "tracks.html")).substitute(
        policy=policy(style, script, "img-src data:"),
        title="Point tracks",
        summary=escape(f"{len(clips)} of {len(store.keys)} clips in {store.folder.name} · {', '.join(trackers)}"),
        style=style,
        script=script,
        frames=frames,
        last=frames - 1,
        fps=f"{clips[0]['fps']:g}",
        clips="".join(map(_article, clips)),
        # Nothing in a text may end the element it stands in.
        data=json.dumps(list(drawn), separators=(",", ":")).replace("<", "\\u003c"),
    )
    write_text(path, page)
    return len(clips)


def clip_data(store: ShardStore, sample: int, labels: Path | None, views: int) -> dict[str, Any]:
    """Return what the page needs of one clip; raises ShardError where it has no tracks."""
    key = store.keys[sample]
    meta = decode_meta(store.read(sample, ["meta.json"]))
    chosen = view_group(len(meta.camera_to_world), views, 0)
    names = ["meta.json", *(f"view_{view:02d}.webp" for view in chosen)]
    members = store.read(sample, names if labels else [*names, "tracks.npz"])
    clip = decode_clip(members, views=chosen, frames=range(len(meta.times)))
    tracks = clip.tracks
    if labels is not None:
        data = Sidecar(folder=labels, noun="labels").find(members, chosen)
        tracks = None if data is None else read_labels(data, key, chosen, len(meta.times))
    if tracks is None:
        raise ShardError(f"sample {key} in {store.folder} has no tracks: build shards with tracks, or use opencv-lk")
    return {
        "key": key,
        "caption": meta.caption or f"{meta.object} {meta.animation}",
        "tracker": tracks.tracker,
        "fps": meta.fps,
        "size": meta.size,
        "frames": len(meta.times),
        "numbers": chosen,
        "views": [_view(clip, tracks, view) for view in range(len(chosen))],
    }


def _view(clip: DecodedClip, tracks: Tracks, view: int) -> dict[str, Any]:
    points = np.flatnonzero(tracks.visible[view, 0] > 0)
    points = points[spread(len(points), MAX_POINTS)] if len(points) > MAX_POINTS else points
    xy = np.round(tracks.xy[view][:, points] * EIGHTHS).astype(int)
    digits = np.ceil(tracks.visible[view][:, points] * 9).clip(0, 9).astype(int)
    rgba = np.concatenate([clip.video.rgb[view], clip.video.alpha[view][..., None]], axis=-1)
    frames = composite_grey(rgba)
    stream = io.BytesIO()
    Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(stream, "WEBP", quality=QUALITY, method=2)
    return {
        "count": len(points),
        "xy": xy.ravel().tolist(),
        "seen": "".join(map(str, digits.ravel())),
        "strip": "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode(),
    }


def _article(clip: dict[str, Any]) -> str:
    figures = [
        f'<figure><canvas role="img" aria-label="{escape(clip["caption"])}, view {number}" width="256" height="256">'
        f'</canvas><figcaption><span>View {number}</span><span class="sight"></span></figcaption></figure>'
        for number in clip["numbers"]
    ]
    return (
        f'<article class="clip"><h2 dir="auto">{escape(clip["caption"])}</h2>'
        f'<p class="about"><bdi>{escape(clip["key"])}</bdi> · {escape(clip["tracker"])}</p>'
        f'<div class="views">{"".join(figures)}</div></article>'
    )
