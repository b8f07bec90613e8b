"""What a training run is: where its files are (`TrainConfig`) and the numbers of its recipe (`Recipe`, one per preset).

Imports nothing heavy, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from animate4d.core.errors import ConfigError

Preset = Literal["smoke", "small", "paper"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """What each term of the loss is multiplied by before the sum; 0 switches a term off and saves its cost."""

    diffusion: float = 1.0
    """lambda 1 of paper 001: error of the denoised video (eq. 3)."""
    correspondence: float = 0.1
    """lambda 2 of paper 001: features along a point track stay alike (eq. 4)."""
    position: float = 10.0
    """lambda 3 of paper 001: features find the tracked point again (eq. 5)."""
    flow: float = 0.0
    """L1 error of the warp head's flow inside the object, where shards carry exact flow."""
    coarse: float = 0.0
    """128 x squared error of 4x4-pixel means (smoke recipe, section 3)."""
    gate: float = 0.0
    """Cross-entropy of the warp head's visibility gate against the object's alpha."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise ConfigError(f"weights.{name} is {value}: give a number >= 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The numbers of one optimisation."""

    steps: int
    """Optimiser steps."""
    batch_size: int
    """Clips per worker and step."""
    learning_rate: float
    """AdamW's rate after the warm-up."""
    betas: tuple[float, float]
    """AdamW's moment decays."""
    weight_decay: float
    """AdamW's decoupled weight decay."""
    warmup_steps: int
    """Steps over which the rate rises linearly from zero."""
    decay_share: float
    """Last share of the steps over which the rate falls linearly to `decay_to`; 0 keeps it constant."""
    decay_to: float
    """Share of the rate left at the last step."""
    clip: float
    """Largest norm of the whole gradient."""
    ema: float
    """Decay of the averaged weights that samples and the final model use; 0 keeps no average."""
    weights: LossWeights
    """Weights of the loss terms."""

    def __post_init__(self) -> None:
        checks = [
            ("steps", self.steps, self.steps >= 1, ">= 1"),
            ("batch_size", self.batch_size, self.batch_size >= 1, ">= 1"),
            ("learning_rate", self.learning_rate, 0 < self.learning_rate < 1, "between 0 and 1"),
            ("betas", self.betas, all(0 <= beta < 1 for beta in self.betas), "two numbers in [0, 1)"),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0, ">= 0"),
            ("warmup_steps", self.warmup_steps, self.warmup_steps >= 0, ">= 0"),
            ("decay_share", self.decay_share, 0 <= self.decay_share <= 1, "between 0 and 1"),
            ("decay_to", self.decay_to, 0 <= self.decay_to <= 1, "between 0 and 1"),
            ("clip", self.clip, self.clip > 0, "> 0"),
            ("ema", self.ema, 0 <= self.ema < 1, "in [0, 1)"),
        ]
        for name, value, good, wanted in checks:
            if not good:
                raise ConfigError(f"{name} is {value}: give {wanted}")

    def learning_rate_at(self, step: int) -> float:
        """Return the rate of optimiser step `step` (1 is the first): warm-up, constant, final linear decay."""
        rise = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        decay_steps = round(self.steps * self.decay_share)
        into_decay = step - (self.steps - decay_steps)
        fall = (
            1.0 - (1.0 - self.decay_to) * min(1.0, into_decay / decay_steps) if into_decay > 0 and decay_steps else 1.0
        )
        return self.learning_rate * rise * fall


def smoke() -> Recipe:
    """Return the recipe measured for minutes on two CPU cores (warp head, exact flow, x0 prediction)."""
    return Recipe(
        steps=1000,
        batch_size=4,
        learning_rate=2e-3,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        warmup_steps=30,
        decay_share=0.25,
        decay_to=0.02,
        clip=1.0,
        ema=0.99,
        # lambda 2 and 3 stay the paper's; coarse and gate are the values the smoke study measured or recommends.
        weights=LossWeights(flow=1.0, coarse=0.25, gate=0.05),
    )


def small() -> Recipe:
    """Return the recipe for training from scratch on one GPU in about an hour."""
    return replace(smoke(), steps=20_000, batch_size=8, learning_rate=5e-4, warmup_steps=500, ema=0.999)


