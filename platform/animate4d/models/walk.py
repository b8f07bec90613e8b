"""The order in which a U-Net's layers run, the taps each one passes, and the shortcuts through it.

A layer is a ResNet block with its attention and motion module. The encoder leaves one skip per layer and resampler, the
first one (number 0) before any of them; the decoder's layers take them in reverse, so its last layer takes number 0.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from animate4d.models.config import MVVDMConfig
from animate4d.models.taps import layer_taps


@dataclass(frozen=True, slots=True)
class Stop:
    """One thing to run.

    Attributes:
        block: the name of the block.
        layer: number of the layer within its block, None for the block's resampler.
        level: resolution level of the layer, finest 0.
        skip: number of the skip an encoder stop leaves, or that a decoder layer takes; for an upsampler, that of the
            layer behind it; None in the middle.
        taps: places passed here, in order.
    """

    block: str
    layer: int | None
    level: int
    skip: int | None
    taps: tuple[str, ...]

    @property
    def stage(self) -> str:
        """Which part of the network this is: "down", "mid" or "up"."""
        return self.block.partition("_")[0]


def plan_walk(config: MVVDMConfig) -> tuple[Stop, ...]:
    """Return all stops of a network in the order they run."""
    levels, layers = len(config.block_channels), config.layers_per_block
    stops: list[Stop] = []

    def visit(block: str, level: int, parts: Sequence[int | None], skip: int | None) -> None:
        for layer in parts:
            if block.startswith("down"):
                skip = sum(stop.skip is not None for stop in stops) + 1
            taps = () if layer is None else layer_taps(config, block, layer, level)
            stops.append(Stop(block, layer, level, skip, (*taps, block) if layer == parts[-1] else taps))
            if block.startswith("up") and layer is not None and skip is not None:
                skip -= 1

    for level in range(levels):
        visit(f"down_blocks.{level}", level, [*range(layers), *([None] if level < levels - 1 else [])], None)
    visit("mid_block", levels - 1, [0, 1], None)
    for number in range(levels):
        parts = [*range(layers + 1), *([None] if number < levels - 1 else [])]
        visit(f"up_blocks.{number}", levels - 1 - number, parts, (levels - number) * (layers + 1) - 1)
    return tuple(stops)


def kept_stops(stops: Sequence[Stop], layers: int) -> tuple[Stop, ...]:
    """Return the stops that still run when the decoder's last `layers` layers get their input from a cache."""

    def kept(stop: Stop) -> bool:
        # An upsampler in front of the first kept layer has already made what the cache holds.
        made = stop.stage == "up" and stop.layer is None
        return stop.skip is not None and stop.skip < (layers - 1 if made else layers)

    return tuple(stop for stop in stops if kept(stop))


def stops_until(stops: Sequence[Stop], taps: Collection[str]) -> tuple[Stop, ...]:
    """Return the stops up to the one after which all taps have been passed."""
    ends = [number for number, stop in enumerate(stops, start=1) if not set(stop.taps).isdisjoint(taps)]
    return tuple(stops[: max(ends, default=0)])
