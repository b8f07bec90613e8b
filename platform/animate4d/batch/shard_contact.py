"""A picture of what is in a folder of shards: some clips, four views by four frames each, with their captions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from animate4d.data.schema import decode_clip, decode_meta
from animate4d.io.images import composite, contact_sheet, save_png
from animate4d.io.shards import ShardInfo, iterate_shard

CONTACT_ROWS = 24
COLUMNS = 4
MAX_CELL = 128
"""Pixels per side of a picture in the sheet; larger frames are averaged down."""

GREY_LEVEL = (128, 128, 128)
MASK_COLOUR = (40, 60, 140)


def write_contact(folder: Path, infos: list[ShardInfo]) -> None:
    """Write `contact.png`: up to 24 clips, evenly spread over the shards."""
    keys = [key for info in infos for key in info.keys]
    chosen = {keys[index] for index in spread(len(keys), CONTACT_ROWS)}
    rows = []
    for info in infos:
        if chosen.isdisjoint(info.keys):
            continue
        for key, members in iterate_shard(folder / info.name, info):
            if key in chosen:
                rows.append(contact_row(members))
    save_png(folder / "contact.png", contact_sheet(rows, columns_per_group=COLUMNS))


def contact_row(members: dict[str, bytes]) -> tuple[str, list[np.ndarray]]:
    """Return caption and `[H, W, 3]` pictures of one sample: four views, of each four frames from the first on."""
    meta = decode_meta(members)
    views = spread(len(meta.camera_to_world), COLUMNS)
    frames = spread(len(meta.times), COLUMNS)
    video = decode_clip(members, views=views, frames=frames).video
    rgba = np.concatenate([video.rgb, video.alpha[..., None]], axis=-1).reshape(-1, meta.size, meta.size, 4)
    if meta.size > MAX_CELL:
        rgba = np.stack([cv2.resize(picture, (MAX_CELL, MAX_CELL), interpolation=cv2.INTER_AREA) for picture in rgba])
    # Masks that were derived are shown on a colour that no video has: on grey, nobody would see what they miss.
    pictures = list(composite(rgba, GREY_LEVEL if meta.mask_confidence >= 1 else MASK_COLOUR))
    pictures += [np.full_like(pictures[0], 40)] * (COLUMNS * COLUMNS - len(pictures))
    motion = "" if meta.motion is None else f", motion {meta.motion:.1%}"
    trust = "" if meta.mask_confidence >= 1 else f", mask confidence {meta.mask_confidence:.2f}"
    return f"{meta.caption}   ({meta.object}: {meta.animation}{motion}{trust})", pictures


def spread(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` indices spread evenly over `count`, the first included."""
    wanted = min(count, wanted)
    return [index * count // wanted for index in range(wanted)]