def paper() -> Recipe:
    """Return the numbers of papers 001 and 000 (appendix A): 16 workers x 1 clip, constant rate with warm-up, no EMA.

    The papers give no number of warm-up steps (500 is ours) and 20 epochs, which are 144,000 steps of the 115,566
    clips of MV-Video at 16 clips a step.
    """
    return Recipe(
        steps=144_000,
        batch_size=1,
        learning_rate=1e-6,
        betas=(0.9, 0.999),
        weight_decay=0.01,
        warmup_steps=500,
        decay_share=0.0,
        decay_to=1.0,
        clip=1.0,
        ema=0.0,
        weights=LossWeights(),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"smoke": smoke, "small": small, "paper": paper}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Train MV-VDM on shards. A number left out is the preset's."""

    data: Path
    """Folder of shards that `jobs/build_shards.py` wrote."""
    out: Path = Path("runs/train")
    """Run folder: checkpoints/, metrics.jsonl, samples/, model/. All nodes must see it under the same path."""
    preset: Preset = "smoke"
    """Network and recipe: smoke (minutes on 2 CPU cores), small (an hour on one GPU), paper (the papers' numbers)."""
    init: Path | None = None
    """Model folder whose weights training starts from; default random ones."""
    resume: bool = False
    """Go on from the newest complete checkpoint in `out`."""

    steps: int | None = None
    """Optimiser steps (smoke 1000, small 20000, paper 144000)."""
    batch_size: int | None = None
    """Clips per worker and step (smoke 4, small 8, paper 1)."""
    learning_rate: float | None = None
    """AdamW's rate (smoke 0.002, small 0.0005, paper 1e-6)."""
    warmup_steps: int | None = None
    """Steps of linear warm-up (smoke 30, small and paper 500)."""
    ema: float | None = None
    """Decay of the averaged weights (smoke 0.99, small 0.999, paper 0 = none)."""
    correspondence_weight: float | None = None
    """Weight of the track correspondence loss, paper 001 eq. 4 (0.1)."""
    position_weight: float | None = None
    """Weight of the track position loss, paper 001 eq. 5 (10)."""
    flow_weight: float | None = None
    """Weight of the warp head's flow loss (smoke and small 1, paper 0)."""

    workers: int = 1
    """Ray Train workers; each takes one GPU where the cluster has GPUs, else `threads` CPU threads."""
    threads: int = 1
    """CPU threads per worker for torch."""
    loader: Literal["inprocess", "ray"] = "inprocess"
    """inprocess reads shards in the worker (exact resume); ray streams and labels them with Ray Data."""
    tracker: str = "exact"
    """Who tracks points: exact (labels in the shards), opencv-lk, opencv-dis."""
    seed: int = 0
    """Seed of weights, noise and clip order."""
    checkpoint_every: int = 50
    """Steps between checkpoints; the last step always writes one."""
    keep: int = 3
    """Newest checkpoints kept."""
    sample_every: int = 200
    """Steps between sample grids; 0 draws none."""
    log_every: int = 1
    """Steps between lines of metrics.jsonl."""
    max_failures: int = 2
    """Times the workers are started again after one has died."""
    tracking_uri: str | None = None
    """MLflow store; default $MLFLOW_TRACKING_URI, else the file mlflow.db in the current folder."""
    run_name: str | None = None
    """Name of the run in MLflow; default the name of `out`."""

    def __post_init__(self) -> None:
        for name, least in [
            ("workers", 1), ("threads", 1), ("checkpoint_every", 1), ("keep", 1), ("log_every", 1),
            ("sample_every", 0), ("max_failures", 0), ("seed", 0),
        ]:  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a whole number >= {least}")
        self.recipe()

    def recipe(self) -> Recipe:
        """Return the preset's recipe with what this config overrides."""
        if self.preset not in RECIPES:
            raise ConfigError(f"preset is '{self.preset}': give one of {', '.join(RECIPES)}")
        base = RECIPES[self.preset]()
        names = ("steps", "batch_size", "learning_rate", "warmup_steps", "ema")
        changes: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        terms = {
            "correspondence": self.correspondence_weight,
            "position": self.position_weight,
            "flow": self.flow_weight,
        }
        weights = replace(base.weights, **{name: value for name, value in terms.items() if value is not None})
        return replace(base, weights=weights, **changes)
