"""Settings of the object generator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from animate4d.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateObjectsConfig:
    """Write animated, textured, articulated objects as skinned GLBs, with captions."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder for the GLBs and captions.csv."""

    count: int = 24
    """Number of objects; families (walker, dog, bird, tree, barrel, ...) take turns."""

    seed: int = 0
    """Object k depends on the seed and k alone."""

    clips: int | None = None
    """Clips per object; unset: every verb once."""

    families: tuple[str, ...] = ()
    """Only these families; unset: all."""

    rig: Path | None = None
    """Folder of still GLBs: each gets a spine and whole-body clips (bounce, bend, sway, ...), and joins the others."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count is {self.count}: give a whole number >= 1")
        if self.rig is not None and not self.rig.is_dir():
            raise ConfigError(f"rig is {self.rig}: there is no such folder")
