"""The motion of one object from its multi-view video: a graph fitted frame by frame, then all frames together.

Each frame starts from its neighbour, because tiny splats give no gradient across a gap; several starts compete and the
lowest loss wins, because a chain that loses a limb never finds it again; rigidity begins stiff and softens. About 20
CPU seconds for 16 frames of four views at 128 px.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import AssetError, ConfigError
from animate4d.core.mesh import Mesh
from animate4d.core.motion import GraphMotion
from animate4d.core.splats import SplatCloud
from animate4d.core.tracks import Tracks
from animate4d.fourd.config import FitConfig
from animate4d.fourd.correspond import Correspondences, find_correspondences
from animate4d.fourd.deform import SplatRig, take_off
from animate4d.fourd.graph import build_graph
from animate4d.fourd.photometric import Pictures, photometric_loss, prepare_pictures
from animate4d.fourd.render import draw_factors, pick_backend
from animate4d.fourd.silhouette import Silhouette
from animate4d.fourd.surface_splats import SurfaceSplats, polish, sample_splats

EARLY = 0.7
"""Share of a frame's steps with the silhouette pull and extra stiffness."""

SLOW, SLOW_RATE = 0.6, 0.4
"""After this share of the steps, rates drop to this share of their value."""

VELOCITY = 0.5
"""Share of the last frame's movement by which a frame starts ahead of its neighbour."""

JOINT_RATE = 0.25
"""Rates of the joint refinement relative to those of a frame."""

TOGETHER = 5
"""Frames refined in one batch: enough to spread the overhead, few enough to stay in the processor's cache."""

LOST = 2.5
"""A frame counts as lost where its loss is this many times the clip's median."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """What a fit found.

    Attributes:
        motion: of the mesh's vertices, for export and scoring.
        surface: splats bound to the mesh, polished, in the rest pose; `surface_splats.move_splats` moves them.
        frame_losses: `[T]` float64 final loss of each frame; 0 for frame 0, which is given.
        mask_iou: `[T]` float64 overlap of drawn and given masks over all views, 1 is perfect.
        lost_frames: frames whose loss stands out: probably a limb was lost there.
        seconds: CPU seconds the fit took.
    """

    motion: GraphMotion
    surface: SurfaceSplats
    frame_losses: np.ndarray
    mask_iou: np.ndarray
    lost_frames: tuple[int, ...]
    seconds: float

    @property
    def splats(self) -> SplatCloud:
        """The polished splats in the rest pose."""
        return self.surface.cloud


def fit_motion(
    mesh: Mesh,
    video: MultiViewVideo,
    config: FitConfig,
    *,
    tracks: Tracks | None = None,
    flow: np.ndarray | None = None,
    flow_weight: np.ndarray | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Fit the motion that makes a mesh look like its video.

    Runs on `torch.get_num_threads()` threads; one is best for a single object, as the work is many small steps.

    Args:
        mesh: in the canonical frame, in the pose that frame 0 of the video shows.
        video: V views by T >= 2 frames.
        config: settings; see `config.PRESETS`.
        tracks: of points seen in frame 0, in pixels of the video.
        flow: `[V, T, h, w, 2]` at the positions of frame t: position in frame 0 minus position in frame t, half images.
        flow_weight: `[V, T, h, w]` in [0, 1], zero where the flow's source was hidden in frame 0.
        progress: called with the share done and a word about it.

    Raises:
        AssetError: the mesh has no surface.
        ConfigError: the video has a single frame, or tracks or flow are not of its size.
    """
    started = time.process_time()
    report = progress or _silent
    _check(mesh, video, tracks, flow, flow_weight)
    report(0.0, "placing splats")
    graph = build_graph(mesh.vertices, mesh.faces, config.nodes)
    pictures = prepare_pictures(video, config.size, config.levels, pick_backend("auto", torch.device("cpu")))
    surface = polish(sample_splats(mesh, config.splats, config.seed), pictures, config.polish_steps)
    rig = SplatRig(mesh, graph, surface)
    targets = find_correspondences(rig, pictures, video.rgb.shape[3], tracks=tracks, flow=flow, flow_weight=flow_weight)
    fitter = _Fitter(rig, pictures, targets, config)
    poses, losses, bias = fitter.run(report)
    overlap = fitter.mask_iou(poses)
    moved = take_off(poses, bias)
    # frame 0 is the asset itself, to the bit
    moved[0] = 0.0
    return FitResult(
        motion=GraphMotion(
            nodes=graph.nodes,
            rotations=moved[..., 3:].numpy(),
            translations=moved[..., :3].numpy(),
            vertex_nodes=graph.vertex_nodes,
            vertex_weights=graph.vertex_weights,
            times=np.asarray(video.times, np.float64),
        ),
        surface=surface,
        frame_losses=losses,
        mask_iou=overlap,
        lost_frames=tuple(int(k) for k in np.flatnonzero(losses > LOST * max(float(np.median(losses[1:])), 1e-6))),
        seconds=time.process_time() - started,
    )


