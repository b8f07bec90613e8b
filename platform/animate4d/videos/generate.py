"""First frames and a prompt to a multi-view video: the DDIM sampling loop.

With the warp head the loop runs at the model's size and its last flow and gate are applied to the full-size first
frames, so texture stays as sharp as they are. Frame 0 of the result is the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from animate4d.core.cameras import Rig
from animate4d.core.clip import GREY
from animate4d.core.errors import ConfigError
from animate4d.models.mv_vdm import MVVDM, MVVDMOutput, make_scheduler
from animate4d.models.warp import enlarge, warp_first_frame

GATE_SHARPNESS = 3.0
"""Factor on gate logits in the final picture: a decision instead of a fade; costs 0.14 dB, keeps objects opaque."""

FRAMES_PER_SECOND = 8.0
"""Frame rate of generated clips (16 frames of 2 seconds in papers 001 and 002)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedVideo:
    """A generated clip.

    Attributes:
        rgb: `[V, T, H, W, 3]` uint8 composited on grey; frame 0 is the input.
        alpha: `[V, T, H, W]` uint8 coverage.
        flow: `[V, T, h, w, 2]` float32 backward flow to frame 0 in half-image units (x, y), or None (head "epsilon").
        flow_weight: `[V, T, h, w]` float32 in [0, 1], together with `flow`: the gate times the coverage of the flow's
            source in frame 0, so near 0 where there is no object or the flow points beside it.
        times: `[T]` float64 seconds.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    flow: np.ndarray | None
    flow_weight: np.ndarray | None
    times: np.ndarray


def generate_video(
    model: MVVDM,
    first_frames: np.ndarray,
    rig: Rig,
    prompt: str,
    *,
    seed: int,
    steps: int | None = None,
    guidance: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GeneratedVideo:
    """Animate the first frames of all views.

    Args:
        model: in evaluation mode, on any device.
        first_frames: `[V, S, S, 4]` uint8 RGBA, straight alpha; S is at least the model's image size.
        rig: the cameras that rendered them.
        prompt: what the object should do.
        seed: the same seed, model and inputs give the same clip on one machine.
        steps: DDIM steps; default the model's.
        guidance: classifier-free guidance, 1 for none; default the model's.
        progress: called with (steps done, steps) after each step.

    Raises:
        ConfigError: the first frames do not fit the rig or the model.
    """
    config = model.config
    _check(first_frames, rig, config.views, config.image_size)
    device = next(model.parameters()).device
    pictures, coverage = _centred(first_frames, device)
    sampler = _Sampler(
        model, _shrink(pictures, config.image_size), rig, prompt, config.guidance if guidance is None else guidance
    )
    output = sampler.run(seed, config.sample_steps if steps is None else steps, progress)
    if output.flow is None or output.gate is None:
        return _from_latents(model, output, first_frames)
    gate = (GATE_SHARPNESS * output.gate[0]).sigmoid()
    return _from_flow(output.flow[0], gate, first_frames, pictures, coverage)


class _Sampler:
    """One object's sampling state: conditions are encoded once."""

    def __init__(self, model: MVVDM, pictures: torch.Tensor, rig: Rig, prompt: str, guidance: float) -> None:
        self.model, self.guidance = model, guidance
        self.device = pictures.device
        # Its own scheduler, because timesteps are state and a served model answers several requests.
        self.scheduler = make_scheduler(model.config)
        with torch.no_grad():
            self.first = model.encode(pictures[None])
            image = model.embed_image(pictures[None])
            self.prompts = [(model.embed_text([prompt]), image)]
            if guidance != 1:
                # IP-Adapter's unconditional half: no image is an embedding of zeros, before the projection.
                self.prompts.append((model.embed_text([""]), None if image is None else torch.zeros_like(image)))
        self.camera = torch.tensor(rig.camera_to_world(), dtype=torch.float32, device=self.device)[None]
        self.frame_index = torch.arange(model.config.frames, device=self.device)[None]

    @torch.no_grad()
    def run(self, seed: int, steps: int, progress: Callable[[int, int], None] | None) -> MVVDMOutput:
        """Return the last step's prediction; for head "epsilon" with the final latents as `x0`."""
        generator = torch.Generator().manual_seed(seed)
        batch, views, *cell = self.first.shape
        noise = torch.randn((batch, views, self.model.config.frames, *cell), generator=generator)
        latents = noise.to(self.device)
        self.scheduler.set_timesteps(steps)
        for done, timestep in enumerate(self.scheduler.timesteps, start=1):
            latents[:, :, 0] = self.first
            output = self.predict(latents, int(timestep))
            predicted = output.epsilon if output.x0 is None else output.x0
            latents = self.scheduler.step(predicted, int(timestep), latents).prev_sample
            if progress is not None:
                progress(done, steps)
        latents[:, :, 0] = self.first
        return output if output.x0 is not None else MVVDMOutput(latents, output.epsilon, None, None, None)

    def predict(self, latents: torch.Tensor, timestep: int) -> MVVDMOutput:
        """Predict with guidance: on the noise, or on flow and gate (mixed pictures would show ghosts)."""
        times = torch.full((latents.shape[0],), timestep, device=self.device)
        outputs = [
            self.model(
                latents,
                times,
                camera=self.camera,
                text=text,
                frame_index=self.frame_index,
                first_frame=self.first,
                image_embeds=image,
            )
            for text, image in self.prompts
        ]
        if len(outputs) == 1:
            return outputs[0]
        said, unsaid = outputs
        if said.epsilon is not None:
            return MVVDMOutput(None, torch.lerp(unsaid.epsilon, said.epsilon, self.guidance), None, None, None)
        flow = torch.lerp(unsaid.flow, said.flow, self.guidance)
        gate = torch.lerp(unsaid.gate, said.gate, self.guidance)
        return MVVDMOutput(self.model.moved_latents(self.first, flow, gate), None, flow, gate, None)


