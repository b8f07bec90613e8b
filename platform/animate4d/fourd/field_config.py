"""Settings of the papers' motion field and of its training. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from animate4d.core.errors import ConfigError

When = Literal["never", "refine", "always"]
RigidityWeights = Literal["unit", "distance"]
FrameChoice = Literal["all", "light"]
RefineTarget = Literal["video", "render"]


def _within(config: object, group: str, name: str, low: float, high: float) -> None:
    value = getattr(config, name)
    if not low <= value <= high:
        raise ConfigError(f"{group}.{name} is {value}: expected {low:g} to {high:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaneConfig:
    """One resolution of Hex-planes."""

    side: int = 100
    """Nodes along x, y and z (2 to 512)."""
    steps: int = 8
    """Nodes along time (2 to 512)."""
    channels: int = 16
    """Features per node, a multiple of 8 (8 to 128)."""

    def __post_init__(self) -> None:
        for name in ("side", "steps"):
            _within(self, "planes", name, 2, 512)
        _within(self, "planes", "channels", 8, 128)
        if self.channels % 8:
            raise ConfigError(f"planes.channels is {self.channels}: give a multiple of 8")


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldConfig:
    """What the motion field is made of (papers 001 section 3.3, 002 section 3.2)."""

    planes: tuple[PlaneConfig, ...] = (PlaneConfig(),)
    """Resolutions whose features are concatenated; the papers name one, the released code has two."""
    hidden: int = 32
    """Hidden units of each head, a multiple of 8 (8 to 256)."""
    global_motion: bool = False
    """Whether a rotation and translation of the whole object come before the offsets (released code; not in the
    papers)."""
    sizes: When = "refine"
    """When sizes of the Gaussians are offset: always (papers), or only while refining (released code)."""
    color_terms: int = 5
    """Cosines w of 4D spherical harmonics, the constant one included (1 to 16); 1 keeps colours as they are."""

    def __post_init__(self) -> None:
        if not self.planes:
            raise ConfigError("field.planes is empty: give at least one resolution")
        _within(self, "field", "hidden", 8, 256)
        if self.hidden % 8:
            raise ConfigError(f"field.hidden is {self.hidden}: give a multiple of 8")
        if self.sizes not in get_args(When):
            raise ConfigError(f"field.sizes is {self.sizes!r}: give one of {', '.join(get_args(When))}")
        _within(self, "field", "color_terms", 1, 16)


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """4D score distillation: random cameras, little noise, the model's clean clip as the target (paper 001 eq. 11)."""

    weight: float = 0.01
    """Weight lambda_5 of half the squared distance of latents, summed over a latent and averaged over images."""
    every: int = 1
    """Distil at every so many refining steps; reconstruction goes on between (1 or more)."""
    least_noise: float = 0.02
    """Smallest noise level, as a share of the model's schedule."""
    most_noise: float = 0.2
    """Largest noise level, as a share of the model's schedule."""
    elevations: tuple[float, float] = (0.0, 30.0)
    """Range of camera elevations, degrees."""
    fields_of_view: tuple[float, float] = (15.0, 60.0)
    """Range of vertical fields of view, degrees."""
    distances: tuple[float, float] = (0.8, 1.0)
    """Range of camera distances times the tangent of half the field of view: 0.8 lets the object fill the picture."""

    def __post_init__(self) -> None:
        _within(self, "distill", "weight", 0.0, 1e6)
        _within(self, "distill", "every", 1, 10**6)
        if not 0.0 <= self.least_noise <= self.most_noise < 1.0:
            raise ConfigError(
                f"distill noise is {self.least_noise} to {self.most_noise}: give 0 <= least_noise <= most_noise < 1"
            )
        bounds = {"elevations": (-89.0, 89.0), "fields_of_view": (1.0, 120.0), "distances": (0.1, 10.0)}
        for name, (low, high) in bounds.items():
            start, end = getattr(self, name)
            if not low <= start <= end <= high:
                raise ConfigError(f"distill.{name} is {start} to {end}: expected rising numbers from {low} to {high}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldFitConfig:
    """Train a motion field on a multi-view video: frame after frame, then refined with all frames."""

    field: FieldConfig = FieldConfig()
    """What the field is made of."""
    distill: DistillConfig = DistillConfig()
    """Score distillation while refining, where a score function is given."""

    plane_rate: float = 0.01
    """Adam's rate for the planes (both papers)."""
    head_rate: float = 1e-4
    """Adam's rate for the heads (both papers)."""
    global_rate: float = 1e-3
    """Adam's rate for the global motion (released code)."""
    color_rate: float = 2.5e-3
    """Adam's rate for 4D spherical harmonics, learned while refining only: earlier they would explain motion away."""

    frame_steps: int = 50
    """Steps before the next frame joins (50 x 15 frames are the papers' 750 iterations); 0 takes all frames at once."""
    full_steps: int = 0
    """Reconstruction steps with all frames after the last has joined (the released code has 50)."""
    frames: FrameChoice = "all"
    """Frames of a step: all that have joined, or light: the newest and one earlier."""
    refine_steps: int = 250
    """Steps of the second stage, with a fresh optimiser: distillation, sizes and colours join (250 in the papers)."""
    refine_target: RefineTarget = "video"
    """What refining reconstructs: the video, or render: pictures of the first stage's own result (released code)."""
    plateau: float = 0.0
    """A stage ends when the mean loss of `plateau_steps` steps with all frames falls by less than this share of the one
    before; 0 never ends early."""
    plateau_steps: int = 25
    """Steps compared with as many before them (1 or more)."""
    checkpoint_steps: int = 50
    """Steps between checkpoints, where a file for them is given (1 or more)."""

    reconstruction: float = 100.0
    """Weight lambda_4 of the mean squared errors of colours on grey and of masks, which are added."""
    binary_masks: bool = True
    """Whether target masks are cut at one half (released code): exact for masks of a segmenter, half a pixel less sharp
    than rendered ones."""
    rigidity: float = 10.0
    """Weight lambda_6 of as-rigid-as-possible, a sum over frames, nodes and edges (released code: 12)."""
    rigidity_nodes: int = 512
    """Points per step whose neighbourhoods are kept rigid."""
    rigidity_edges: int = 3
    """Neighbours of each."""
    rigidity_weights: RigidityWeights = "unit"
    """Weight of an edge: unit (released code), or distance: exp(-length / mean length) (paper 002 eq. 9)."""
    rigidity_when: Literal["refine", "always"] = "always"
    """Paper 001 enables rigidity for the last 250 iterations, the released code always. Colour alone lets points slide
    along the surface, so always."""
    gradient_share: float = 1.0
    """Share of Gaussians, drawn anew for every frame and step, that receive gradients in the first stage (released
    code: 0.1)."""
    tracks: float = 0.0
    """Weight of point tracks or flow, where they are given, in the units of the graph's fit."""
    plane_variation: float = 0.0
    """Weight of the planes' total variation over space (4DGaussians: 1e-4)."""
    plane_smoothness: float = 0.0
    """Weight of the second differences over time of the planes with time (4DGaussians: 1e-2)."""
    plane_stillness: float = 0.0
    """Weight of the distance of the planes with time from one (4DGaussians: 1e-4)."""
    smoothness: float = 0.0
    """Weight of the mean squared second difference over time of the Gaussians' positions, canonical units."""
    residual: float = 0.0
    """Weight of the mean squared offset, canonical units: holds a residual to the motion below it."""
    color_decay: float = 1e-3
    """Weight of the mean squared moving terms of 4D spherical harmonics."""
    seed: int = 0
    """Seed of everything drawn."""

    def __post_init__(self) -> None:
        for name in ("frame_steps", "full_steps", "refine_steps", "seed"):
            _within(self, "field_fit", name, 0, 2**32)
        for name in ("plateau_steps", "checkpoint_steps", "rigidity_nodes", "rigidity_edges"):
            _within(self, "field_fit", name, 1, 10**6)
        weights = [entry.name for entry in fields(self) if entry.type == "float"]
        for name in weights:
            _within(self, "field_fit", name, 0.0, 1e9)
        if not 0.0 < self.gradient_share <= 1.0:
            raise ConfigError(f"field_fit.gradient_share is {self.gradient_share}: give a share above 0, up to 1")
        choices = {"frames": FrameChoice, "refine_target": RefineTarget, "rigidity_weights": RigidityWeights}
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(
                    f"field_fit.{name} is {getattr(self, name)!r}: give one of {', '.join(get_args(kind))}"
                )
        if self.rigidity_when not in ("refine", "always"):
            raise ConfigError(f"field_fit.rigidity_when is {self.rigidity_when!r}: give refine or always")


def paper() -> FieldFitConfig:
    """Return the papers' numbers where they give them: planes 100 x 100 x 8 of 16 features, 750 + 250 iterations."""
    return FieldFitConfig()


def released() -> FieldFitConfig:
    """Return the choices of Animate3D's released code where they differ from the papers."""
    return FieldFitConfig(
        field=FieldConfig(
            planes=(PlaneConfig(side=50, steps=50), PlaneConfig(side=100, steps=16)), global_motion=True, color_terms=1
        ),
        full_steps=50,
        refine_steps=200,
        refine_target="render",
        rigidity=12.0,
        gradient_share=0.1,
    )
