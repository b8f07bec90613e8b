"""A smooth random motion to export, and a whole moving object."""

from dataclasses import replace

import numpy as np
import pytest

from animate4d.assets.load import load_asset
from animate4d.assets.procedural import generate_objects
from animate4d.core.cameras import Rig
from animate4d.core.motion import GraphMotion, SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.export.moving_object import MovingObject
from animate4d.fourd.surface_splats import move_splats, sample_splats


def smooth_motion(vertices: np.ndarray, faces: np.ndarray, *, nodes: int = 40, frames: int = 7, seed: int = 0):
    """Nodes at random vertices, four nearest per vertex, turns and shifts that vary smoothly over space and time."""
    rng = np.random.default_rng(seed)
    used = np.unique(faces)
    places = vertices[rng.choice(used, min(nodes, len(used)), replace=False)].astype(np.float64)
    distance = np.linalg.norm(vertices[:, None] - places, axis=-1)
    nearest = np.argsort(distance, axis=1)[:, :4]
    weights = 1 / (np.take_along_axis(distance, nearest, 1) + 0.05)
    weights /= weights.sum(1, keepdims=True)
    wave = np.sin(np.linspace(0, 1.5 * np.pi, frames))[:, None, None]
    return GraphMotion(
        nodes=places.astype(np.float32),
        rotations=(wave * (0.7 * np.sin(3 * places + 1))).astype(np.float32),
        translations=(wave * (0.15 * np.cos(2 * places))).astype(np.float32),
        vertex_nodes=nearest.astype(np.int32),
        vertex_weights=weights.astype(np.float32),
        times=np.linspace(0.5, 1.7, frames),
    )


@pytest.fixture
def make_motion():
    return smooth_motion


@pytest.fixture(scope="session")
def barrel_asset(tmp_path_factory):
    return load_asset(generate_objects(tmp_path_factory.mktemp("barrel"), count=1, seed=5, families=("barrel",))[0])


def moving_mesh(asset, *, frames=4, splats=300):
    motion = smooth_motion(asset.mesh.vertices, asset.mesh.faces, frames=frames)
    surface = sample_splats(asset.mesh, splats)
    means, quats = move_splats(surface, motion, asset.mesh.vertices)
    return MovingObject(
        asset=asset,
        title="a barrel bending",
        motion=motion,
        vertices=motion.apply(asset.mesh.vertices),
        cloud=surface.cloud,
        splats=SplatMotion(means=means, quats=quats),
        rig=Rig(),
        video=np.random.default_rng(1).integers(0, 255, (4, frames, 32, 32, 3), dtype=np.uint8),
        video_frames=np.arange(frames),
        video_name="The generated video",
    )


@pytest.fixture(scope="session")
def thing(barrel_asset):
    return moving_mesh(barrel_asset)


@pytest.fixture(scope="session")
def splat_thing(thing):
    """The same object as an asset of splats alone, with harmonics of degree 1, whose file was y-down."""
    cloud = thing.cloud
    rng = np.random.default_rng(0)
    sh = np.concatenate([cloud.sh, rng.normal(0, 0.1, (len(cloud.means), 3, 3)).astype(np.float32)], axis=1)
    cloud = SplatCloud(means=cloud.means, quats=cloud.quats, scales=cloud.scales, opacities=cloud.opacities, sh=sh)
    flip = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    frame = replace(thing.asset.to_canonical, rotation=flip)
    asset = replace(thing.asset, mesh=None, splats=cloud, to_canonical=frame, parts=(), document=None, poser=None)
    return replace(thing, asset=asset, cloud=cloud, vertices=None)
