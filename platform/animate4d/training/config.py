"""What a training run is: where its files are, how often it writes them, and what it changes in its preset's recipe.

Imports nothing heavy, so that `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from animate4d.core.errors import ConfigError
from animate4d.models.config import MVVDMConfig, model_preset
from animate4d.models.execution import ExecutionConfig
from animate4d.tracks.build import NONE, check_tracker
from animate4d.tracks.cotracker3.config import Precision
from animate4d.training.recipe import RECIPES, FirstFrameNoise, Recipe

Preset = Literal["smoke", "small", "paper", "paper_sd21"]


STEPS = {"smoke": 1000, "small": 20_000, "paper": 144_000, "paper_sd21": 144_000}
"""Optimiser steps. Paper 001 trains 20 epochs; of the 115,566 clips of MV-Video, 16 a step, those are 144,000 steps."""

FRAME_STRIDE = {"smoke": 2, "small": 1, "paper": 1, "paper_sd21": 1}
"""Every how many of the 16 frames that shards store the model sees one."""


HELD_OUT = "held-out.txt"
"""File in the run folder with the keys of the clips that are not trained on; absent where there are none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelChanges:
    """What to change in the preset's network. A part left out is the preset's."""

    blend: Literal["attention", "module", "fixed"] | None = None
    """How spatial and temporal branches are mixed: attention (a learned share each), module (one learned share per
    motion module), fixed (half and half)."""
    mv2v: bool | None = None
    """Whether every frame attends to frame 0 of all views."""
    image_tokens: int | None = None
    """Image-prompt tokens per view; 0 switches image attention off."""
    head: Literal["warp", "epsilon", "v_prediction"] | None = None
    """What the network predicts: warp (moves frame 0), epsilon (the noise) or v_prediction."""
    zero_terminal_snr: bool | None = None
    """Whether the last step is pure noise; must be off with head epsilon."""
    tap: str | None = None
    """Layer whose features the track losses supervise, for example up_blocks.1 or up_blocks.1.motion_modules.2."""

    def given(self) -> dict[str, Any]:
        """Return the fields that change something."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Train MV-VDM on shards. A number left out is the preset's."""

    data: Path
    """Folder of shards that `jobs/build_shards.py` wrote."""
    held_out: float = 0.1
    """Share of the objects, rounded down, that training never sees: validation loss and sample grids are of them. Their
    clips are listed in held-out.txt of the run folder."""
    keep_list: Path | None = None
    """List of the clips to train on, one key per line, as written by `jobs/curate_shards.py`; default all."""
    out: Path = Path("runs/train")
    """Run folder: checkpoints/, metrics.jsonl, samples/, model/. All nodes must see it under the same path. Under
    `ray job submit --working-dir` a relative path lies below $ANIMATE4D_HOME, else ~/animate4d."""
    preset: Preset = "smoke"
    """Network and recipe: smoke (minutes on 2 CPU cores), small (an hour on one GPU), paper (the papers' numbers),
    paper_sd21 (the same on SD 2.1's sizes)."""
    init: Path | None = None
    """Model folder whose weights training starts from; default random ones."""
    resume: bool = False
    """Go on from the newest complete checkpoint in `out`."""

    steps: int | None = None
    """Optimiser steps (smoke 1000, small 20000, paper 144000)."""
    batch_size: int | None = None
    """Clips per optimiser step over all workers (smoke 4, small 8, paper 16)."""
    accumulate: int | None = None
    """Parts in which a step's clips pass the network one after the other, to save memory (1)."""
    clip: float | None = None
    """Largest norm of the gradient; what is larger is scaled down to it (1)."""
    weight_decay: float | None = None
    """AdamW's weight decay (0.01)."""
    learning_rate: float | None = None
    """AdamW's peak rate (smoke 0.002, small 0.0005, paper 1e-6)."""
    warmup: int | None = None
    """Steps of linear warm-up (smoke 30, small 500, paper 1000)."""
    ema: float | None = None
    """Decay of the averaged weights that samples and the final model use (smoke 0.99, small 0.999, paper 0 = none)."""
    correspondence: float | None = None
    """Weight of the track correspondence loss, paper 001 eq. 4 (0.1); 0 switches it off."""
    position: float | None = None
    """Weight of the track position loss, paper 001 eq. 5 (10); 0 switches it off."""
    flow: float | None = None
    """Weight of the warp head's flow loss; default the preset's."""
    first_frame_noise: FirstFrameNoise | None = None
    """Noise on frame 0: clean (none), beta (the scheduler's tiny beta_t) or time (grows with the timestep, against
    motionless clips; smoke and small clean, paper time)."""
    first_frame_noise_max: float | None = None
    """Largest standard deviation of first-frame-noise time: more gives larger motion and less likeness (1)."""
    model: ModelChanges = field(default_factory=ModelChanges)
    """Changes to the preset's network, for ablations."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    """Speed and memory of the network; may change between a run and the one that goes on from its checkpoint."""

    workers: int = 1
    """Ray Train workers; each takes one GPU where the cluster has GPUs, else `threads` CPU threads."""
    threads: int = 1
    """CPU threads per worker for torch."""
    zero: bool | None = None
    """Whether several workers share the optimiser's state, DeepSpeed's ZeRO-1: less memory each, more copying. Default
    on GPUs only; may change between a run and the one that goes on from its checkpoint."""
    loader: Literal["inprocess", "ray"] = "inprocess"
    """inprocess reads shards in the worker (exact resume); ray streams and labels them with Ray Data."""
    tracker: str = "exact"
    """Who tracks points: exact (labels in the shards), opencv-lk, opencv-dis, cotracker3, cotracker3-official; none."""
    tracker_checkpoint: Path | None = None
    """Weights of cotracker3, scaled_offline.pth or scaled_online.pth (CC BY-NC 4.0, as the model may be then)."""
    tracker_precision: Precision = "fp32"
    """Arithmetic of cotracker3: bf16 is meant for GPUs. Labels of the two are kept apart."""
    labeller_gpus: float | None = None
    """Loader ray: share of a GPU for the labelling actor of cotracker3 beside each worker. Default: of GPUs that no
    worker needs, else 0.25 of the worker's own; 0 labels on the CPU."""
    labels: Path | None = None
    """Folder in which computed labels are kept, as by `jobs/label_tracks.py`; default `labels` beside the shards."""
    latents: Path | None = None
    """Folder of latents that `jobs/encode_latents.py` kept for this model's autoencoder; default: encode every step."""
    seed: int = 0
    """Seed of weights, noise and clip order."""
    checkpoint_every: int = 50
    """Steps between checkpoints; the last step always writes one. They are written while training goes on: a kill right
    after such a step may find only the one before, and a full disk is noticed some steps later."""
    keep: int = 3
    """Newest checkpoints kept."""
    sample_every: int = 200
    """Steps between sample grids; 0 draws none."""
    validate_every: int = 200
    """Steps between validation losses; 0 computes none."""
    validate_clips: int = 32
    """Held-out clips, of four views each, that a validation loss is the mean of."""
    log_every: int = 1
    """Steps between lines of metrics.jsonl."""
    max_failures: int = 2
    """Times the workers are started again after one has died."""
    tracking_uri: str | None = None
    """MLflow store; default $MLFLOW_TRACKING_URI, else the file mlflow.db in the current folder."""
    register: bool = True
    """Register the finished model in MLflow as `mv-vdm` and make it the champion."""
    run_name: str | None = None
    """Name of the run in MLflow; default the name of `out`."""

    def __post_init__(self) -> None:
        least = {
            "workers": 1,
            "threads": 1,
            "checkpoint_every": 1,
            "keep": 1,
            "log_every": 1,
            "sample_every": 0,
            "validate_every": 0,
            "validate_clips": 1,
            "max_failures": 0,
            "seed": 0,
        } | ({} if self.steps is None else {"steps": 1})
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a whole number >= {bound}")
        if self.preset not in RECIPES:
            raise ConfigError(f"preset is '{self.preset}': give one of {', '.join(RECIPES)}")
        for name, good, wanted in [
            ("learning_rate", self.learning_rate is None or 0 < self.learning_rate < 1, "between 0 and 1"),
            ("warmup", self.warmup is None or self.warmup >= 0, ">= 0"),
            ("ema", self.ema is None or 0 <= self.ema < 1, "in [0, 1)"),
            ("batch_size", self.batch_size is None or self.batch_size >= 1, ">= 1"),
            ("accumulate", self.accumulate is None or self.accumulate >= 1, ">= 1"),
            ("clip", self.clip is None or self.clip > 0, "above 0"),
            ("weight_decay", self.weight_decay is None or 0 <= self.weight_decay < 1, "in [0, 1)"),
            ("held_out", 0 <= self.held_out <= 0.5, "from 0 to 0.5"),
        ]:
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number {wanted}")
        if self.network().codec == "pixels" and self.latents is not None and self.init is None:
            raise ConfigError(f"latents: preset {self.preset} has the lossless codec pixels: leave --latents out")
        check_tracker(self.tracker, self.tracker_checkpoint, self.tracker_precision)
        objective = self.recipe().objective
        if self.tracker == NONE and (objective.correspondence or objective.position):
            raise ConfigError("tracker none leaves nothing to supervise: add --correspondence 0 --position 0")
        if self.labeller_gpus is not None and not 0 <= self.labeller_gpus <= 1:
            raise ConfigError(f"labeller_gpus is {self.labeller_gpus}: give a share from 0 to 1")
        optimizer = self.recipe().optimizer
        if optimizer.batch_size % (self.workers * optimizer.accumulate):
            times = f" in {optimizer.accumulate} parts" if optimizer.accumulate > 1 else ""
            raise ConfigError(
                f"batch_size is {optimizer.batch_size} for {self.workers} workers{times}: "
                "give --batch-size a multiple of --workers times --accumulate"
            )

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps or STEPS[self.preset]

    def network(self) -> MVVDMConfig:
        """Return the preset's network with what this config changes.

        Raises:
            ConfigError: the changes make no network.
        """
        return replace(model_preset(self.preset), **self.model.given())

    def recipe(self) -> Recipe:
        """Return the preset's recipe with what this config overrides."""
        base = RECIPES[self.preset]()
        return replace(
            base,
            optimizer=overridden(base.optimizer, self, OPTIMIZER_FIELDS),
            objective=overridden(base.objective, self, OBJECTIVE_FIELDS),
        )


OPTIMIZER_FIELDS = ("batch_size", "accumulate", "learning_rate", "weight_decay", "warmup", "clip", "ema")
OBJECTIVE_FIELDS = ("correspondence", "position", "flow", "first_frame_noise", "first_frame_noise_max")


def overridden(part: Any, config: TrainConfig, names: tuple[str, ...]) -> Any:
    """Return a recipe part with those of the named fields that the config gives."""
    given = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    return replace(part, **given)
