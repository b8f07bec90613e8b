"""Starts for frames in which the object has turned over: at rest, but turned and moved as a whole.

A fit that follows a tumbling object from frame to frame loses it, and colours lead it back from less than about 45
degrees. So 60 turns (the rotations of an icosahedron: no turn is further than 45 degrees from one of them) are compared
where the silhouettes say that the object is, and the best are aligned as rigid bodies. With the 24 of a cube, three
frames of fifteen of a flopping fish stayed wrong; with the 60, one.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from animate4d.fourd.config import FitConfig
from animate4d.fourd.deform import SplatRig, axis_angles, compose, rotation_matrices
from animate4d.fourd.photometric import Pictures, photometric_loss
from animate4d.fourd.silhouette import Silhouette

TURNS = torch.from_numpy(Rotation.create_group("I").as_matrix()).float()

AT_ONCE = 6
"""Turns drawn in one batch."""

BEST, KEPT = 4, 2
"""Turns that are aligned, and of these a frame's starts."""

STEPS, MOVE_RATE, TURN_RATE = 12, 0.06, 0.12
"""Adam's steps and rates of the alignment, canonical units and radians; the rates fall to nothing."""


class RigidStarts:
    """The object of one pose, turned and moved as a whole until it looks like a frame."""

    def __init__(
        self, rig: SplatRig, pictures: Pictures, silhouette: Silhouette, config: FitConfig, first: Tensor
    ) -> None:
        """Remember the pose of frame 0 `[1, M, 6]`, and where the object is in every frame."""
        self._rig, self._pictures, self._silhouette, self._config = rig, pictures, silhouette, config
        self._first = first
        with torch.no_grad():
            self._means, self._factors, _ = rig.place(first)
        self._centre = self._means[0].mean(0)
        self._places = mask_centres(pictures)

    def best(self, frame: int) -> tuple[Tensor, float]:
        """Return the poses `[B, M, 6]` that look most like a frame, and the lowest loss of them.

        Where masks do not show the object there are none, and the loss is infinite.
        """
        moved = self._places[frame] - self._places[0]
        if not torch.isfinite(moved).all():
            return self._first[:0], float("inf")
        shift = moved.expand(len(TURNS), 3)
        with torch.no_grad():
            parts = zip(TURNS.split(AT_ONCE), shift.split(AT_ONCE), strict=True)
            best = torch.cat([self._loss(*part, frame) for part in parts]).argsort()[:BEST]
        turn, shift, losses = self._align(TURNS[best], shift[best], frame)
        kept = losses.argsort()[:KEPT]
        return torch.cat([self._pose(turn[row], shift[row]) for row in kept]), float(losses[kept[0]])

    def _loss(self, turn: Tensor, shift: Tensor, frame: int) -> Tensor:
        """Return `[B]` losses of turns `[B, 3, 3]` about the object's centre and shifts `[B, 3]`."""
        rig, config, pictures = self._rig, self._config, self._pictures
        frames = torch.full((len(turn),), frame)
        means = (self._means - self._centre) @ turn.mT + (self._centre + shift)[:, None]
        factors = turn[:, None] @ self._factors
        seen = photometric_loss(means, factors, rig.opacities, rig.colors, pictures, frames)
        return config.photometric * seen + config.silhouette * self._silhouette.pull(pictures.project(means), frames)

    def _align(self, turn: Tensor, shift: Tensor, frame: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return better turns and shifts, and their losses."""
        more, move = torch.zeros(len(turn), 3, requires_grad=True), shift.clone().requires_grad_()
        optimiser = torch.optim.Adam([{"params": [move], "lr": MOVE_RATE}, {"params": [more], "lr": TURN_RATE}])
        rates = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 1.0 / STEPS, STEPS)
        for _ in range(STEPS):
            loss = self._loss(rotation_matrices(more) @ turn, move, frame).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            rates.step()
        with torch.no_grad():
            turn = rotation_matrices(more) @ turn
            return turn, move.detach(), self._loss(turn, move, frame)

    def _pose(self, turn: Tensor, shift: Tensor) -> Tensor:
        """Return the pose `[1, M, 6]` of one turn and shift."""
        nodes = self._rig.nodes
        moved = (nodes - self._centre) @ turn.T + self._centre + shift - nodes
        angles = axis_angles(turn.double()[None]).float().expand(len(nodes), 3)
        return compose(torch.cat([moved, angles], -1)[None], self._first)


def mask_centres(pictures: Pictures) -> Tensor:
    """Return `[T, 3]` the point that is nearest to the rays through the centres of a frame's masks.

    Masks that the picture cuts off do not count where two others are left; NaN where fewer than two show the object.
    """
    masks = pictures.frames[:, :, 3].numpy()
    size = np.array(pictures.size)
    rays = np.linalg.inv(pictures.intrinsics.numpy().astype(np.float64))
    poses = pictures.viewmats.numpy().astype(np.float64)
    found = np.full((len(masks), 3), np.nan)
    for frame, views in enumerate(masks):
        shown = [view for view in range(len(views)) if views[view].sum() >= 1.0]
        whole = [view for view in shown if not cut_off(views[view])]
        chosen = whole if len(whole) >= 2 else shown
        if len(chosen) < 2:
            continue
        square, right = np.zeros((3, 3)), np.zeros(3)
        for view in chosen:
            mask, turn = views[view].astype(np.float64), poses[view, :3, :3]
            y, x = (np.arange(length) + 0.5 for length in size)
            centre = np.array([(mask.sum(0) @ x), (mask.sum(1) @ y), mask.sum()]) / mask.sum()
            ray = turn.T @ rays[view] @ centre
            across = np.eye(3) - np.outer(ray, ray) / (ray @ ray)
            square += across
            right += across @ (-turn.T @ poses[view, :3, 3])
        # least squares, because opposite views from the same height have parallel rays
        found[frame] = np.linalg.lstsq(square, right, rcond=None)[0]
    return torch.from_numpy(found).float()


def cut_off(mask: np.ndarray) -> bool:
    """Return whether a mask `[H, W]` reaches the picture's border."""
    return bool(max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) > 0.5)
