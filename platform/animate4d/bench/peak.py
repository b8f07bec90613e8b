"""The measured peak of matrix products on a device, which all shares in the bench refer to."""

from __future__ import annotations

from collections.abc import Callable

import torch

from animate4d.bench.clock import measure

SIDES = {"cuda": (4096, 8192, 16384), "cpu": (768, 1536, 2048)}
"""Square sizes tried: large enough to fill the chip, small enough for a second; the best one is the peak."""

ROUNDS = 5


def matmul_peak(device: torch.device, dtype: torch.dtype, sides: tuple[int, ...] = ()) -> float:
    """Return the FLOP/s of the fastest square product, by its median time."""

    def product(side: int) -> Callable[[], object]:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty(side, side, device=device, dtype=dtype)
        return lambda: torch.mm(left, right, out=out)

    best = 0.0
    for side in sides or SIDES[device.type]:
        name = str(side)
        timing = measure({name: product(side)}, device=device, repeats=ROUNDS, warmup=2)[name]
        best = max(best, 2 * side**3 / (timing.ms / 1e3))
    return best
