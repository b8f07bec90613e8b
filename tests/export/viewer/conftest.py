"""A small moving object for the viewer."""

from dataclasses import replace

import numpy as np
import pytest

from animate4d.core.cameras import Rig
from animate4d.core.motion import SplatMotion
from animate4d.export.viewer.scene import ViewerScene
from animate4d.fourd.surface_splats import move_splats, sample_splats


@pytest.fixture
def scene(barrel_asset, make_motion):
    mesh = barrel_asset.mesh
    rows, columns = np.mgrid[0:32, 0:16]
    texture = np.stack([8 * rows, 16 * columns, 255 - 8 * rows, np.full_like(rows, 255)], axis=-1).astype(np.uint8)
    mesh = replace(mesh, materials=(replace(mesh.materials[0], texture=texture), *mesh.materials[1:]))
    motion = make_motion(mesh.vertices, mesh.faces, frames=6)
    surface = sample_splats(mesh, 400)
    means, quats = move_splats(surface, motion, mesh.vertices)
    video = np.random.default_rng(1).integers(0, 255, (4, 5, 32, 32, 3), dtype=np.uint8)
    return ViewerScene(
        title="a barrel bending",
        origin="barrel.glb",
        times=np.arange(6) / 8,
        rig=Rig(),
        video=video,
        video_frames=np.array([0, 1, 2, 3, 4, 0]),
        video_name="The generated video",
        cloud=surface.cloud,
        splats=SplatMotion(means=means, quats=quats),
        mesh=mesh,
        vertices=motion.apply(mesh.vertices),
    )
