"""Latents encoded ahead: the posterior's mean and standard deviation, kept once per (sample, view group).

Moments and not samples: every step still draws its own latents, as encoding on the way would. They are kept for all
stored frames, in float32 and in the scale the network sees; two numbers for each of `c h w`, 32 kB a frame at 256 px.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from animate4d.core.errors import ShardError
from animate4d.core.hashing import slug
from animate4d.data.sidecar import Sidecar, check_note, pack_sidecar
from animate4d.io.tensors import unpack_tensors

NOUN = "latents"


def latent_files(folder: Path, codec: str, size: int) -> Sidecar:
    """Return where the latents of one codec and picture size are kept.

    Args:
        folder: of all latents.
        codec: id of the codec, with the hash of its weights.
        size: side of the encoded pictures, pixels.
    """
    return Sidecar(folder=folder / f"{slug(codec)}-{size}", noun=NOUN, maker=maker_facts(codec, size))


def maker_facts(codec: str, size: int) -> dict[str, str]:
    """Return what latents say of how they were made."""
    return {"codec": codec, "size": str(size)}


def pack_latents(
    members: Mapping[str, bytes], views: Sequence[int], mean: np.ndarray, std: np.ndarray, codec: str, size: int
) -> bytes:
    """Return the file of the moments `[V, T, c, h, w]` of all stored frames of these views."""
    arrays = {"mean": mean.astype(np.float32), "std": std.astype(np.float32)}
    return pack_sidecar(members, views, arrays, maker_facts(codec, size))


def read_latents(
    files: Sidecar, members: Mapping[str, bytes], sample: str, views: Sequence[int], frames: int, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Read the moments of some frames and check whose they are.

    Args:
        files: where they are kept.
        members: the sample's, with the pictures of these views.
        sample: its id.
        views: its views.
        frames: its stored frames.
        chosen: which of them to return, `[T]` int.

    Returns:
        Mean and standard deviation `[V, len(chosen), c, h, w]` float32.

    Raises:
        ShardError: there are none, they are damaged, of other pictures, or of another sample.
    """
    data = files.find(members, views)
    if data is None:
        raise ShardError(
            f"sample {sample} views {list(views)} has no latents of these pictures in {files.folder}: "
            "run jobs/encode_latents.py again"
        )
    shape = (len(views), frames, None, None, None)
    arrays, note = unpack_tensors(data, {"mean": ("float32", shape), "std": ("float32", shape)})
    check_note(note, NOUN, sample, views)
    mean, std = arrays["mean"][:, chosen], arrays["std"][:, chosen]
    if mean.shape != std.shape or not np.isfinite(mean).all() or not (np.isfinite(std) & (std >= 0)).all():
        raise ShardError(
            f"latents of sample {sample} views {list(views)} are damaged: run jobs/encode_latents.py again"
        )
    return mean, std


def draw_latents(mean: np.ndarray, std: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one draw from the posterior, float32."""
    return mean + std * rng.standard_normal(mean.shape, dtype=np.float32)
