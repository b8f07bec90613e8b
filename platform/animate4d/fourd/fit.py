"""The motion of one object from its multi-view video."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import AssetError, ConfigError
from animate4d.core.mesh import Mesh
from animate4d.core.motion import GraphMotion, Motion, SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.core.tracks import Tracks
from animate4d.fourd.cloud_splats import cloud_graph
from animate4d.fourd.config import FitConfig
from animate4d.fourd.correspond import Evidence
from animate4d.fourd.distill import ScoreFunction
from animate4d.fourd.field_body import PointFeatures
from animate4d.fourd.graph import Graph, build_graph
from animate4d.fourd.graph_fit import Progress
from animate4d.fourd.levels import Level, fit_levels, part, stand_still
from animate4d.fourd.looping import chain
from animate4d.fourd.mesh_field import fit_mesh_field
from animate4d.fourd.surface_splats import SurfaceSplats, move_splats

LOST = 2.5
"""A frame counts as lost where its loss is this many times the clip's median."""

GRAPH_SHARE = {"graph": 1.0, "field": 0.0, "both": 0.3}
"""Share of the time that goes into the graph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """What a fit found.

    Attributes:
        motion: of the mesh's vertices, or of a cloud's splats, for export and scoring.
        graph: that the motion hangs on.
        levels: coarse to fine.
        trajectories: of the finest splats as a field moves them, sizes and colours included; None for a graph alone.
        frame_losses: `[T]` float64 final loss of each frame; 0 for frame 0, which is given.
        mask_iou: `[T]` float64 overlap of drawn and given masks over all views, 1 is perfect.
        lost_frames: frames whose loss stands out: probably a limb was lost there.
        seconds: CPU seconds the fit took.
    """

    motion: Motion
    graph: Graph
    levels: tuple[Level, ...]
    trajectories: SplatMotion | None
    frame_losses: np.ndarray
    mask_iou: np.ndarray
    lost_frames: tuple[int, ...]
    seconds: float

    @property
    def surface(self) -> SurfaceSplats:
        """The finest splats in the rest pose; `surface_splats.move_splats` moves them."""
        return self.levels[-1].surface

    @property
    def splats(self) -> SplatCloud:
        """The finest splats in the rest pose."""
        return self.surface.cloud

    def splat_motion(self, vertices: np.ndarray) -> SplatMotion:
        """Return where the splats go, given the rest vertices `[N, 3]` of the mesh."""
        if self.trajectories is not None:
            return self.trajectories
        means, quats = move_splats(self.surface, self.motion, vertices)
        return SplatMotion(means=means, quats=quats)


def fit_motion(
    body: Mesh | SplatCloud,
    video: MultiViewVideo,
    config: FitConfig,
    *,
    tracks: Tracks | None = None,
    flow: np.ndarray | None = None,
    flow_weight: np.ndarray | None = None,
    around: MultiViewVideo | None = None,
    after: FitResult | None = None,
    features: PointFeatures | None = None,
    score: ScoreFunction | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> FitResult:
    """Fit the motion that makes a mesh or a captured cloud look like its video.

    Runs on `torch.get_num_threads()` CPU threads; one is best for a single object, as the work is many small steps.

    Args:
        body: in the canonical frame, in the pose that frame 0 of the video shows (of the first video, with `after`).
        video: V views by T >= 2 frames.
        config: settings; see `config.PRESETS`.
        tracks: of points seen in frame 0, in pixels of the video.
        flow: `[V, T, h, w, 2]` at the positions of frame t: position in frame 0 minus position in frame t, half images.
        flow_weight: `[V, T, h, w]` in [0, 1], zero where the flow's source was hidden in frame 0.
        around: pictures of the rest pose from more sides, one frame each: they colour what the video does not show.
        after: the motion so far; frame 0 of the video shows its last frame, and the result is of both together.
        features: diffusion features of rest points, for a field.
        score: video model that a field's refinement distils from.
        checkpoint: file from which a field's training goes on, and to which it writes now and then.
        progress: called with the share done and a word about it.
        device: to train a field on, None is the CPU; a graph is fitted on the CPU.

    Raises:
        AssetError: the mesh has no surface, or it has vertices that are no numbers.
        ConfigError: the video has a single frame, tracks or flow are not of its size, a field should follow another
            motion or move a cloud, or the checkpoint is damaged or of another fit.
    """
    started = time.process_time()
    report = progress or _silent
    _check(body, video, tracks, flow, flow_weight)
    if after and not (config.body == "graph" and isinstance(after.motion, GraphMotion)):
        raise ConfigError("only the motion of a graph can follow another one, itself of a graph: set fit.body to graph")
    if config.body != "graph" and not isinstance(body, Mesh):
        raise ConfigError(f"fit.body is {config.body!r}, but a field moves meshes only: give splats fit standard")
    report(0.0, "placing splats")
    graph = after.graph if after else _hang(body, config.nodes)
    evidence = Evidence(width=video.rgb.shape[3], tracks=tracks, flow=flow, flow_weight=flow_weight)
    share = GRAPH_SHARE[config.body]
    if config.body == "field":
        assert isinstance(body, Mesh)
        found = stand_still(body, graph, video, config, evidence, around=around)
    else:
        first, known = (_last_pose(after), after.levels) if after else (None, ())
        told = part(report, 0.0, share)
        found = fit_levels(body, graph, video, config, evidence, told, around=around, first=first, known=known)
    losses, overlap = found.fit.losses(found.poses), found.fit.mask_iou(found.poses)
    nodes, shown = (_motion(graph, poses, video.times) for poses in (found.poses, found.shown))
    motion: Motion = nodes
    trajectories = None
    if config.body != "graph":
        assert isinstance(body, Mesh)
        motion, trained = fit_mesh_field(
            body,
            found.levels[-1].surface,
            found.fit.pictures,
            video.times,
            replace(config.field, seed=config.field.seed + config.seed),
            graph=None if config.body == "field" else nodes,
            shown=None if config.body == "field" else shown,
            targets=found.fit.targets,
            features=features,
            score=score,
            checkpoint=checkpoint,
            progress=part(report, share, 1.0),
            device=device,
        )
        trajectories, losses, overlap = trained.splats, trained.frame_losses, trained.mask_iou
    if not np.isfinite(motion.apply(body.vertices if isinstance(body, Mesh) else body.means)).all():
        raise AssetError("the fit did not come to a finite motion: check the model for triangles without area")
    if after:
        motion = chain(after.motion, motion)
        losses = np.concatenate([after.frame_losses, losses[1:]])
        overlap = np.concatenate([after.mask_iou, overlap[1:]])
    return FitResult(
        motion=motion,
        graph=graph,
        levels=found.levels,
        trajectories=trajectories,
        frame_losses=losses,
        mask_iou=overlap,
        lost_frames=tuple(int(k) for k in np.flatnonzero(losses > LOST * max(float(np.median(losses[1:])), 1e-6))),
        seconds=time.process_time() - started + (after.seconds if after else 0.0),
    )


def _hang(body: Mesh | SplatCloud, nodes: int) -> Graph:
    if isinstance(body, Mesh):
        return build_graph(body.vertices, body.faces, nodes)
    return cloud_graph(body, nodes)


def _motion(graph: Graph, poses: Tensor, times: np.ndarray) -> GraphMotion:
    return GraphMotion(
        nodes=graph.nodes,
        rotations=poses[..., 3:].numpy(),
        translations=poses[..., :3].numpy(),
        vertex_nodes=graph.vertex_nodes,
        vertex_weights=graph.vertex_weights,
        times=np.asarray(times, np.float64),
    )


def _last_pose(result: FitResult) -> Tensor:
    assert isinstance(result.motion, GraphMotion)
    pose = np.concatenate([result.motion.translations[-1:], result.motion.rotations[-1:]], -1)
    return torch.from_numpy(pose.astype(np.float32))


def _silent(share: float, text: str) -> None:
    """Report to nobody."""


def _check(
    body: Mesh | SplatCloud,
    video: MultiViewVideo,
    tracks: Tracks | None,
    flow: np.ndarray | None,
    flow_weight: np.ndarray | None,
) -> None:
    if isinstance(body, Mesh):
        _check_surface(body)
    views, times = video.rgb.shape[:2]
    if times < 2:
        raise ConfigError(f"the video has {times} frame: a motion needs at least 2")
    for name in ("camera_to_world", "intrinsics", "times"):
        if not np.isfinite(getattr(video, name)).all():
            raise ConfigError(f"the video's {name} holds values that are no numbers")
    if tracks is not None and tracks.xy.shape[:2] != (views, times):
        raise ConfigError(f"tracks are of {tracks.xy.shape[:2]} views and frames, the video of {(views, times)}")
    for name, field in (("flow", flow), ("flow_weight", flow_weight)):
        if field is not None and field.shape[:2] != (views, times):
            raise ConfigError(f"{name} is of {field.shape[:2]} views and frames, the video of {(views, times)}")


def _check_surface(mesh: Mesh) -> None:
    if not np.isfinite(mesh.vertices).all():
        raise AssetError("the mesh has vertices that are no numbers (NaN or infinite): repair the model")
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum()
    if not area > 0.0:
        raise AssetError("the mesh has no surface (all its triangles are without area): give a model with faces")
