"""The objective of a motion field in training.

Paper 001: L2 = lambda_4 L_rec + lambda_5 L_4D-SDS + lambda_6 L_ARAP; tracks and smoothness are optional terms of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from animate4d.core.clip import GREY
from animate4d.core.errors import AssetError
from animate4d.fourd.correspond import Correspondences
from animate4d.fourd.distill import ScoreFunction, distillation, draw_shot
from animate4d.fourd.field_body import Base, Body, Mover, Placed
from animate4d.fourd.field_config import FieldFitConfig
from animate4d.fourd.objectives import binary, jerk, reconstruction
from animate4d.fourd.photometric import Pictures
from animate4d.fourd.render import draw_splats
from animate4d.fourd.rigidity import rigidity


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What a stage trains.

    Attributes:
        number: its place in the schedule; part of what is drawn at random.
        sizes: whether sizes are offset.
        colors: whether colours move.
        rigid: whether rigidity counts.
        share: of Gaussians that receive gradients from pictures.
    """

    number: int
    sizes: bool
    colors: bool
    rigid: bool
    share: float


def stages(config: FieldFitConfig) -> tuple[Stage, Stage]:
    """Return reconstruction and refinement."""
    rigid = config.rigidity > 0
    return (
        Stage(
            number=0,
            sizes=config.field.sizes == "always",
            colors=False,
            rigid=rigid and config.rigidity_when == "always",
            share=config.gradient_share,
        ),
        Stage(
            number=1, sizes=config.field.sizes != "never", colors=config.field.color_terms > 1, rigid=rigid, share=1.0
        ),
    )


