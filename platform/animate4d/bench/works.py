"""The pieces of work the model bench measures, by name; each can be built on any device, on meta to be counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from animate4d.bench.loops import PlainTraining, TrainingPlan
from animate4d.bench.subject import Subject, make_subject
from animate4d.bench.twin import PlainModel
from animate4d.models.config import MVVDMConfig
from animate4d.models.execution import ExecutionConfig
from animate4d.models.sampler import Sampler
from animate4d.models.sampler_config import FreeInitConfig, SamplerConfig, StepCacheConfig
from animate4d.models.step_cache import StepCache
from animate4d.training.recipe import RECIPES, Recipe

Work = Callable[[], Any]

FREE_INIT_ROUNDS = 3
"""As the released Animate3D samples."""

CACHE_INTERVAL = 2
"""Every second step in full."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything a piece of work needs to be built; JSON values, because it travels to child processes.

    Attributes:
        config: the network's, as `MVVDMConfig.to_json` gives it.
        recipe: name of the training recipe.
        clips: per training step.
        steps: of sampling.
        guidance: of sampling.
        device: torch's name of it.
        precision: of inference; training on a GPU is bf16 autocast whatever it says.
        execution: how the network runs, fields of `ExecutionConfig`.
        seed: of weights and inputs.
    """

    config: dict[str, Any]
    recipe: str
    clips: int
    steps: int
    guidance: float
    device: str
    precision: str
    execution: dict[str, Any]
    seed: int

    @property
    def network(self) -> MVVDMConfig:
        """The network's configuration."""
        return MVVDMConfig.from_json(self.config)

    @property
    def training(self) -> Recipe:
        """Objective and optimiser."""
        return RECIPES[self.recipe]()

    def subject(self, *, autoencoder: bool = False) -> Subject:
        """Build the model for inference, with an autoencoder if asked for."""
        subject = make_subject(
            self.network,
            torch.device(self.device),
            DTYPES[self.precision],
            self.seed,
            autoencoder=autoencoder,
        )
        subject.model.execute(self.runs())
        return subject

    def runs(self, *, checkpointing: bool = False) -> ExecutionConfig:
        """Return how the network runs; nothing is compiled to be counted."""
        chosen = ExecutionConfig(**self.execution)
        if self.device == "meta":
            chosen = replace(chosen, compiler="none", compile_mode="")
        return replace(chosen, checkpoint_layers=True) if checkpointing else chosen


def forward(plan: Plan, samples: int) -> Work:
    """Return one forward pass of so many samples; it returns what the network predicts."""
    subject = plan.subject()
    inputs = subject.forward_inputs(samples)

    @torch.no_grad()
    def run() -> torch.Tensor:
        return subject.model(**inputs).prediction

    return run


def plain_forward(plan: Plan, samples: int) -> Work:
    """Return the same by the plain network, one sample at a time."""
    subject = plan.subject()
    plain = PlainModel(subject.model)
    every = subject.forward_inputs(samples)

    def sliced(value: Any, number: int) -> Any:
        if value is None:
            return None
        if isinstance(value, torch.Tensor):
            return value[number : number + 1]
        return type(value)(*(sliced(getattr(value, name), number) for name in value.__slots__))

    @torch.no_grad()
    def run() -> torch.Tensor:
        found = []
        for number in range(samples):
            inputs = {name: sliced(value, number) for name, value in every.items()}
            found.append(plain.predicted(plain.forward(**inputs), inputs["first_frame"]))
        return torch.cat(found)

    return run


def cached_forward(plan: Plan, samples: int) -> Work:
    """Return a forward pass that reuses deep features, as step caching does between full steps."""
    subject = plan.subject()
    inputs = subject.forward_inputs(samples)
    cache = StepCache(Sampler(subject.model, SamplerConfig()).kept_layers)

    @torch.no_grad()
    def run() -> torch.Tensor:
        return subject.model(**inputs, cache=cache).prediction

    run()
    cache.reuse = True
    return run


def sampling(plan: Plan, *, rounds: int = 1, interval: int = 1) -> Work:
    """Return the sampling of one guided clip's latents."""
    subject = plan.subject()
    settings = SamplerConfig(
        steps=plan.steps,
        guidance=plan.guidance,
        free_init=FreeInitConfig(rounds=rounds),
        step_cache=StepCacheConfig(interval=interval),
    )
    sampler, inputs = Sampler(subject.model, settings), subject.sampling_inputs()
    noise = [sampling_noise(subject, number) for number in range(rounds)]
    return lambda: sampler.sample(inputs, noise=noise).latents


def plain_sampling(plan: Plan) -> Work:
    """Return the same by a plain loop around the plain network."""
    subject = plan.subject()
    plain, inputs, noise = PlainModel(subject.model), subject.sampling_inputs(), sampling_noise(subject, 0)
    return lambda: plain.sample(inputs, noise, steps=plan.steps, guidance=plan.guidance)


def sampling_noise(subject: Subject, number: int) -> torch.Tensor:
    """Return the noise of one round `[1, V, T - 1, c, h, w]`."""
    config = subject.model.config
    shape = (1, config.views, config.frames - 1, config.latent_channels, config.latent_size, config.latent_size)
    return subject.draw(*shape, salt=10 + number).float()


def decode(plan: Plan) -> Work:
    """Return the decoding of one clip's latents to pictures by the autoencoder."""
    subject = plan.subject(autoencoder=True)
    latents = subject.forward_inputs(1)["latents_noisy"]

    @torch.no_grad()
    def run() -> torch.Tensor:
        return subject.model.decode(latents)

    return run


def training_plan(plan: Plan, *, checkpointing: bool = False) -> TrainingPlan:
    """Return what the training bench takes."""
    return TrainingPlan(
        config=plan.network,
        recipe=plan.training,
        clips=plan.clips,
        device=torch.device(plan.device),
        seed=plan.seed,
        execution=plan.runs(checkpointing=checkpointing),
    )


def training_step(plan: Plan, *, checkpointing: bool = False) -> Work:
    """Return one training step: loss, backward, clipping, AdamW, moving average."""
    return PlainTraining(training_plan(plan, checkpointing=checkpointing), steps=1000).step


WORKS: dict[str, Callable[[Plan], Work]] = {
    "forward": lambda plan: forward(plan, 1),
    "forward, guided": lambda plan: forward(plan, 2),
    "cached forward, guided": lambda plan: cached_forward(plan, 2),
    "plain forward": lambda plan: plain_forward(plan, 1),
    "plain forward, guided": lambda plan: plain_forward(plan, 2),
    "training step": training_step,
    "training step, checkpointing": lambda plan: training_step(plan, checkpointing=True),
    "sampling": sampling,
    "sampling, FreeInit": lambda plan: sampling(plan, rounds=FREE_INIT_ROUNDS),
    "sampling, step cache": lambda plan: sampling(plan, interval=CACHE_INTERVAL),
    "plain sampling": plain_sampling,
    "decode": decode,
}
