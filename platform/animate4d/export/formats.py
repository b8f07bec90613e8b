"""Which files a bundle holds. Imports nothing heavy: a command line and a manifest ask for them by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

Format = Literal["ply", "npz", "viewer", "turntable", "ply-frames", "spz", "splat-glb", "morph-glb"]
FormatWord = Literal[
    "default", "all", "ply", "npz", "viewer", "turntable", "ply-frames", "spz", "splat-glb", "morph-glb"
]

FORMATS: tuple[Format, ...] = get_args(Format)
FORMAT_WORDS: tuple[FormatWord, ...] = get_args(FormatWord)
DEFAULT: tuple[Format, ...] = ("ply", "npz", "viewer", "turntable")
"""Written unless something else is asked for: what most programs open, the lossless master, and what one looks at."""

FILES: dict[Format, str] = {
    "ply": "splats/static.ply",
    "npz": "motion.npz",
    "viewer": "viewer.html",
    "turntable": "turntable.mp4",
    "ply-frames": "splats/frames",
    "spz": "splats/static.spz",
    "splat-glb": "splats/static.glb",
    "morph-glb": "animated-morphs.glb",
}
"""Where each is. `animated.glb`, the videos, `thumb.webp`, `still.webp` and `IMPORT.md` are always written."""


def expand(words: Sequence[str]) -> tuple[Format, ...]:
    """Return the formats that words stand for, each once and in the order of `FORMATS`.

    Raises:
        ValueError: a word is not known.
    """
    wanted: set[str] = set()
    for word in words:
        if word not in FORMAT_WORDS:
            raise ValueError(word)
        wanted |= {"default": set(DEFAULT), "all": set(FORMATS)}.get(word, {word})
    return tuple(name for name in FORMATS if name in wanted)
