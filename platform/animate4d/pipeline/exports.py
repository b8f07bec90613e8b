"""From a fit to what is exported: the motion as it is to play, splats dense enough to look at, and which files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from animate4d.core.clip import MultiViewVideo
from animate4d.core.mesh import Mesh
from animate4d.core.motion import Motion, SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.export.formats import Format
from animate4d.export.moving_object import MovingObject
from animate4d.fourd.fit import FitResult
from animate4d.fourd.looping import ping_pong, seamless
from animate4d.fourd.photometric import prepare_pictures
from animate4d.fourd.render import pick_backend
from animate4d.fourd.surface_splats import SurfaceSplats, move_splats, polish, sample_splats
from animate4d.pipeline.config import AnimateOptions, Request

SPLATS = 10_000
"""Gaussians of a mesh's exported splats: the fit needs fewer, but those would blur a texture at 256 px."""

POLISH_PX, POLISH_LEVELS, POLISH_STEPS = 256, 2, 40
"""Of those splats, on the views of frame 0."""

FEWER = ("draft",)
"""Presets that are after speed: they export the splats of the fit."""

MAX_SEQUENCE_BYTES = 256 << 20
"""Largest sequence of PLY files written without being asked: 16 frames of 60 000 splats with all harmonics."""

MAX_VIEWER_BYTES = 32 << 20
"""Largest trajectories put into a page without being asked: 16 frames of 200 000 splats."""


def played(motion: Motion, request: Request) -> tuple[Motion, np.ndarray]:
    """Return a fitted motion as it is to play, and which frame of the video goes with each of its frames.

    A generated clip is trained as a loop whose last frame leads into the first, so it is closed unless something else
    is asked for; an asset's own clip is left as it is.
    """
    frames = np.arange(len(motion.times))
    loop = request.options.loop
    if loop == "auto":
        loop = "close" if request.video == "generated" else "none"
    if loop == "close":
        return motion.closed(), np.append(frames, 0)
    if loop == "seamless":
        return seamless(motion), np.append(frames, 0)
    if loop == "ping-pong":
        return ping_pong(motion), np.append(frames, frames[-2::-1])
    return motion, frames


def mesh_splats(
    mesh: Mesh, fit: FitResult, motion: Motion, video_frames: np.ndarray, video: MultiViewVideo, request: Request
) -> tuple[SplatCloud, SplatMotion]:
    """Return the splats to export with a mesh, at frame 0, and their trajectories.

    Those of a field are the fit's own, with their changing sizes and colours, as long as the motion is as fitted. A
    graph moves any splats on the surface, so denser ones are made for it.

    Args:
        mesh: what moves.
        fit: of its motion.
        motion: as it is to play.
        video_frames: of `played`.
        video: the fit's.
        request: for effort, strength and seed.
    """
    options, found = request.options, fit.trajectories
    if found is not None and options.strength == 1 and options.loop != "seamless":
        sizes, colors = (None if part is None else part[video_frames] for part in (found.scales, found.sh))
        places, turns = found.means[video_frames], found.quats[video_frames]
        return fit.splats, SplatMotion(means=places, quats=turns, scales=sizes, sh=colors)
    surface = fit.surface if options.fit in FEWER else _dense(mesh, video, request.seed % 2**32)
    means, quats = move_splats(surface, motion, mesh.vertices)
    return surface.cloud, SplatMotion(means=means, quats=quats)


def wanted_files(thing: MovingObject, options: AnimateOptions) -> tuple[tuple[Format, ...], list[str]]:
    """Return the formats to write, and what the user should know of them.

    A capture has no GLB to play, so by default a PLY per frame goes with it; what would be too large is left out unless
    it is asked for by name.
    """
    wanted, notes = list(options.wanted_formats()), []
    frames, count = thing.splats.means.shape[:2]
    by_default = "default" in options.formats
    if thing.vertices is None:
        notes.append("Splats have no surface to skin, so there is no animated.glb: the result is the moved splats.")
        size = frames * count * 4 * (14 + 3 * thing.cloud.sh.shape[1])
        if by_default and "ply-frames" not in wanted:
            if size <= MAX_SEQUENCE_BYTES:
                wanted.append("ply-frames")
            else:
                notes.append(f"A PLY per frame would take {size / 1e9:.1f} GB: ask for ply-frames to have them.")
    if by_default and "viewer" not in options.formats and 10 * frames * count > MAX_VIEWER_BYTES:
        wanted.remove("viewer")
        notes.append(f"A page of {count} splats would be slow and large: ask for viewer to have it.")
    return tuple(wanted), notes


def _dense(mesh: Mesh, video: MultiViewVideo, seed: int) -> SurfaceSplats:
    first = replace(video, rgb=video.rgb[:, :1], alpha=video.alpha[:, :1], times=video.times[:1])
    backend = pick_backend("auto", torch.device("cpu"))
    pictures = prepare_pictures(first, POLISH_PX, POLISH_LEVELS, backend)
    return polish(sample_splats(mesh, SPLATS, seed), [pictures], POLISH_STEPS)
