"""The training recipe of each model preset: what is minimised, and with which optimiser. Plain numbers, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from animate4d.core.errors import ConfigError

FirstFrameNoise = Literal["clean", "beta", "time"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """Weights and probabilities of the training loss."""

    correspondence: float = 0.1
    """Weight of the correspondence loss on tapped features (paper 001 eq. 4, lambda 2)."""
    position: float = 10.0
    """Weight of the position loss on tapped features (paper 001 eq. 5, lambda 3)."""
    object_weight: float = 4.0
    """Extra weight of latent cells the object touches (warp head)."""
    coarse: float = 4.0
    """Weight of the squared error of 4x4-pixel means (warp head)."""
    flow: float = 0.5
    """Weight of the relative flow error inside the object (warp head)."""
    gate: float = 0.1
    """Weight of the gate's cross-entropy against coverage (warp head)."""
    drop_text: float = 0.1
    """Probability that a sample's caption is dropped (classifier-free guidance)."""
    first_frame_noise: FirstFrameNoise = "clean"
    """Frame 0 in training; in sampling it is always clean, and image tokens always see the clean picture.

    A clean frame 0 tells a network that paints nearly everything, so it learns to stand still at high noise. Paper 001
    therefore adds noise eps' beta_t to it, "larger at large timesteps to sufficiently perturb", after Zhao et al.
    (arXiv 2406.15735), and gives no values:

    - "clean": no noise (Animate3D, paper 002); right for the warp head, which paints nothing.
    - "beta": beta_t of the scheduler, the symbol taken literally. At most 0.012 beside latents of standard deviation
      one, it perturbs nothing: there for comparison.
    - "time": Zhao et al.'s TimeNoise, standard deviation m * sigmoid(N(2 t^a - 1, 1)) with t in [0, 1], one draw per
      clip. The paper's words fit this one alone, so it is what preset paper uses.
    """
    first_frame_noise_max: float = 1.0
    """The m of "time": more gives larger motion and less likeness. Zhao et al. take 15 for a network that sees unscaled
    latents (2.7 in ours) and 25 to 700 for others that get the picture by further ways. Here frame 0 is the only source
    of MV2V's keys and of the descriptors that tracks start from: at 1 the noise never exceeds the signal."""
    first_frame_noise_power: float = 5.0
    """The a of "time" (Zhao et al.): how late in the schedule the noise grows."""
    noisy_bias: bool = True
    """Draw timesteps as 1 - u^2 instead of evenly: with a motion that the prompt determines, everything is decided at
    high noise."""

    def __post_init__(self) -> None:
        for name in ("correspondence", "position", "object_weight", "coarse", "flow", "gate"):
            if getattr(self, name) < 0:
                raise ConfigError(f"objective.{name} is {getattr(self, name)}: expected zero or more")
        if self.first_frame_noise not in get_args(FirstFrameNoise):
            known = ", ".join(get_args(FirstFrameNoise))
            raise ConfigError(f"objective.first_frame_noise is {self.first_frame_noise!r}: expected one of {known}")
        for name in ("first_frame_noise_max", "first_frame_noise_power"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"objective.{name} is {getattr(self, name)}: expected more than zero")
        if not 0 <= self.drop_text < 1:
            raise ConfigError(f"objective.drop_text is {self.drop_text}: expected 0 <= drop_text < 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW with warm-up, an optional final decay, clipping and an optional moving average of weights."""

    learning_rate: float = 2e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW betas."""
    weight_decay: float = 0.01
    """AdamW weight decay."""
    clip: float = 1.0
    """Largest gradient norm."""
    warmup: int = 30
    """Steps of linear warm-up."""
    decay_share: float = 0.25
    """Share of the run, at its end, over which the rate falls linearly to `final_share` of its peak; 0 keeps it
    constant."""
    final_share: float = 0.02
    """Learning rate at the last step, as a share of the peak."""
    ema: float = 0.99
    """Decay of the moving average of weights that is saved; 0 saves the weights themselves."""
    batch_size: int = 4
    """Samples per optimiser step over all workers."""
    accumulate: int = 1
    """Parts in which a step's samples pass the network, one after the other: less memory, the same step. Losses that
    are means over visible points weigh every part alike."""
    frames_per_step: int = 4
    """Frames trained per step: frame 0 and others drawn at random; the clip's length trains all."""

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of step `step` (from 0) in a run of `steps`."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        start = steps * (1 - self.decay_share)
        if self.decay_share == 0 or step < start:
            return self.learning_rate * warm
        done = min(1.0, (step - start) / max(steps - start, 1.0))
        return self.learning_rate * warm * (1 - done * (1 - self.final_share))


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything a training run needs to know besides the model and the data."""

    objective: ObjectiveConfig
    optimizer: OptimizerConfig


def smoke() -> Recipe:
    """Return the recipe measured on two CPU cores."""
    return Recipe(objective=ObjectiveConfig(), optimizer=OptimizerConfig())


def small() -> Recipe:
    """Return the recipe for one GPU: `smoke` with a lower rate, a slower average and all frames."""
    return Recipe(
        objective=ObjectiveConfig(),
        optimizer=OptimizerConfig(learning_rate=5e-4, warmup=500, ema=0.999, batch_size=8, frames_per_step=16),
    )


def paper() -> Recipe:
    """Return paper 001's numbers (constant rate, 16 samples per step, all frames); it gives no warm-up length."""
    return Recipe(
        objective=ObjectiveConfig(
            object_weight=0.0, coarse=0.0, flow=0.0, gate=0.0, first_frame_noise="time", noisy_bias=False
        ),
        optimizer=OptimizerConfig(
            learning_rate=1e-6,
            betas=(0.9, 0.999),
            warmup=1000,
            decay_share=0.0,
            ema=0.0,
            batch_size=16,
            frames_per_step=16,
        ),
    )


RECIPES = {"smoke": smoke, "small": small, "paper": paper, "paper_sd21": paper}
