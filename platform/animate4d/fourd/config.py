"""Settings of the motion fit. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from animate4d.core.errors import ConfigError
from animate4d.fourd.field_config import FieldFitConfig

Body = Literal["graph", "field", "both"]
FitPreset = Literal["draft", "standard", "paper"]
Start = Literal["neighbour", "rest"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """Fit a deformation graph to a multi-view video, frame by frame and then jointly."""

    size: int = 128
    """Pixels on a side of the images compared; larger videos are shrunk to it (32 to 1024)."""
    splats: int = 2000
    """Gaussians on the surface of the mesh (100 to 200000)."""
    nodes: int = 150
    """Nodes of the deformation graph, which become the joints of the exported skin (4 to 1000)."""
    polish_steps: int = 120
    """Steps of fitting splat colours, sizes and opacities to the views of frame 0."""
    levels: int = 3
    """Image levels compared: full size, half, quarter and so on (1 to 5)."""
    photometric: float = 200.0
    """Weight of the squared difference of colour and coverage, images in [0, 1]."""
    coverage: float = 1.0
    """Weight of a difference in coverage beside one in colour; 0 leaves masks out of the pictures' comparison."""
    rigidity: float = 1.5
    """Weight of as-rigid-as-possible between nodes, in units that do not depend on mesh or clip."""
    silhouette: float = 300.0
    """Weight of the pull into the silhouette, coordinates in image widths; early steps only."""
    tracks: float = 4000.0
    """Weight of point tracks or flow, where they are given, coordinates in image widths: a mean error of one
    of 128 px costs 0.24, as much as all pictures. With exact flow, 4000 halved the vertex error of 300."""
    stiffness: float = 10.0
    """Rigidity is multiplied by this at the first step of a frame and decays to one over 70 % of the steps."""
    translation_rate: float = 0.015
    """Adam's rate for node translations, canonical units."""
    rotation_rate: float = 0.06
    """Adam's rate for node rotations, radians."""
    starts: tuple[Start, ...] = ("neighbour", "rest")
    """Where a frame starts from in the forward pass; the best end wins."""
    forward_steps: int = 24
    """Steps for each start of a frame in the forward pass."""
    backward_steps: int = 16
    """Steps for the start from the following frame in the backward pass; 0 leaves the pass out."""
    rigid_starts: bool = True
    """Whether frames that still look wrong are tried from the object at rest, turned as a whole; only where neither
    tracks nor flow lead. A flopping fish's error fell from 0.62 to 0.08 of not moving, a jumping stegosaurus' from
    0.38 to 0.14."""
    joint_steps: int = 26
    """Steps of the refinement of all frames together."""
    fine_size: int = 256
    """Pixels on a side of the images of the last refinement, with splats of its own (32 to 1024)."""
    fine_splats: int = 6000
    """Gaussians of the last refinement and of the result (100 to 200000)."""
    fine_steps: int = 12
    """Steps of the last refinement; 0 leaves it out, as does a video that is no larger than `size`."""
    fine_rigidity: float = 2.0
    """Factor on rigidity in the last refinement: larger pictures say more, also what is only right in their views."""
    bias_steps: int = 0
    """Steps of the fit to frame 0 itself, whose result is taken off every frame; 0 takes nothing off, at any level.
    Splats sink by their own radius, which leaves little to take off: over 12 clips 60 steps gained nothing at 256 px,
    and 40 a thirtieth of the error at `draft`'s 128 px."""
    body: Body = "graph"
    """What moves: a deformation graph, the papers' motion field, or both: a field on top of the graph."""
    field: FieldFitConfig = dataclasses.field(default_factory=FieldFitConfig)
    """Training of the field, where there is one; pictures and splats are those of the last level."""
    seed: int = 0
    """Seed of the surface sampling, and with `field.seed` of what training draws."""

    def __post_init__(self) -> None:
        ranges = {
            "size": (32, 1024),
            "fine_size": (32, 1024),
            "splats": (100, 200_000),
            "fine_splats": (100, 200_000),
            "nodes": (4, 1000),
            "levels": (1, 5),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"fit.{name} is {getattr(self, name)}: expected {low} to {high}")
        for name in (
            "polish_steps",
            "forward_steps",
            "backward_steps",
            "joint_steps",
            "fine_steps",
            "bias_steps",
            "seed",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"fit.{name} is {getattr(self, name)}: expected 0 or more")
        for name in (
            "photometric",
            "coverage",
            "rigidity",
            "silhouette",
            "fine_rigidity",
            "tracks",
            "translation_rate",
            "rotation_rate",
        ):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"fit.{name} is {getattr(self, name)}: expected a finite number, 0 or more")
        if self.body not in get_args(Body):
            raise ConfigError(f"fit.body is {self.body!r}: give one of {', '.join(get_args(Body))}")
        if not self.starts:
            raise ConfigError("fit.starts is empty: give neighbour, rest or both")
        if not 1.0 <= self.stiffness < float("inf"):
            raise ConfigError(f"fit.stiffness is {self.stiffness}: expected 1 or more")


def draft() -> FitConfig:
    """Return settings for a quick look (about 25 CPU seconds for 16 frames): fewer nodes and steps."""
    return FitConfig(
        nodes=100, levels=2, backward_steps=12, joint_steps=12, fine_steps=0, fine_rigidity=1.0, bias_steps=40
    )


def standard() -> FitConfig:
    """Return the settings that recover most of the true motion of rigged models."""
    return FitConfig()


def paper() -> FitConfig:
    """Return the papers' field with their schedule, at the sizes of `standard`: for comparison.

    Over three clips it took four times the CPU time of `standard`. Its vertex error was 0.73 of not moving (median),
    that of `standard` 0.15: colours alone let points slide along the surface.
    """
    return FitConfig(body="field")


PRESETS: dict[str, Callable[[], FitConfig]] = {"draft": draft, "standard": standard, "paper": paper}
"""What the option `fit` chooses from."""


def led_by_flow(base: FitConfig) -> FitConfig:
    """Return settings for a generated video that comes with its flow: believe where things went, not how they look.

    A small model fades what it is unsure of, and pictures and outlines would shrink the object after the fade: a
    swaying bamboo lost a third of its height under the weights of `base`, nothing under these. Its flow wobbles,
    hence more rigidity.
    """
    return replace(base, photometric=5.0, silhouette=0.0, rigidity=4.0, fine_rigidity=1.0)
