"""A deformation graph fitted to pictures: frame by frame first, then all frames together.

Each frame starts from its neighbour, because tiny splats give no gradient across a gap; several starts compete and the
lowest loss wins, because a chain that loses a limb never finds it again; rigidity begins stiff and softens. Frames that
look wrong in the end get one more start: the object at rest, turned as a whole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from animate4d.fourd.config import FitConfig
from animate4d.fourd.correspond import Correspondences
from animate4d.fourd.deform import SplatRig
from animate4d.fourd.photometric import Pictures, photometric_loss
from animate4d.fourd.render import draw_factors
from animate4d.fourd.rigid_starts import RigidStarts
from animate4d.fourd.silhouette import Silhouette

EARLY = 0.7
"""Share of a frame's steps with the silhouette pull and extra stiffness."""

SLOW, SLOW_RATE = 0.6, 0.4
"""After this share of the steps, rates drop to this share of their value."""

VELOCITY = 0.5
"""Share of the last frame's movement by which a frame starts ahead of its neighbour."""

JOINT_RATE = 0.25
"""Rates of the joint refinement relative to those of a frame."""

WRONG = 2.5
"""A frame looks wrong where its loss is this many times that of frame 0, whose pose is given."""

PROMISE = 6.0
"""A turned object that has yet to bend is worth a try where its loss is at most this many times the frame's: of 38
tries on four clips all 7 below 4, 5 of 13 below 9 and 2 of 18 above ended with a lower loss."""

SURE = 0.6
"""Below this share of the loss before, a frame may jump; else it must come nearer to a neighbour. A fish that
snapped at something was drawn a quarter better back to front."""

TOGETHER = 5
"""Frames refined in one batch: enough to spread the overhead, few enough to stay in the processor's cache."""

Progress = Callable[[float, str], None]


