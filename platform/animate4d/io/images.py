"""Pictures in and out: lossless WebP strips of RGBA frames, PNG files, and contact sheets with captions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from animate4d.core.errors import ShardError
from animate4d.io.atomic import write_bytes

MAX_WEBP_SIDE = 16383
"""Largest width or height the WebP format can say (14 bits)."""

MAX_STRIP_PIXELS = 2**26
"""Largest strip that is decoded, 256 MB of RGBA: 16 frames of 2048 px."""

LOSSLESS = 100
"""The quality at which every byte is kept."""


def encode_strip(frames: np.ndarray, *, quality: int = LOSSLESS) -> bytes:
    """Encode `[T, H, W, 4]` uint8 straight-alpha frames as one WebP of `[T*H, W, 4]`.

    Args:
        frames: the pictures.
        quality: 100 keeps every byte, colours under zero alpha included; below, colours lose as in a photo of that
            quality and alpha stays exact. 90 is a third of the size (measured on decoded 256 px video, 35-43 dB).

    Raises:
        ValueError: the strip is taller than WebP allows.
    """
    count, height, width, channels = frames.shape
    if channels != 4 or frames.dtype != np.uint8:
        raise ValueError(f"a strip holds uint8 RGBA frames, not {frames.dtype} with {channels} channels")
    if count * height > MAX_WEBP_SIDE or width > MAX_WEBP_SIDE:
        raise ValueError(f"{count} frames of {height} x {width} px exceed WebP's {MAX_WEBP_SIDE} px: store fewer")
    stream = io.BytesIO()
    picture = Image.fromarray(frames.reshape(count * height, width, 4))
    if quality == LOSSLESS:
        # Effort 20 of 100 at method 1: within a few per cent of the smallest file at a fraction of the time.
        picture.save(stream, "WEBP", lossless=True, exact=True, quality=20, method=1)
    else:
        picture.save(stream, "WEBP", quality=quality, alpha_quality=100, method=1)
    return stream.getvalue()


def decode_strip(data: bytes, count: int, frames: Sequence[int] | None = None) -> np.ndarray:
    """Decode a strip of `count` frames; returns `[T, H, W, 4]` uint8, only the wanted `frames` when given.

    Raises:
        ShardError: the bytes are not a WebP picture of `count` equal frames.
    """
    try:
        # Pillow looks at the header, OpenCV decodes: the same libwebp without Pillow's copies, 2-4 times faster.
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as picture:
            width, height = picture.size
            pictures = getattr(picture, "n_frames", 1)
        if pictures != 1 or height % count:
            raise ShardError(f"{pictures} pictures of {height} rows cannot hold {count} frames")
        if width * height > MAX_STRIP_PIXELS:
            raise ShardError(f"a strip of {width} x {height} px has more than {MAX_STRIP_PIXELS} pixels")
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ShardError("not a readable WebP picture: its body is damaged")
    except (OSError, ValueError, SyntaxError, cv2.error, Image.DecompressionBombError) as error:
        raise ShardError(f"not a readable WebP picture: {error}") from error
    strip = pixels.reshape(count, height // count, width, -1)
    chosen = strip if frames is None else strip[list(frames)]
    code = cv2.COLOR_BGRA2RGBA if chosen.shape[-1] == 4 else cv2.COLOR_BGR2RGBA
    return cv2.cvtColor(chosen.reshape(-1, width, chosen.shape[-1]), code).reshape(*chosen.shape[:3], 4)


def save_png(path: Path, image: np.ndarray) -> None:
    """Write `[H, W]`, `[H, W, 3]` or `[H, W, 4]` uint8 as PNG, atomically."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, "PNG", compress_level=6)
    write_bytes(path, stream.getvalue())


def composite_grey(rgba: np.ndarray) -> np.ndarray:
    """Put `[..., 4]` uint8 straight-alpha pictures on mid grey; returns `[..., 3]` uint8."""
    return composite(rgba, (128, 128, 128))


def composite(rgba: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Put `[..., 4]` uint8 straight-alpha pictures on a colour; returns `[..., 3]` uint8."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + np.array(colour, np.uint16) * (255 - alpha) + 127) // 255).astype(np.uint8)


def contact_sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], *, columns_per_group: int = 0) -> np.ndarray:
    """Lay pictures out to look at: one row per entry, its text above it.

    Args:
        rows: (text, list of `[H, W, 3]` uint8 pictures of one common size).
        columns_per_group: leave a small gap after every so many pictures; 0 for none.

    Returns:
        `[height, width, 3]` uint8.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    height, width = rows[0][1][0].shape[:2]
    columns = max(len(pictures) for _, pictures in rows)
    gap, line = 4, 14
    groups = (columns - 1) // columns_per_group if columns_per_group else 0
    sheet = Image.new("RGB", (columns * width + groups * gap, len(rows) * (height + line)), (40, 40, 40))
    draw = ImageDraw.Draw(sheet)
    for row, (text, pictures) in enumerate(rows):
        top = row * (height + line)
        draw.text((3, top + 1), text.encode("ascii", "replace").decode(), fill=(235, 235, 235))
        for column, picture in enumerate(pictures):
            left = column * width + (column // columns_per_group * gap if columns_per_group else 0)
            sheet.paste(Image.fromarray(np.ascontiguousarray(picture)), (left, top + line))
    return np.asarray(sheet)
