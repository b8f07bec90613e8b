"""The denoising loop: first frames, cameras and prompts of several objects to multi-view clips.

Frame 0 is the condition: it enters the network clean at every step and is never denoised, so noise, scheduler and
FreeInit only ever see the T - 1 frames after it. An object's clip depends on its own seed and inputs, not on what else
is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from animate4d.core.errors import ConfigError
from animate4d.models.free_init import renewed_noise
from animate4d.models.mv_vdm import MVVDM, MVVDMOutput, make_scheduler
from animate4d.models.sampler_config import SamplerConfig
from animate4d.models.step_cache import StepCache
from animate4d.models.text import TextStates

SOLVERS = {"dpm++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
"""Schedulers other than the model's own DDIM; they take its noise schedule over."""

POSTERIOR_STREAM = 1
"""Second word of the seed behind an object's condition latents, whose noise must not repeat that of its clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subjects:
    """What B clips are sampled from; axes V views, T frames.

    Attributes:
        first_frame: `[B, V, c, h, w]` clean latents of frame 0.
        camera: `[B, V, 4, 4]` camera-to-world.
        frame_index: `[B, T]` int64 true frame numbers, 0 first.
        text: the encoded prompts.
        negative: the encoded negative prompts; None without guidance.
        image_embeds: `[B, V, e]` CLIP embeddings of frame 0; None if the network has no image tokens.
        seeds: one per clip.
    """

    first_frame: torch.Tensor
    camera: torch.Tensor
    frame_index: torch.Tensor
    text: TextStates
    negative: TextStates | None
    image_embeds: torch.Tensor | None
    seeds: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Where a sampling run is.

    Attributes:
        done: steps taken, over all rounds.
        total: steps of the whole run.
        timestep: the one just denoised.
        latents: `[B, V, T, c, h, w]` after it, frame 0 clean.
    """

    done: int
    total: int
    timestep: int
    latents: torch.Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Sampled clips.

    Attributes:
        latents: `[B, V, T, c, h, w]` float32; frame 0 is the condition, bit for bit. `MVVDM.decode` shows them.
        flow: `[B, V, T, 2, h, w]` of the last step, half-image units (head "warp"), else None.
        gate: `[B, V, T, 1, h, w]` logits of the last step (head "warp"), else None.
        features: the tapped features `[B, V, T, C, h', w']` by name, of the half that heard the prompt.
        finished: False if the callback ended the run; the latents are then still noisy.
    """

    latents: torch.Tensor
    flow: torch.Tensor | None
    gate: torch.Tensor | None
    features: dict[str, torch.Tensor] = field(default_factory=dict)
    finished: bool = True


class Sampler:
    """Samples clips with one model and one way of sampling; holds no state between runs."""

    def __init__(self, model: MVVDM, config: SamplerConfig | None = None) -> None:
        self.model = model
        self.config = config or SamplerConfig()
        made_for = model.config
        self.steps = made_for.sample_steps if self.config.steps is None else self.config.steps
        self.guidance = made_for.guidance if self.config.guidance is None else self.config.guidance
        layers = self.config.step_cache.layers
        self.kept_layers = made_for.layers_per_block + 1 if layers is None else layers
        deepest = len(made_for.block_channels) * (made_for.layers_per_block + 1)
        if self.kept_layers > deepest:
            raise ConfigError(f"step_cache.layers is {layers}: the model's decoder has {deepest}")

    @torch.no_grad()
    def prepare(
        self,
        pictures: torch.Tensor,
        camera: torch.Tensor,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        frame_index: torch.Tensor | None = None,
    ) -> Subjects:
        """Encode what clips are sampled from.

        Args:
            pictures: `[B, V, 3, S, S]` frame 0 of every view in [-1, 1], at the model's image size, on its device.
            camera: `[B, V, 4, 4]` camera-to-world of every object's own views.
            prompts: B sentences.
            seeds: B seeds.
            frame_index: `[B, T]` int64 true frame numbers, 0 first; default all of the model's frames.

        Raises:
            ConfigError: the counts differ.
        """
        model, objects = self.model, len(pictures)
        if not len(camera) == len(prompts) == len(seeds) == objects:
            raise ConfigError(
                f"{objects} objects, {len(camera)} rigs, {len(prompts)} prompts, {len(seeds)} seeds: expected as many "
                "of each"
            )
        posterior = [_generator(seed, POSTERIOR_STREAM) for seed in seeds]
        latents = [model.encode(pictures[i : i + 1], generator=posterior[i]) for i in range(objects)]
        if frame_index is None:
            frame_index = torch.arange(model.config.frames, device=pictures.device).expand(objects, -1)
        return Subjects(
            first_frame=torch.cat(latents).float(),
            camera=camera.to(pictures.device, torch.float32),
            frame_index=frame_index,
            text=model.embed_text(prompts),
            negative=model.embed_text([self.config.negative_prompt] * objects) if self.guidance != 1 else None,
            image_embeds=model.embed_image(pictures),
            seeds=seeds,
        )

    @torch.no_grad()
    def sample(
        self,
        subjects: Subjects,
        *,
        noise: Sequence[torch.Tensor] | None = None,
        taps: Sequence[str] = (),
        tap_step: int | None = None,
        on_step: Callable[[Step], bool | None] | None = None,
    ) -> Sample:
        """Denoise.

        Args:
            subjects: see `prepare`.
            noise: `[B, V, T - 1, c, h, w]`, one for each round of FreeInit, instead of what the seeds give.
            taps: features to return, see `MVVDM.tap_names`.
            tap_step: which step's features, counted from 0 over all rounds; default the last one's.
            on_step: called after every step; True ends the run there.
        """
        config, first = self.config, subjects.first_frame
        rounds = config.free_init.rounds
        draws = iter(noise) if noise is not None else _draws(subjects)
        forwards = self._forwards(subjects)
        caches = [StepCache(self.kept_layers) if config.step_cache.interval > 1 else None for _ in forwards]
        plan = [config.free_init.steps_of(number, self.steps) for number in range(rounds)]
        total, done = sum(plan), 0
        tapped = total - 1 if tap_step is None else tap_step
        if not 0 <= tapped < total:
            raise ConfigError(f"tap_step is {tap_step}: the run has steps 0 to {total - 1}")
        features: dict[str, torch.Tensor] = {}
        start = moving = next(draws).to(first)
        for steps in plan:
            if done:
                moving = renewed_noise(self._noised(moving, start), next(draws).to(first), config.free_init)
            scheduler = self._scheduler(steps)
            for index, timestep in enumerate(scheduler.timesteps):
                asked = taps if done == tapped else ()
                for cache in caches:
                    if cache is not None:
                        cache.reuse = index % config.step_cache.interval != 0 and not asked
                output = self._predict(forwards, caches, moving, subjects, int(timestep), asked)
                stepped = scheduler.step(output.prediction[:, :, 1:].float(), timestep, moving)
                # Where trailing timesteps do not divide the schedule, DDIM's last step would leave a little noise.
                ends = config.scheduler == "ddim" and index + 1 == steps
                moving = stepped.pred_original_sample if ends else stepped.prev_sample
                features = output.features or features
                done += 1
                latents = torch.cat((first[:, :, None], moving), dim=2)
                if on_step is not None and on_step(
                    Step(done=done, total=total, timestep=int(timestep), latents=latents)
                ):
                    return Sample(
                        latents=latents, flow=output.flow, gate=output.gate, features=features, finished=done == total
                    )
        return Sample(latents=latents, flow=output.flow, gate=output.gate, features=features)

    def _scheduler(self, steps: int) -> Any:
        """Return a scheduler of this run's own: timesteps are state, and a served model answers several requests."""
        scheduler: Any = make_scheduler(self.model.config)
        if self.config.scheduler != "ddim":
            scheduler = SOLVERS[self.config.scheduler].from_config(scheduler.config)
        scheduler.set_timesteps(steps)
        return scheduler

    def _noised(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Noise a finished clip to the last timestep of training."""
        scheduler: Any = make_scheduler(self.model.config)
        last = torch.full((len(clean),), self.model.config.train_timesteps - 1, device=clean.device)
        return scheduler.add_noise(clean.flatten(1, 2), noise.flatten(1, 2), last).view_as(clean)

    def _forwards(self, subjects: Subjects) -> list[dict[str, Any]]:
        """Return the conditions of the forward passes of a step: one, or two with guidance in halves."""
        image = subjects.image_embeds
        said = {
            "camera": subjects.camera,
            "text": subjects.text,
            "frame_index": subjects.frame_index,
            "first_frame": subjects.first_frame,
            "image_embeds": image,
        }
        if self.guidance == 1:
            return [said]
        assert subjects.negative is not None
        # IP-Adapter's unconditional half: no image is an embedding of zeros, before the projection.
        unsaid = said | {"text": subjects.negative, "image_embeds": None if image is None else torch.zeros_like(image)}
        if self.config.split_guidance:
            return [unsaid, said]
        return [{name: _joined(unsaid[name], value) for name, value in said.items()}]

    def _predict(
        self,
        forwards: list[dict[str, Any]],
        caches: list[StepCache | None],
        moving: torch.Tensor,
        subjects: Subjects,
        timestep: int,
        taps: Sequence[str],
    ) -> MVVDMOutput:
        """Predict with guidance: on noise or velocity, or on flow and gate (mixed pictures would show ghosts)."""
        latents = torch.cat((subjects.first_frame[:, :, None], moving), dim=2)
        outputs = []
        for conditions, cache in zip(forwards, caches, strict=True):
            rows = len(conditions["camera"])
            outputs.append(
                self.model(
                    latents.repeat(rows // len(latents), 1, 1, 1, 1, 1),
                    torch.full((rows,), timestep, device=latents.device),
                    taps=taps,
                    cache=cache,
                    moved=self.guidance == 1,
                    **conditions,
                )
            )
        if self.guidance == 1:
            return outputs[0]
        unsaid, said = outputs if len(outputs) == 2 else _halves(outputs[0])
        if said.flow is None or said.gate is None:
            prediction = torch.lerp(unsaid.prediction, said.prediction, self.guidance)
            return MVVDMOutput(prediction, None, None, said.features)
        assert unsaid.flow is not None
        assert unsaid.gate is not None
        flow = torch.lerp(unsaid.flow, said.flow, self.guidance)
        gate = torch.lerp(unsaid.gate, said.gate, self.guidance)
        return MVVDMOutput(self.model.moved_latents(subjects.first_frame, flow, gate), flow, gate, said.features)


def _generator(seed: int, stream: int) -> torch.Generator:
    mixed = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


def _draws(subjects: Subjects) -> Iterator[torch.Tensor]:
    """Yield noise `[B, V, T - 1, c, h, w]` for round after round; each object draws from its own seed, on the CPU."""
    generators = [torch.Generator().manual_seed(seed) for seed in subjects.seeds]
    views, *cell = subjects.first_frame.shape[1:]
    shape = (views, subjects.frame_index.shape[1] - 1, *cell)
    while True:
        yield torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def _joined(unsaid: Any, said: Any) -> Any:
    """Stack the conditions of two halves along the batch."""
    if said is None:
        return None
    if isinstance(said, TextStates):
        return TextStates(torch.cat((unsaid.states, said.states)), torch.cat((unsaid.pooled, said.pooled)))
    return torch.cat((unsaid, said))


def _halves(output: MVVDMOutput) -> list[MVVDMOutput]:
    def half(tensor: torch.Tensor | None, number: int) -> torch.Tensor | None:
        return None if tensor is None else tensor.chunk(2)[number]

    return [
        MVVDMOutput(
            output.prediction.chunk(2)[number],
            half(output.flow, number),
            half(output.gate, number),
            {name: value.chunk(2)[number] for name, value in output.features.items()},
        )
        for number in (0, 1)
    ]
