"""Settings of the demo."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from animate4d.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """Animated objects to shards, a short training, four animated models and a gallery, on this machine."""

    out: Path = Path("demo")
    """Folder for everything the demo makes; a second run goes on with what is there."""

    assets: Path | None = Path(os.environ["ANIMATE4D_ASSETS"]) if os.environ.get("ANIMATE4D_ASSETS") else None
    """Folder of your GLBs: moving ones to train on, still ones to animate; unset: $ANIMATE4D_ASSETS, else made."""

    objects: int = 16
    """Generated objects to train on (or moving GLBs taken from --assets)."""

    steps: int = 150
    """Training steps; enough to see the loss fall, not to learn limbs."""

    weights: Literal["shipped", "fresh"] = "shipped"
    """Animate with the weights that ship in the package, or with those this demo has just trained."""

    seed: int = 7
    """Seed of objects, training and videos."""

    def __post_init__(self) -> None:
        for name in ("objects", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a whole number >= 1")
        if self.assets is not None and not self.assets.is_dir():
            raise ConfigError(f"assets is {self.assets}: there is no such folder")
