"""A motion field on a mesh: alone from the rest pose, or as a residual on a deformation graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from animate4d.core.errors import AssetError
from animate4d.core.mesh import Mesh
from animate4d.core.motion import GraphMotion, VertexMotion
from animate4d.fourd.correspond import Correspondences
from animate4d.fourd.distill import ScoreFunction
from animate4d.fourd.field_body import Base, Body, PointFeatures
from animate4d.fourd.field_config import FieldFitConfig
from animate4d.fourd.field_fit import FieldFit, Progress, fit_field
from animate4d.fourd.graph import weld
from animate4d.fourd.photometric import Pictures
from animate4d.fourd.surface_splats import SurfaceSplats


def fit_mesh_field(
    mesh: Mesh,
    surface: SurfaceSplats,
    pictures: Pictures,
    times: np.ndarray,
    config: FieldFitConfig,
    *,
    graph: GraphMotion | None = None,
    shown: GraphMotion | None = None,
    targets: Correspondences | None = None,
    features: PointFeatures | None = None,
    score: ScoreFunction | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> tuple[VertexMotion, FieldFit]:
    """Train a field on the splats of a mesh and read off where its vertices go.

    Vertices of one position move as one. Frame 0 is the mesh itself.

    Args:
        mesh: at rest.
        surface: its splats.
        pictures: the video.
        times: `[T]` seconds.
        config: settings.
        graph: motion to add to; without one the field moves the mesh alone.
        shown: the graph's motion as it was compared with the video, its bias not taken off.
        targets: of the splats.
        features: diffusion features of points.
        score: video model for distillation.
        checkpoint: see `fit_field`.
        progress: see `fit_field`.
        device: to train on; None is the CPU.

    Raises:
        AssetError: the field diverged.
        ConfigError: the checkpoint is damaged or of another fit.
    """
    _, welded = weld(mesh.vertices)
    first = np.unique(welded, return_index=True)[1]
    device = device or torch.device("cpu")
    body = Body.of_surface(surface, mesh.vertices[first], mesh.faces, welded, len(times), features, device)
    base, drawn = (
        None if motion is None else Base.of(motion, surface, mesh.vertices, first, device) for motion in (graph, shown)
    )
    fit = fit_field(
        body,
        pictures,
        config,
        base=base,
        shown=drawn,
        targets=None if targets is None else targets.to(device),
        score=score,
        checkpoint=checkpoint,
        progress=progress,
    )
    offsets = fit.points[:, welded]
    if graph is not None:
        offsets = offsets + (graph.apply(mesh.vertices) - mesh.vertices)
    offsets[0] = 0.0
    if not (np.isfinite(offsets).all() and np.isfinite(fit.splats.means).all()):
        raise AssetError("the field did not come to a finite motion: check the model for triangles without area")
    return VertexMotion(offsets=offsets, times=np.asarray(times, np.float64)), fit