class FieldLoss:
    """Places splats by a mover, draws them and compares.

    Attributes:
        pictures: the video on the body's device, masks cut where the settings say so.
        target: `[T, V, 4, H, W]` what pictures are compared with.
    """

    def __init__(
        self,
        body: Body,
        mover: Mover,
        pictures: Pictures,
        config: FieldFitConfig,
        base: Base | None,
        targets: Correspondences | None,
        score: ScoreFunction | None,
    ) -> None:
        device = body.rest.device
        pictures = replace(
            pictures,
            frames=pictures.frames.to(device),
            viewmats=pictures.viewmats.to(device),
            intrinsics=pictures.intrinsics.to(device),
            backend="gsplat" if device.type == "cuda" else pictures.backend,
        )
        self.body, self.mover, self.config, self.base, self.score = body, mover, config, base, score
        self.targets = targets
        self.pictures = binary(pictures) if config.binary_masks else pictures
        self.target = self.pictures.frames

    def loss(self, stage: Stage, frames: Tensor, step: int, rng: np.random.Generator) -> Tensor:
        """Return the whole loss of one step over frames `[F]`, none of them 0.

        Raises:
            AssetError: the field has diverged.
        """
        config, body, device = self.config, self.body, self.body.rest.device
        centres, near = (
            self._neighbourhoods(rng) if stage.rigid else (np.zeros(0, np.int64), np.zeros((0, 1), np.int64))
        )
        asked = np.union1d(centres, near)
        asked = asked[asked >= body.count]
        placed = self.mover(
            frames, torch.from_numpy(asked).to(device), self.base, sizes=stage.sizes, colors=stage.colors
        )
        if not bool(placed.means.isfinite().all()):
            raise AssetError("the field did not come to a finite motion: check the model for triangles without area")
        seen = _thinned(placed, stage.share, rng) if stage.share < 1.0 else placed
        loss = config.reconstruction * reconstruction(self.draw(seen), self.target[frames]).mean()
        if self.targets is not None and config.tracks:
            xy = self.pictures.project(placed.means)
            loss = loss + config.tracks * self.targets.pull(xy, frames, self.pictures.size[1]).mean()
        if stage.rigid:
            rows = np.zeros(len(body.rest), np.int64)
            rows[: body.count], rows[asked] = np.arange(body.count), body.count + np.arange(len(asked))
            rest = self._unmoved(frames, torch.from_numpy(asked).to(device))
            moved = torch.cat([placed.means, placed.points], 1)
            places = [torch.from_numpy(rows[index]).to(device) for index in (centres, near)]
            loss = loss + config.rigidity * rigidity(rest, moved, *places, weights=config.rigidity_weights)
        loss = loss + self._smoothness(stage, placed, frames)
        if stage.number and self.score is not None and step % config.distill.every == 0:
            loss = loss + config.distill.weight * self._distill(self.score, stage, rng)
        return loss

    def draw(
        self, placed: Placed, viewmats: Tensor | None = None, intrinsics: Tensor | None = None, size: int | None = None
    ) -> Tensor:
        """Return premultiplied rgb and coverage `[F, V, 4, H, W]` as the video's or other cameras see them."""
        return draw_splats(
            placed.means,
            placed.quats,
            placed.scales,
            self.body.opacities,
            placed.colors,
            self.pictures.viewmats if viewmats is None else viewmats,
            self.pictures.intrinsics if intrinsics is None else intrinsics,
            self.pictures.size if size is None else size,
            backend=self.pictures.backend,
        )

    @torch.no_grad()
    def drawn(self, stage: Stage) -> Tensor:
        """Return pictures of the present motion `[T, V, 4, H, W]`; frame 0 is the video's."""
        nothing = torch.zeros(0, dtype=torch.long, device=self.target.device)
        rows = [self.pictures.frames[:1]]
        for frame in range(1, self.body.frames):
            at = torch.tensor([frame], device=self.target.device)
            rows.append(self.draw(self.mover(at, nothing, self.base, sizes=stage.sizes, colors=stage.colors)))
        return torch.cat(rows)

    def _unmoved(self, frames: Tensor, asked: Tensor) -> Tensor:
        """Return what rigidity is measured from: the object at rest `[P, 3]`, or the base's pose in each frame.

        Measured from rest, it would pull a residual off a base that is not quite rigid: near the end of a fit it weighs
        more than the pictures do.
        """
        count = self.body.count
        if self.base is None:
            return torch.cat([self.body.rest[:count], self.body.rest[asked]])
        return torch.cat([self.base.means[frames], self.base.points[frames][:, asked - count]], 1)

    def _neighbourhoods(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw points, with replacement as in the released code, and neighbours of each."""
        centres = rng.integers(0, len(self.body.rest), self.config.rigidity_nodes)
        return centres, self.body.neighbours.draw(centres, self.config.rigidity_edges, rng)

    def _smoothness(self, stage: Stage, placed: Placed, frames: Tensor) -> Tensor:
        config = self.config
        loss = placed.means.new_zeros(())
        if config.plane_variation or config.plane_smoothness or config.plane_stillness:
            variation, bumps, change = self.mover.field.planes.roughness()
            loss = loss + config.plane_variation * variation + config.plane_smoothness * bumps
            loss = loss + config.plane_stillness * change
        if config.smoothness and int(frames[-1]) == len(frames):  # frames 1 .. F without a gap
            rest = self.body.rest[: self.body.count]
            loss = loss + config.smoothness * jerk(torch.cat([rest[None], placed.means]))
        if config.residual:
            loss = loss + config.residual * placed.offset.square().sum(-1).mean()
        if stage.colors:
            loss = loss + config.color_decay * self.mover.waves.square().mean()
        return loss

    def _distill(self, score: ScoreFunction, stage: Stage, rng: np.random.Generator) -> Tensor:
        body, device = self.body, self.body.rest.device
        shot = draw_shot(self.config.distill, score, body.frames, rng)
        cameras = shot.viewmats.to(device), shot.intrinsics.to(device), score.size
        nothing = torch.zeros(0, dtype=torch.long, device=device)
        moving = self.mover(shot.frames[1:].to(device), nothing, self.base, sizes=stage.sizes, colors=stage.colors)
        drawn = torch.cat([self.draw(placed, *cameras) for placed in (body.at_rest(), moving)])
        images = (drawn[:, :, :3] + GREY * (1 - drawn[:, :, 3:])).transpose(0, 1)
        camera = torch.from_numpy(shot.camera_to_world.astype(np.float32)).to(device)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return distillation(*score(images, camera, shot.noise, generator))


def _thinned(placed: Placed, share: float, rng: np.random.Generator) -> Placed:
    """Let only a random share of the Gaussians of each frame receive gradients of position, rotation and size."""
    chosen = torch.from_numpy(rng.random(placed.means.shape[:2]) < share)[..., None].to(placed.means)

    def thin(tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        seen = tensor.view_as(tensor)
        seen.register_hook(lambda gradient: gradient * chosen)
        return seen

    return replace(placed, means=thin(placed.means), quats=thin(placed.quats), scales=thin(placed.scales))
