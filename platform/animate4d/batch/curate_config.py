"""Settings of curation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from animate4d.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class CurateShardsConfig:
    """Decide which clips of a folder of shards to train on; pictures are measured once, thresholds can be tried."""

    shards: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SHARDS")]
    """Folder of shards with its index.json."""

    out: Path | None = None
    """Folder of keep.txt, clips.csv, curation.json, borderline.png; default `curation` beside the shards."""

    max_ssim: float = 0.95
    """Too still: both similarities of the front view, of times 0 and T/4 and of 0 and T/2, are above (paper 003)."""

    min_ssim: float = 0.4
    """Distorted: one of them is below (paper 003)."""

    side: bool = False
    """Look from the side, too: too still only where both views are. Slim animals hide their walk from the front."""

    max_border: float = 0.0
    """Out of the picture: touches the border in a larger share of the frames of all views (paper 003: in any frame)."""

    min_motion: float = 0.005
    """Too still: vertices move less on average, as a share of the object's diameter; where that is known."""

    min_magnitude: float = 0.0
    """Too still: Diffusion4D's motion magnitude m (mean over elements) is smaller."""

    min_mask_confidence: float = 0.5
    """Masks that were derived from the background and are less certain."""

    duplicates: float = 0.1
    """The same under another name: differs from an earlier clip by less than this share of its motion; 0: if equal."""

    window: Literal["uniform7", "gaussian11"] = "uniform7"
    """Window of the similarity: 7 x 7 mean (scikit-image's default) or 11 x 11 Gaussian (torchmetrics' default)."""

    background: Literal["white", "grey", "black"] = "white"
    """Behind the object when pictures are compared. White and black hide motion less than grey does."""

    border_px: int = 1
    """Width of the border in pixels."""

    border_alpha: int = 8
    """Coverage (0 to 255) from which a pixel at the border counts."""

    borderline: int = 6
    """Clips shown in borderline.png on either side of every threshold."""

    workers: int | None = None
    """Shards measured at once; unset: one per CPU."""

    def __post_init__(self) -> None:
        # Ranges are checked where the numbers are used; what loads quickly is checked here, before Ray starts.
        for name, least in (("borderline", 0), ("workers", 1), ("border_px", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}: give at least {least}")
        for name in ("max_ssim", "min_ssim", "max_border", "min_motion", "min_mask_confidence", "duplicates"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number from 0 to 1")
        if self.min_magnitude < 0 or not 0 <= self.border_alpha < 255:
            raise ConfigError("min_magnitude must be 0 or more, border_alpha from 0 to 254")
