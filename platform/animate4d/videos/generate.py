"""First frames and a prompt to a multi-view video.

With the warp head, sampling runs at the model's size and its last flow and gate are applied to the full-size first
frames, so texture stays as sharp as they are. Frame 0 of the result is the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from animate4d.core.cameras import Rig
from animate4d.core.clip import GREY
from animate4d.core.errors import ConfigError
from animate4d.models.mv_vdm import MVVDM
from animate4d.models.sampler import Sampler
from animate4d.models.sampler_config import SamplerConfig
from animate4d.models.warp import enlarge, warp_first_frame
from animate4d.videos.maker import GeneratedVideo

GATE_SHARPNESS = 3.0
"""Factor on gate logits in the final picture: a decision instead of a fade; costs 0.14 dB, keeps objects opaque."""

FRAMES_PER_SECOND = 8.0
"""Frame rate of generated clips (16 frames of 2 seconds in papers 001 and 002)."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model in this process; a `maker.VideoModel`.

    Attributes:
        model: in evaluation mode, on any device.
        version: identifies it in receipts.
    """

    model: MVVDM
    version: str

    def video(
        self,
        first_frames: np.ndarray,
        rig: Rig,
        prompt: str,
        *,
        seed: int,
        config: SamplerConfig,
        progress: Callable[[int, int], None],
    ) -> tuple[GeneratedVideo, str]:
        """See `maker.VideoModel`."""
        made = generate_video(self.model, first_frames, rig, prompt, seed=seed, config=config, progress=progress)
        return made, self.version


def generate_video(
    model: MVVDM,
    first_frames: np.ndarray,
    rig: Rig,
    prompt: str,
    *,
    seed: int,
    config: SamplerConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GeneratedVideo:
    """Animate the first frames of all views of one object; see `generate_videos`."""
    return generate_videos(model, [first_frames], [rig], [prompt], seeds=[seed], config=config, progress=progress)[0]


def generate_videos(
    model: MVVDM,
    first_frames: Sequence[np.ndarray],
    rigs: Sequence[Rig],
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    config: SamplerConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[GeneratedVideo]:
    """Animate several objects in one batch; each clip is what it would be alone.

    Args:
        model: in evaluation mode, on any device.
        first_frames: of each object `[V, S, S, 4]` uint8 RGBA, straight alpha; S is at least the model's image size.
        rigs: the cameras that rendered them.
        prompts: what each object should do.
        seeds: one per object; the same seed, model and inputs give the same clip on one machine.
        config: how to sample; default as the model was made for.
        progress: called with (steps done, steps) after each step.

    Raises:
        ConfigError: the first frames do not fit the rigs or the model.
    """
    for pixels, rig in zip(first_frames, rigs, strict=True):
        _check(pixels, rig, model.config.views, model.config.image_size)
    device = next(model.parameters()).device
    layers = [_centred(pixels, device) for pixels in first_frames]
    camera = torch.tensor(np.stack([rig.camera_to_world() for rig in rigs]), dtype=torch.float32)
    sampler = Sampler(model, config)
    subjects = sampler.prepare(
        torch.stack([_shrink(pictures, model.config.image_size) for pictures, _ in layers]), camera, prompts, seeds
    )
    sample = sampler.sample(subjects, on_step=progress and (lambda step: progress(step.done, step.total)))
    if sample.flow is None or sample.gate is None:
        return [_from_latents(model, clip, pixels) for clip, pixels in zip(sample.latents, first_frames, strict=True)]
    gates = (GATE_SHARPNESS * sample.gate).sigmoid()
    return [
        _from_flow(flow, gate, pixels, *layer)
        for flow, gate, pixels, layer in zip(sample.flow, gates, first_frames, layers, strict=True)
    ]


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


@torch.no_grad()
def _from_latents(model: MVVDM, latents: torch.Tensor, first_frames: np.ndarray) -> GeneratedVideo:
    """Decode `[V, T, c, h, w]`; coverage is the distance from the grey background: the network makes no masks."""
    video = model.decode(latents[None])[0].float()
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