class GraphFit:
    """One graph, one set of splats on it, and the pictures they should look like.

    Poses are `[T, M, 6]`: translation, then axis-angle, of every node in every frame.
    """

    def __init__(self, rig: SplatRig, pictures: Pictures, targets: Correspondences | None, config: FitConfig) -> None:
        self.rig, self.pictures, self.targets, self.config = rig, pictures, targets, config
        self.silhouette = Silhouette(pictures, config.seed)
        self.rates = torch.tensor([config.translation_rate] * 3 + [config.rotation_rate] * 3)

    def follow(self, first: Tensor, report: Progress) -> Tensor:
        """Go through the frames forwards and backwards from the pose of frame 0 `[1, M, 6]`; return all poses."""
        config, count = self.config, len(self.pictures.frames)
        poses, losses = first.repeat(count, 1, 1), torch.full((count,), torch.inf)
        for frame in range(1, count):
            ahead = poses[frame - 1] + VELOCITY * (poses[frame - 1] - poses[max(frame - 2, 0)])
            known = {"neighbour": ahead, "rest": first[0]}
            # in frame 1 both are the same
            starts = torch.stack([known[name] for name in config.starts[: None if frame > 1 else 1]])
            self._compete(poses, losses, frame, starts, config.forward_steps)
            report(0.6 * frame / (count - 1), f"following frame {frame + 1} of {count}")
        if config.backward_steps:
            for frame in range(count - 2, 0, -1):
                self._compete(poses, losses, frame, poses[frame + 1 : frame + 2], config.backward_steps)
                report(0.6 + 0.25 * (1 - frame / (count - 1)), f"going back, frame {frame + 1} of {count}")
        if config.rigid_starts and self.targets is None:
            self._find_again(poses, losses, first, report)
        return poses

    def refine(self, poses: Tensor, steps: int, report: Progress) -> Tensor:
        """Polish all poses but the first, from where they are."""
        refined = poses.clone()
        for part in torch.arange(1, len(poses)).split(TOGETHER):
            refined[part] = self.descend(poses[part], part, steps, rate=JOINT_RATE, early=False)
            report(float(part[-1]) / (len(poses) - 1), "refining")
        return refined

    def loss(self, poses: Tensor, frames: Tensor, stiffness: float, *, early: bool) -> Tensor:
        """Return `[B]` losses of poses `[B, M, 6]`, each against its own frame."""
        config, pictures = self.config, self.pictures
        means, factors, rotations = self.rig.place(poses)
        seen = photometric_loss(means, factors, self.rig.opacities, self.rig.colors, pictures, frames)
        loss = config.photometric * seen + config.rigidity * stiffness * self.rig.stretch(poses, rotations)
        if early or self.targets is not None:
            xy = pictures.project(means)
            if early:
                loss = loss + config.silhouette * self.silhouette.pull(xy, frames)
            if self.targets is not None:
                loss = loss + config.tracks * self.targets.pull(xy, frames, pictures.size[1])
        return loss

    @torch.no_grad()
    def judge(self, poses: Tensor, frames: Tensor) -> Tensor:
        """Return the losses by which starts are compared: plain rigidity, with the silhouette."""
        return self.loss(poses, frames, 1.0, early=True)

    @torch.no_grad()
    def losses(self, poses: Tensor) -> np.ndarray:
        """Return `[T]` float64 losses of all poses; 0 for frame 0, which is given."""
        found = torch.cat([self.judge(poses[part], part) for part in torch.arange(1, len(poses)).split(TOGETHER)])
        return np.concatenate([[0.0], found.double().numpy()])

    def descend(self, start: Tensor, frames: Tensor, steps: int, *, rate: float = 1.0, early: bool = True) -> Tensor:
        """Return poses `[B, M, 6]` after `steps` of Adam on each pose's own loss."""
        poses = start.clone().requires_grad_()
        first, second = torch.zeros_like(start), torch.zeros_like(start)
        for step in range(steps):
            share = min(step / (EARLY * steps), 1.0) if early else 1.0
            loss = self.loss(poses, frames, self.config.stiffness ** (1.0 - share), early=share < 1.0)
            (gradient,) = torch.autograd.grad(loss.sum(), poses)
            with torch.no_grad():
                first.mul_(0.9).add_(gradient, alpha=0.1)
                second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                bottom = (second / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-15)
                slow = SLOW_RATE if step >= SLOW * steps else 1.0
                poses -= rate * slow / (1 - 0.9 ** (step + 1)) * self.rates * first / bottom
        return poses.detach()

    def _find_again(self, poses: Tensor, losses: Tensor, first: Tensor, report: Progress) -> None:
        """Try frames that look wrong from the turned object, then from neighbours that were found so (in place)."""
        config, count = self.config, len(poses)
        limit = WRONG * float(self.judge(first, torch.zeros(1, dtype=torch.long)))
        starts = RigidStarts(self.rig, self.pictures, self.silhouette, config, first)
        found = set()
        for frame in range(1, count):
            report(0.85 + 0.15 * frame / (count - 1), f"looking again at frame {frame + 1} of {count}")
            if losses[frame] <= limit:
                continue
            start, loss = starts.best(frame)
            if not len(start) or not loss <= PROMISE * losses[frame]:
                continue
            before, old = poses[frame].clone(), float(losses[frame])
            if not self._compete(poses, losses, frame, start, config.forward_steps):
                continue
            if losses[frame] < SURE * old or self._jump(poses, frame) <= self._jump(poses, frame, before):
                found.add(frame)
            else:
                poses[frame], losses[frame] = before, old
        for way in (range(2, count), range(count - 2, 0, -1)):
            for frame in way:
                near = frame - way.step
                if (
                    near in found
                    and losses[frame] > limit
                    and self._compete(poses, losses, frame, poses[near : near + 1], config.forward_steps)
                ):
                    found.add(frame)

    def _jump(self, poses: Tensor, frame: int, pose: Tensor | None = None) -> float:
        """Return how far the nodes of a frame, or of another pose in its place, are from the nearer neighbour's."""
        here = poses[frame] if pose is None else pose
        near = [other for other in (frame - 1, frame + 1) if other < len(poses)]
        return float((poses[near, :, :3] - here[:, :3]).norm(dim=-1).mean(-1).min())

    def _compete(self, poses: Tensor, losses: Tensor, frame: int, starts: Tensor, steps: int) -> bool:
        """Fit one frame from each start `[B, M, 6]`; keep the best if it beats what is there (in place), and say so."""
        frames = torch.full((len(starts),), frame)
        found = self.descend(starts, frames, steps)
        loss = self.judge(found, frames)
        best = int(loss.argmin())
        if not loss[best] < losses[frame]:
            return False
        poses[frame], losses[frame] = found[best], loss[best]
        return True

    @torch.no_grad()
    def mask_iou(self, poses: Tensor) -> np.ndarray:
        """Return `[T]` overlaps of drawn and given masks."""
        rig, pictures = self.rig, self.pictures
        overlaps = []
        for pose, picture in zip(poses, pictures.frames, strict=True):
            means, factors, _ = rig.place(pose[None])
            image = draw_factors(
                means, factors, rig.opacities, rig.colors, pictures.viewmats, pictures.intrinsics, pictures.size,
                backend=pictures.backend,
            )  # fmt: skip
            drawn, given = image[0, :, 3] > 0.5, picture[:, 3] > 0.5
            overlaps.append(float((drawn & given).sum() / (drawn | given).sum().clamp(min=1)))
        return np.array(overlaps)
