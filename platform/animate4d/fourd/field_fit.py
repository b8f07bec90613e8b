"""Train the papers' motion field on a multi-view video (papers 001 section 3.3 and appendix A, 002 section 3.2).

Stage one reconstructs: every `frame_steps` steps the next frame joins. Stage two refines all frames with a fresh
optimiser; score distillation, offsets of sizes and moving colours join. Everything drawn at random depends on seed,
stage and step alone, so a fit goes on from its checkpoint to the bit. The papers' schedule draws 27 000 images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from animate4d.core.motion import SplatMotion
from animate4d.fourd.correspond import Correspondences
from animate4d.fourd.distill import ScoreFunction
from animate4d.fourd.field_body import Base, Body, Mover
from animate4d.fourd.field_config import FieldFitConfig
from animate4d.fourd.field_loss import FieldLoss, Stage, stages
from animate4d.fourd.field_state import Place, adam_tensors, fingerprint, load_state, restore_adam, save_state
from animate4d.fourd.objectives import reconstruction
from animate4d.fourd.photometric import Pictures
from animate4d.fourd.surface_splats import SH0

Progress = Callable[[float, str], None]

WORDS = ("reconstructing", "refining")


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldFit:
    """What training found.

    Attributes:
        points: `[T, W, 3]` float32 displacements of the distinct vertices from the base's motion, or from rest without
            one; frame 0 is zero.
        splats: their trajectories, base included.
        frame_losses: `[T]` float64 mean squared errors of colour and mask; 0 for frame 0, which is given.
        mask_iou: `[T]` float64 overlap of drawn and given masks.
        steps: taken in each stage, early stops counted.
        seconds: CPU seconds of training since the last start.
    """

    points: np.ndarray
    splats: SplatMotion
    frame_losses: np.ndarray
    mask_iou: np.ndarray
    steps: tuple[int, int]
    seconds: float


def fit_field(
    body: Body,
    pictures: Pictures,
    config: FieldFitConfig,
    *,
    base: Base | None = None,
    shown: Base | None = None,
    targets: Correspondences | None = None,
    score: ScoreFunction | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> FieldFit:
    """Train a field, alone or as a residual.

    Args:
        body: what moves, on the device to train on.
        pictures: the video; frame 0 shows the body at rest.
        config: settings; see `field_config.paper` and `field_config.released`.
        base: motion the field adds to.
        shown: the base as pictures are compared with it, where that differs: a fit's own bias, taken off what it
            returns, belongs to what it draws.
        targets: of the body's splats, from tracks or flow.
        score: video model for distillation while refining; without one, refining reconstructs only.
        checkpoint: file to go on from and to write to, now and then.
        progress: called with the share done and a word about it.

    Raises:
        ConfigError: the checkpoint is damaged or of another fit.
    """
    started = time.process_time()
    device = body.rest.device
    on_cpu = device.type == "cpu" and pictures.backend == "native"
    mover = Mover(body, config.field, "native" if on_cpu else "torch", config.seed).to(device)
    shown = shown or base
    loss = FieldLoss(body, mover, pictures, config, shown, targets, score)
    training = _Training(loss, checkpoint)
    if checkpoint is not None:
        training.identity = _identity(loss)
    steps = training.run(progress or _silent)
    losses, overlap = _compare(loss, stages(config)[1])
    points, splats = _trajectories(loss, stages(config)[1], base)
    return FieldFit(
        points=points,
        splats=splats,
        frame_losses=losses,
        mask_iou=overlap,
        steps=steps,
        seconds=time.process_time() - started,
    )


class _Training:
    """The two stages, and where they are."""

    def __init__(self, loss: FieldLoss, checkpoint: Path | None) -> None:
        self.loss, self.config, self.checkpoint, self.identity = loss, loss.config, checkpoint, ""
        self.last = loss.body.frames - 1
        self.place = Place()

    def run(self, report: Progress) -> tuple[int, int]:
        """Train from the start or the checkpoint; returns the steps taken in each stage."""
        config = self.config
        planned = (config.frame_steps * self.last + config.full_steps, config.refine_steps)
        kept = self._load()
        for stage in stages(config)[self.place.stage :]:
            number = stage.number
            optimiser = self._optimiser(stage)
            restore_adam(optimiser, kept)
            if number and config.refine_target == "render":
                self.loss.target = kept["target"].to(self.loss.target) if "target" in kept else self.loss.drawn(stage)
            done = self.place.steps
            while done[number] < planned[number] and not self._settled():
                self._step(stage, done[number], optimiser)
                done[number] += 1
                if done[number] % config.checkpoint_steps == 0:
                    self._save(optimiser)
                report(
                    (sum(done) + (planned[0] - done[0]) * number) / max(sum(planned), 1), _word(stage, done, planned)
                )
            kept = {}
            self.place = Place(stage=number + 1, steps=done)
            self._save(None)
        report(1.0, "done")
        return self.place.steps[0], self.place.steps[1]

    def _step(self, stage: Stage, step: int, optimiser: torch.optim.Adam) -> None:
        rng = np.random.default_rng((self.config.seed, stage.number, step))
        frames = self._frames(stage, step, rng)
        loss = self.loss.loss(stage, torch.from_numpy(frames).to(self.loss.target.device), step, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if self.config.plateau and frames[-1] == self.last:
            self.place.losses.append(float(loss.detach()))

    def _frames(self, stage: Stage, step: int, rng: np.random.Generator) -> np.ndarray:
        config, newest = self.config, self.last
        if stage.number == 0 and config.frame_steps:
            newest = min(step // config.frame_steps + 1, self.last)
        if config.frames == "all" or newest == 1:
            return np.arange(1, newest + 1)
        return np.array([rng.integers(1, newest), newest])

    def _settled(self) -> bool:
        """Tell whether the loss has stopped falling: the mean of a window against the one before."""
        losses, window = self.place.losses, self.config.plateau_steps
        if not self.config.plateau or len(losses) < 2 * window or len(losses) % window:
            return False
        before, now = np.mean(losses[-2 * window : -window]), np.mean(losses[-window:])
        return bool(now > before * (1.0 - self.config.plateau))

    def _optimiser(self, stage: Stage) -> torch.optim.Adam:
        config, mover = self.config, self.loss.mover
        field = mover.field
        groups: list[dict[str, Any]] = [
            {"params": list(field.planes.parameters()), "lr": config.plane_rate},
            {"params": [*field.first, *field.second], "lr": config.head_rate},
        ]
        if config.field.global_motion:
            groups.append({"params": [*field.global_first, *field.global_second], "lr": config.global_rate})
        if stage.colors:
            groups.append({"params": [mover.waves], "lr": config.color_rate})
        return torch.optim.Adam(groups, eps=1e-15)

    def _load(self) -> dict[str, Tensor]:
        found = None if self.checkpoint is None else load_state(self.checkpoint, self.identity)
        if found is None:
            return {}
        self.place, kept = found
        mover = self.loss.mover
        mover.load_state_dict({name: kept[name] for name in mover.state_dict()})
        return kept

    def _save(self, optimiser: torch.optim.Adam | None) -> None:
        if self.checkpoint is None:
            return
        tensors = dict(self.loss.mover.state_dict())
        if optimiser is not None:
            tensors |= adam_tensors(optimiser)
        if self.loss.target is not self.loss.pictures.frames:
            tensors["target"] = self.loss.target
        save_state(self.checkpoint, self.identity, self.place, tensors)


@torch.no_grad()
def _compare(loss: FieldLoss, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
    """Return `[T]` reconstruction losses and mask overlaps of the result."""
    drawn, given = loss.drawn(stage), loss.pictures.frames
    errors = reconstruction(drawn, given).double()
    inside, wanted = drawn[:, :, 3] > 0.5, given[:, :, 3] > 0.5
    both, either = ((inside & wanted).sum((1, 2, 3)), (inside | wanted).sum((1, 2, 3)))
    errors[0] = 0.0
    return errors.cpu().numpy(), (both / either.clamp(min=1)).double().cpu().numpy()


@torch.no_grad()
def _trajectories(loss: FieldLoss, stage: Stage, base: Base | None) -> tuple[np.ndarray, SplatMotion]:
    """Return displacements of the vertices `[T, W, 3]` and trajectories of the splats."""
    body, mover = loss.body, loss.mover
    rest = body.at_rest()
    vertices = torch.arange(body.count, len(body.rest), device=body.rest.device)
    shape = (body.frames, body.count, 3)
    means, quats = rest.means.repeat(body.frames, 1, 1), rest.quats.repeat(body.frames, 1, 1)
    scales, colors = body.scales.repeat(body.frames, 1, 1), body.colors.expand(shape).clone()
    points = torch.zeros(body.frames, len(vertices), 3, device=body.rest.device)
    for frame in range(1, body.frames):
        at = torch.tensor([frame], device=body.rest.device)
        placed = mover(at, vertices, base, sizes=stage.sizes, colors=stage.colors)
        means[frame], scales[frame], colors[frame] = placed.means[0], placed.scales[0], placed.colors
        unit = placed.quats[0] / placed.quats[0].norm(dim=-1, keepdim=True)
        quats[frame] = unit * torch.where((unit * quats[frame - 1]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
        points[frame] = placed.points[0] - (rest.points[0] if base is None else base.points[frame])
    return points.cpu().numpy(), SplatMotion(
        means=means.cpu().numpy(),
        quats=quats.cpu().numpy(),
        scales=scales.cpu().numpy() if stage.sizes else None,
        sh=((colors - 0.5) / SH0).cpu().numpy() if stage.colors else None,
    )


def _identity(loss: FieldLoss) -> str:
    body, pictures, base, targets = loss.body, loss.pictures, loss.base, loss.targets
    tensors = [body.rest, body.quats, body.scales, body.opacities, body.colors, body.features]
    tensors += [pictures.frames, pictures.viewmats, pictures.intrinsics]
    tensors += [] if base is None else [base.means, base.quats, base.points]
    tensors += [] if targets is None else [targets.xy, targets.weight]
    return fingerprint((loss.config, loss.score is not None), tensors)


def _word(stage: Stage, done: list[int], planned: tuple[int, int]) -> str:
    return f"{WORDS[stage.number]}, step {done[stage.number]} of {planned[stage.number]}"


def _silent(share: float, text: str) -> None:
    """Report to nobody."""
