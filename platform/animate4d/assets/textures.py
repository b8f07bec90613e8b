"""Texture images from bytes; the declared size is checked before a pixel is decoded."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from animate4d.core.errors import AssetError

MAX_TEXTURE_SIDE = 8192
"""Pixels a side: 8192 x 8192 RGBA is 268 MB decoded."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "TIFF", "GIF")


def decode_texture(data: bytes, where: str) -> np.ndarray:
    """Decode an image to `[H, W, 4]` uint8 sRGB with straight alpha.

    Args:
        data: the encoded file (PNG, JPEG, WebP, BMP, TGA, TIFF or GIF).
        where: file and place, for messages.

    Raises:
        AssetError: unknown format, damaged, or more than `MAX_TEXTURE_SIDE` pixels a side.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if max(width, height) > MAX_TEXTURE_SIDE:
                raise AssetError(
                    f"{where}: the texture has {width} x {height} pixels; scale it to {MAX_TEXTURE_SIDE} a side at most"
                )
            return _rgba(image)
    except Image.DecompressionBombError as error:
        raise AssetError(f"{where}: the texture is too large; scale it to {MAX_TEXTURE_SIDE} pixels a side") from error
    except UnidentifiedImageError as error:
        raise AssetError(f"{where}: the texture is not a PNG, JPEG or WebP image") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise AssetError(f"{where}: the texture is damaged ({error})") from error


def _rgba(image: Image.Image) -> np.ndarray:
    """Convert any mode, 16-bit grey included, to RGBA."""
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.float64) / 257.0).clip(0, 255).round().astype(np.uint8)
        return np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    return np.array(image.convert("RGBA"))
