"""The graph fitted at one resolution after the other: frame by frame where pictures are small, then all together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from animate4d.core.clip import MultiViewVideo
from animate4d.core.mesh import Mesh
from animate4d.core.splats import SplatCloud
from animate4d.fourd.cloud_splats import CLOUD_OPACITIES, bare_points, gather
from animate4d.fourd.config import FitConfig
from animate4d.fourd.correspond import Evidence, find_correspondences
from animate4d.fourd.deform import SplatRig, compose, take_off
from animate4d.fourd.graph import Graph
from animate4d.fourd.graph_fit import JOINT_RATE, GraphFit, Progress
from animate4d.fourd.photometric import Pictures, prepare_pictures
from animate4d.fourd.render import pick_backend
from animate4d.fourd.surface_splats import SurfaceSplats, polish, sample_splats

COARSE = 0.6
"""Share of the time until the finest level begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One resolution of a fit.

    Attributes:
        surface: splats bound to the body, polished on frame 0, in the rest pose.
        bias: `[1, M, 6]` pose that the fit finds for frame 0 itself.
    """

    surface: SurfaceSplats
    bias: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphPoses:
    """A graph's poses in every frame.

    Attributes:
        poses: `[T, M, 6]` without the bias; frame 0 is as given.
        shown: `[T, M, 6]` as fitted, which match the pictures best.
        levels: coarse to fine.
        fit: of the finest level, for scoring.
    """

    poses: Tensor
    shown: Tensor
    levels: tuple[Level, ...]
    fit: GraphFit


def fit_levels(
    body: Mesh | SplatCloud,
    graph: Graph,
    video: MultiViewVideo,
    config: FitConfig,
    evidence: Evidence,
    report: Progress,
    *,
    around: MultiViewVideo | None = None,
    first: Tensor | None = None,
    known: tuple[Level, ...] = (),
) -> GraphPoses:
    """Fit all frames.

    Args:
        body: in the rest pose.
        graph: of the body.
        video: to look like.
        config: settings.
        evidence: tracks and flow.
        report: told the share done.
        around: more views of the rest pose, one frame each.
        first: `[1, M, 6]` pose that frame 0 shows; None is the rest pose.
        known: levels of the fit that led there; without, splats are made and polished on frame 0.
    """
    rest, zero = torch.zeros(1, len(graph.nodes), 6), torch.zeros(1, dtype=torch.long)
    poses = rest if first is None else first
    sizes = level_sizes(video, config)
    coarse = 1.0 if len(sizes) == 1 else COARSE
    levels: list[Level] = []
    for number, (size, splats) in enumerate(sizes):
        pictures = shrink(video, size, config)
        surface = known[number].surface if known else place_splats(body, pictures, around, splats, config)
        rig = SplatRig(body if isinstance(body, Mesh) else bare_points(body), graph, surface)
        weights = replace(config, rigidity=config.rigidity * (config.fine_rigidity if number else 1.0))
        fit = GraphFit(rig, pictures, find_correspondences(rig, poses[:1], pictures, evidence), weights)
        if known:
            bias = known[number].bias
        elif number == 0:
            bias = fit.descend(rest, zero, config.bias_steps)
        else:
            # as short as the refinement it is taken off from
            steps = min(config.fine_steps, config.bias_steps)
            bias = fit.descend(rest, zero, steps, rate=JOINT_RATE, early=False)
        if number == 0:
            shown = fit.follow(compose(poses, bias), part(report, 0.05 * coarse, 0.85 * coarse))
            shown = fit.refine(shown, config.joint_steps, part(report, 0.85 * coarse, coarse))
        else:
            shown = fit.refine(poses, config.fine_steps, part(report, coarse + 0.1, 1.0))
        start = poses[0]
        poses = take_off(shown, bias)
        poses[0] = start
        levels.append(Level(surface=surface, bias=bias))
    return GraphPoses(poses=poses, shown=shown, levels=tuple(levels), fit=fit)


def stand_still(
    mesh: Mesh,
    graph: Graph,
    video: MultiViewVideo,
    config: FitConfig,
    evidence: Evidence,
    *,
    around: MultiViewVideo | None = None,
) -> GraphPoses:
    """Return the graph at rest in every frame, on the level of `config.size`: where a field alone begins."""
    pictures = shrink(video, config.size, config)
    surface = place_splats(mesh, pictures, around, config.splats, config)
    rig = SplatRig(mesh, graph, surface)
    rest = torch.zeros(1, len(graph.nodes), 6)
    fit = GraphFit(rig, pictures, find_correspondences(rig, rest, pictures, evidence), config)
    poses = rest.repeat(len(pictures.frames), 1, 1)
    return GraphPoses(poses=poses, shown=poses, levels=(Level(surface=surface, bias=rest),), fit=fit)


def level_sizes(video: MultiViewVideo, config: FitConfig) -> list[tuple[int, int]]:
    """Return (pixels, splats) of every level, coarse to fine."""
    sizes = [(config.size, config.splats)]
    if config.fine_steps and max(video.rgb.shape[2:4]) > config.size:
        sizes.append((config.fine_size, config.fine_splats))
    return sizes


def shrink(video: MultiViewVideo, size: int, config: FitConfig) -> Pictures:
    """Return the video as one level compares it."""
    return prepare_pictures(video, size, config.levels, pick_backend("auto", torch.device("cpu")), config.coverage)


def place_splats(
    body: Mesh | SplatCloud, pictures: Pictures, around: MultiViewVideo | None, count: int, config: FitConfig
) -> SurfaceSplats:
    """Spread splats over a mesh, or stand in for a cloud by fewer; polish them on frame 0.

    Each step looks at as many views as the video has.
    """
    views = [pictures]
    if around is not None:
        views += shrink(around, max(pictures.size), config).split(len(pictures.viewmats))
    if isinstance(body, Mesh):
        return polish(sample_splats(body, count, config.seed), views, config.polish_steps)
    return polish(gather(body, count), views, config.polish_steps, CLOUD_OPACITIES)


def part(report: Progress, start: float, end: float) -> Progress:
    """Return what maps shares of a part to shares of the whole."""
    return lambda share, text: report(start + (end - start) * share, text)
