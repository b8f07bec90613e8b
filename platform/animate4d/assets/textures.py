"""Texture images from bytes; the declared size is checked before a pixel is decoded."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from animate4d.core.errors import AssetError

MAX_TEXTURE_SIDE = 8192
"""Pixels a side: 8192 x 8192 RGBA is 268 MB decoded."""

MAX_TEXTURE_PIXELS = 4 * MAX_TEXTURE_SIDE**2
"""Pixels of all textures of one asset, 1.1 GB decoded: blank images of that size compress to a few kilobytes."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "TIFF", "GIF")


class TextureDecoder:
    """Decodes the textures of one asset and keeps count of their pixels."""

    def __init__(self) -> None:
        self._pixels = 0

    def decode(self, data: bytes, where: str) -> np.ndarray:
        """Decode an image to `[H, W, 4]` uint8 sRGB with straight alpha.

        Args:
            data: the encoded file (PNG, JPEG, WebP, BMP, TGA, TIFF or GIF).
            where: file and place, for messages.

        Raises:
            AssetError: unknown format, damaged, above `MAX_TEXTURE_SIDE` a side or `MAX_TEXTURE_PIXELS` in all.
        """
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                width, height = image.size
                self._pixels += width * height
                if max(width, height) > MAX_TEXTURE_SIDE or self._pixels > MAX_TEXTURE_PIXELS:
                    raise _too_large(where, f"{width} x {height} pixels")
                return _rgba(image)
        except Image.DecompressionBombError as error:
            raise _too_large(where, "far too many pixels") from error
        except UnidentifiedImageError as error:
            raise AssetError(f"{where}: the texture is not a PNG, JPEG or WebP image") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise AssetError(f"{where}: the texture is damaged ({error})") from error


def _too_large(where: str, size: str) -> AssetError:
    return AssetError(
        f"{where}: the texture has {size}; scale textures to {MAX_TEXTURE_SIDE} a side at most, "
        f"{MAX_TEXTURE_PIXELS // 10**6} Mpx in all"
    )


def _rgba(image: Image.Image) -> np.ndarray:
    """Convert any mode, 16-bit grey included, to RGBA."""
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.float64) / 257.0).clip(0, 255).round().astype(np.uint8)
        return np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    return np.array(image.convert("RGBA"))


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """Decode sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0.0) + 0.055) / 1.055) ** 2.4)
