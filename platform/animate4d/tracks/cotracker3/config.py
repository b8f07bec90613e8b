"""Sizes of the network, settings of a tracking run. Imports nothing heavy.

The sizes are CoTracker3's (arXiv 2410.11831): 25.4 M parameters. Its two released layouts differ in the time table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from animate4d.core.errors import ConfigError

Precision = Literal["fp32", "bf16"]

OFFLINE_FRAMES = 60
"""Rows of the offline time table; it was trained on clips of 30 to 60 frames."""

ONLINE_WINDOW = 16
"""Frames the online layout sees at once; successive windows share the half of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoTracker3Config:
    """Sizes of a CoTracker3 network. The defaults are the released ones; smaller ones are for tests."""

    online: bool = False
    """Windows of `window` frames that overlap by half, instead of the whole clip at once."""
    window: int = OFFLINE_FRAMES
    """Rows of the time table; an online network sees this many frames at once."""
    stages: tuple[int, int, int, int] = (64, 96, 128, 128)
    """Channels of the four residual stages."""
    fusion: int = 256
    """Channels between the stages and the features."""
    features: int = 128
    """Channels of a feature."""
    levels: int = 4
    """Maps of the feature pyramid, each half the one before."""
    radius: int = 3
    """Cells looked at in each direction around a point: 3 is a 7 x 7 neighbourhood."""
    correlation_hidden: int = 384
    """Width inside the network that reads a correlation volume."""
    correlation: int = 256
    """Numbers a correlation volume is reduced to, per level."""
    hidden: int = 384
    """Width of a token."""
    heads: int = 8
    """Attention heads."""
    depth: int = 3
    """Rounds of attention over time, then over tracks."""
    virtual_tracks: int = 64
    """Learned tracks through which the real ones exchange what they know."""

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise ConfigError(f"hidden is {self.hidden}: give a multiple of heads ({self.heads})")
        if self.online and (self.window < 2 or self.window % 2):
            raise ConfigError(f"window is {self.window}: an online network needs an even number of frames")

    @property
    def neighbourhood(self) -> int:
        """Cells of a neighbourhood."""
        return (2 * self.radius + 1) ** 2

    @property
    def token(self) -> int:
        """Numbers that describe one point in one frame: two logits, correlations, encoded motion."""
        return 2 + self.levels * self.correlation + MOTION_CODE


FREQUENCIES = 10
"""Octaves in which a point's motion is encoded."""

MOTION_CODE = 4 * (1 + 2 * FREQUENCIES)
"""Numbers of an encoded motion: two differences of two components, plain and as sines and cosines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingSettings:
    """How clips are tracked. Each of these changes labels, so all of them are part of a tracker's id."""

    height: int = 384
    """Frames are stretched to this height before they are tracked; the released weights know 384 x 512."""
    width: int = 512
    """Frames are stretched to this width."""
    iterations: int = 6
    """Refinements of every track."""
    support: int = 6
    """Side of a grid of points over frame 0 that is tracked along and dropped: few points track badly alone."""
    threshold: float = 0.6
    """Visibility times confidence above which a point counts as seen."""
    precision: Precision = "fp32"
    """bf16 computes convolutions, correlations and attention in 16 bits; positions stay in 32."""

    def __post_init__(self) -> None:
        for name, good, wanted in [
            ("height", self.height >= 32, "32 or more"),
            ("width", self.width >= 32, "32 or more"),
            ("iterations", self.iterations >= 1, "1 or more"),
            ("support", self.support >= 0, "0 or more"),
            ("threshold", 0 <= self.threshold < 1, "0 <= threshold < 1"),
            ("precision", self.precision in ("fp32", "bf16"), "fp32 or bf16"),
        ]:
            if not good:
                raise ConfigError(f"cotracker3 {name} is {getattr(self, name)!r}: expected {wanted}")

    @property
    def name(self) -> str:
        """A short text that differs whenever the settings do."""
        return f"{self.height}x{self.width}-i{self.iterations}-g{self.support}-v{self.threshold:g}-{self.precision}"
