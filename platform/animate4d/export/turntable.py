"""A video of the moving object that turns once around, as one holds a thing up to look at it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from animate4d.core.cameras import Rig
from animate4d.core.mesh import Mesh
from animate4d.core.motion import SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.export.moving_object import MovingObject
from animate4d.export.video import write_mp4
from animate4d.fourd.cloud_views import draw_cloud
from animate4d.io.images import composite_grey
from animate4d.views.raycast import Renderer
from animate4d.views.rays import Cameras
from animate4d.views.shading import bake_shading

SECONDS = 4.0
FPS = 20.0
SIZE_PX = 320
"""Eighty pictures of this size take some four CPU seconds, a tenth of what the fit takes."""

DISTANCE = 0.85
"""Nearer than the input views by this share."""

Draw = Callable[[float, float], np.ndarray]
"""Draws `[H, W, 3]` uint8 at a time in frames and an azimuth in degrees."""


def write_turntable(path: Path, thing: MovingObject) -> None:
    """Write one turn of `SECONDS`, in which the motion plays over and over, from above the horizon as in the rig."""
    rig = replace(thing.rig, azimuths_deg=(0.0,), distance=DISTANCE * thing.rig.distance)
    if thing.vertices is None:
        draw = _draw_splats(thing.cloud, thing.splats, rig)
    else:
        assert thing.asset.mesh is not None
        draw = _draw_mesh(thing.asset.mesh, thing.vertices, rig)
    times = thing.motion.times
    last = len(times) - 1
    rate = last / max(float(times[-1] - times[0]), 1e-3)
    # A motion that comes back to its start flows on there, any other holds its last frame as long as the rest.
    closed = np.allclose(thing.splats.means[-1], thing.splats.means[0], atol=1e-4)
    length = last if closed else last + 1
    count = round(SECONDS * FPS)
    shown = [draw(min(rate * step / FPS % length, last), 360.0 * step / count) for step in range(count)]
    write_mp4(path, np.stack(shown), FPS)


def _draw_mesh(mesh: Mesh, vertices: np.ndarray, rig: Rig) -> Draw:
    cameras = Cameras.of(rig.camera_to_world(), rig.intrinsics(SIZE_PX), SIZE_PX)
    renderer = Renderer(mesh, cameras, samples=2, shading=bake_shading(mesh, vertices[0]))

    def draw(time: float, azimuth: float) -> np.ndarray:
        # The renderer's cameras stand still: the object turns under them, with its light.
        angle = -math.radians(azimuth)
        turn = np.array([[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
        pose = (_between(vertices, time) @ turn).astype(np.float32)
        return composite_grey(renderer.render(pose, renderer.caster(pose)).rgba)[0]

    return draw


def _draw_splats(cloud: SplatCloud, splats: SplatMotion, rig: Rig) -> Draw:
    def draw(time: float, azimuth: float) -> np.ndarray:
        view = replace(rig, azimuths_deg=(azimuth,))
        means, quats = _between(splats.means, time), _between(splats.quats, time)
        return composite_grey(draw_cloud(cloud, view, SIZE_PX, means=means, quats=quats))[0]

    return draw


def _between(values: np.ndarray, time: float) -> np.ndarray:
    frame = min(int(time), len(values) - 1)
    following = min(frame + 1, len(values) - 1)
    return values[frame] + (values[following] - values[frame]) * np.float32(time - frame)