def _check(first_frames: np.ndarray, rig: Rig, views: int, size: int) -> None:
    shape = first_frames.shape
    if first_frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 4 or shape[1] != shape[2]:
        raise ConfigError(f"first frames are {first_frames.dtype} {shape}: expected uint8 [V, S, S, 4]")
    if shape[0] != views or rig.views != views:
        raise ConfigError(f"first frames show {shape[0]} views and the rig has {rig.views}: the model needs {views}")
    if shape[1] < size:
        raise ConfigError(f"first frames are {shape[1]} px: the model needs at least {size}")


def _centred(first_frames: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return colours on grey `[V, 3, S, S]` in [-1, 1] with grey = 0, and coverage `[V, 1, S, S]` in [0, 1]."""
    rgba = torch.from_numpy(first_frames).to(device).permute(0, 3, 1, 2).float() / 255
    coverage = rgba[:, 3:]
    return (rgba[:, :3] - GREY) * (2 * coverage), coverage


def _shrink(pictures: torch.Tensor, size: int) -> torch.Tensor:
    return interpolate(pictures, size=(size, size), mode="area") if pictures.shape[-1] != size else pictures


def _from_flow(
    flow: torch.Tensor, gate: torch.Tensor, first_frames: np.ndarray, pictures: torch.Tensor, coverage: torch.Tensor
) -> GeneratedVideo:
    """Apply `[V, T, ...]` flow and gate to the full-size first frames."""
    frames = flow.shape[1]
    layers = torch.cat((pictures, coverage), dim=1)
    moved = torch.stack([warp_first_frame(layers, flow[:, frame], gate[:, frame]) for frame in range(frames)], dim=1)
    moved[:, 0] = layers
    still, weight = flow.clone(), torch.empty_like(gate)
    still[:, 0] = 0
    source = _shrink(coverage, flow.shape[-1])
    for frame in range(frames):
        weight[:, frame] = warp_first_frame(
            source, still[:, frame], gate[:, frame] if frame else torch.ones_like(source)
        )
    return GeneratedVideo(
        rgb=_to_bytes(moved[:, :, :3] / 2 + GREY).transpose(0, 1, 3, 4, 2),
        alpha=_to_bytes(moved[:, :, 3]),
        flow=still.float().permute(0, 1, 3, 4, 2).cpu().numpy(),
        flow_weight=weight[:, :, 0].float().cpu().numpy(),
        times=np.arange(frames) / FRAMES_PER_SECOND,
    )


def _from_latents(model: MVVDM, output: MVVDMOutput, first_frames: np.ndarray) -> GeneratedVideo:
    """Decode final latents; coverage is the distance from the grey background, since the network makes no masks."""
    assert output.x0 is not None
    video = model.decode(output.x0)[0].float()
    size = first_frames.shape[1]
    video = enlarge(video.flatten(0, 1), size).unflatten(0, video.shape[:2])
    coverage = (video.abs().amax(2) * 8).clamp(0, 1)
    rgb, alpha = _to_bytes(video / 2 + GREY).transpose(0, 1, 3, 4, 2).copy(), _to_bytes(coverage)
    exact, seen = _centred(first_frames, torch.device("cpu"))
    rgb[:, 0], alpha[:, 0] = _to_bytes(exact / 2 + GREY).transpose(0, 2, 3, 1), _to_bytes(seen[:, 0])
    times = np.arange(rgb.shape[1]) / FRAMES_PER_SECOND
    return GeneratedVideo(rgb=rgb, alpha=alpha, flow=None, flow_weight=None, times=times)


def _to_bytes(values: torch.Tensor) -> np.ndarray:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
