"""Step caching (DeepCache, arXiv 2312.00858): what the U-Net keeps between denoising steps.

The decoder's last layers take the encoder's first ones as skips. On a cached step only those two ends run; what enters
the first of these decoder layers from below is taken from the last full step.
"""

from __future__ import annotations

import torch


class StepCache:
    """The deep features of one sampling run; the U-Net writes them on full steps and reads them on cached ones."""

    def __init__(self, layers: int) -> None:
        """Start empty.

        Args:
            layers: decoder layers, counted from the output, that run at every step.
        """
        self.layers = layers
        self.reuse = False
        """Whether the next forward pass reads instead of writing."""
        self._deep: torch.Tensor | None = None

    def exchange(self, hidden: torch.Tensor | None) -> torch.Tensor:
        """Keep and return what enters the kept layers on a full step; return what was kept on a cached one."""
        if not self.reuse:
            self._deep = hidden
        assert self._deep is not None
        return self._deep