class _Fitter:
    def __init__(self, rig: SplatRig, pictures: Pictures, targets: Correspondences | None, config: FitConfig) -> None:
        self.rig, self.pictures, self.targets, self.config = rig, pictures, targets, config
        self.silhouette = Silhouette(pictures, config.seed)
        self.rates = torch.tensor([config.translation_rate] * 3 + [config.rotation_rate] * 3)

    def run(self, report: Progress) -> tuple[Tensor, np.ndarray, Tensor]:
        """Return poses `[T, M, 6]`, their losses `[T]`, and the pose `[1, M, 6]` found for frame 0 itself."""
        config, count = self.config, len(self.pictures.frames)
        rest = torch.zeros(1, len(self.rig.nodes), 6)
        report(0.02, "fitting frame 0 to itself")
        bias = self.descend(rest, torch.zeros(1, dtype=torch.long), config.bias_steps)
        poses, losses = bias.repeat(count, 1, 1), torch.full((count,), torch.inf)
        for frame in range(1, count):
            ahead = poses[frame - 1] + VELOCITY * (poses[frame - 1] - poses[max(frame - 2, 0)])
            starts = torch.stack([ahead, bias[0]]) if frame > 1 else bias
            self._compete(poses, losses, frame, starts, config.forward_steps)
            report(0.06 + 0.59 * frame / (count - 1), f"following frame {frame + 1} of {count}")
        if config.backward_steps:
            for frame in range(count - 2, 0, -1):
                self._compete(poses, losses, frame, poses[frame + 1 : frame + 2], config.backward_steps)
                report(0.65 + 0.2 * (1 - frame / (count - 1)), f"going back, frame {frame + 1} of {count}")
        for part in torch.arange(1, count).split(TOGETHER):
            poses[part] = self.descend(poses[part], part, config.joint_steps, rate=JOINT_RATE, early=False)
            losses[part] = self.judge(poses[part], part)
            report(0.85 + 0.15 * float(part[-1]) / (count - 1), "refining")
        losses[0] = 0.0
        return poses, losses.double().numpy(), bias

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

    def _compete(self, poses: Tensor, losses: Tensor, frame: int, starts: Tensor, steps: int) -> None:
        """Fit one frame from each start `[B, M, 6]`; keep the best if it beats what is there (in place)."""
        frames = torch.full((len(starts),), frame)
        found = self.descend(starts, frames, steps)
        loss = self.judge(found, frames)
        best = int(loss.argmin())
        if loss[best] < losses[frame]:
            poses[frame], losses[frame] = found[best], loss[best]

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


def _silent(share: float, text: str) -> None:
    """Report to nobody."""


def _check(
    mesh: Mesh, video: MultiViewVideo, tracks: Tracks | None, flow: np.ndarray | None, flow_weight: np.ndarray | None
) -> None:
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum()
    if not area > 0.0:
        raise AssetError("the mesh has no surface (all its triangles are without area): give a model with faces")
    views, times = video.rgb.shape[:2]
    if times < 2:
        raise ConfigError(f"the video has {times} frame: a motion needs at least 2")
    if tracks is not None and tracks.xy.shape[:2] != (views, times):
        raise ConfigError(f"tracks are of {tracks.xy.shape[:2]} views and frames, the video of {(views, times)}")
    for name, field in (("flow", flow), ("flow_weight", flow_weight)):
        if field is not None and field.shape[:2] != (views, times):
            raise ConfigError(f"{name} is of {field.shape[:2]} views and frames, the video of {(views, times)}")
