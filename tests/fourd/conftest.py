"""A small moving object and its videos, drawn by the splat rasteriser itself so that these tests need no other room."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from animate4d.core.cameras import Rig, world_to_camera_cv
from animate4d.core.clip import MultiViewVideo
from animate4d.core.mesh import Material, Mesh
from animate4d.fourd.raster_torch import factors_from_quats
from animate4d.fourd.render import draw_factors
from animate4d.fourd.surface_splats import SH0, sample_splats


def build_tube(rings: int = 25, sides: int = 10, length: float = 1.2, radius: float = 0.14) -> Mesh:
    """A closed tube along y whose colours change along and around it."""
    along = np.linspace(-length / 2, length / 2, rings)
    around = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    y, angle = np.meshgrid(along, around, indexing="ij")
    points = np.stack([radius * np.cos(angle), y, radius * np.sin(angle)], -1).reshape(-1, 3)
    ring, side = np.meshgrid(np.arange(rings - 1), np.arange(sides), indexing="ij")
    a, b = ring * sides + side, ring * sides + (side + 1) % sides
    quads = np.stack([a, a + sides, b + sides, b], -1).reshape(-1, 4)
    caps = [
        [len(points) + end, start + k, start + (k + 1) % sides]
        for end, start in ((0, 0), (1, (rings - 1) * sides))
        for k in range(sides)
    ]
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]], caps])
    points = np.concatenate([points, [[0, -length / 2, 0], [0, length / 2, 0]]])
    stripe = 0.5 + 0.4 * np.sin(9 * points[:, 1])
    colors = np.stack([stripe, 0.3 + 0.3 * (points[:, 0] > 0), 1 - stripe, np.ones_like(stripe)], 1)
    return build_mesh(points, faces, colors)


def build_mesh(points, faces, colors=None, **material) -> Mesh:
    return Mesh(
        vertices=np.asarray(points, np.float32),
        faces=np.asarray(faces, np.int32),
        face_material=np.zeros(len(faces), np.int32),
        materials=(Material(**material),),
        uv=np.zeros((len(points), 2), np.float32),
        colors=np.ones((len(points), 4), np.float32) if colors is None else np.asarray(colors, np.float32),
        part_of_vertex=np.zeros(len(points), np.int32),
    )


def bend(points: np.ndarray, amount: float) -> np.ndarray:
    """Bend a tube along y in the xz plane's x direction: constant curvature `amount` radians over its length 1.2."""
    if abs(amount) < 1e-9:
        return points.copy()
    curvature = amount / 1.2
    angle = points[:, 1] * curvature
    radius = 1 / curvature - points[:, 0]
    return np.stack([1 / curvature - radius * np.cos(angle), radius * np.sin(angle), points[:, 2]], 1).astype(
        np.float32
    )


def film(mesh: Mesh, vertices: np.ndarray, size: int, rig: Rig | None = None) -> MultiViewVideo:
    """Draw poses `[T, N, 3]` of a mesh with 6000 splats that follow its triangles."""
    rig = rig or Rig()
    splats = sample_splats(mesh, 6000, seed=5)
    rest = splats.corners
    rows = []
    for pose in vertices:
        corners = [_frames(mesh.vertices[rest]), _frames(pose[rest])]
        turn = torch.from_numpy((corners[1] @ np.swapaxes(corners[0], 1, 2)).astype(np.float32))
        factors = turn @ factors_from_quats(torch.from_numpy(splats.cloud.quats), torch.from_numpy(splats.cloud.scales))
        image = draw_factors(
            torch.from_numpy(splats.surface(pose).astype(np.float32))[None],
            factors[None],
            torch.from_numpy(splats.cloud.opacities),
            torch.from_numpy(0.5 + np.float32(SH0) * splats.cloud.sh[:, 0]),
            torch.from_numpy(world_to_camera_cv(rig.camera_to_world()).astype(np.float32)),
            torch.from_numpy(rig.intrinsics(size).astype(np.float32)),
            (size, size),
            backend="native",
        )[0]
        rows.append(image.numpy())
    layers = np.stack(rows, 1).transpose(0, 1, 3, 4, 2)
    straight = layers[..., :3] / np.maximum(layers[..., 3:], 1e-3)
    return MultiViewVideo(
        rgb=np.clip(np.round(255 * straight), 0, 255).astype(np.uint8),
        alpha=np.round(255 * layers[..., 3]).astype(np.uint8),
        camera_to_world=rig.camera_to_world(),
        intrinsics=rig.intrinsics(size),
        times=np.arange(len(vertices)) / 8.0,
    )


def _frames(corners: np.ndarray) -> np.ndarray:
    first = corners[:, 1] - corners[:, 0]
    first = first / np.linalg.norm(first, axis=1, keepdims=True)
    normal = np.cross(first, corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return np.stack([first, np.cross(normal, first), normal], -1)


@pytest.fixture(scope="session")
def bending_tube():
    """A tube, its vertices over five frames, and its video at 64 px from four views."""
    torch.set_num_threads(1)
    mesh = build_tube()
    vertices = np.stack([bend(mesh.vertices, amount) for amount in np.linspace(0, 1.6, 5)])
    return mesh, vertices, film(mesh, vertices, 64)


@pytest.fixture(scope="session")
def tumbling_tube():
    """A tube that turns over between frames, its vertices, and its video at 64 px from four views."""
    torch.set_num_threads(1)
    mesh = build_tube()
    turns = Rotation.from_rotvec([[0, 0, 0], [2.3, 0.6, 0.2], [0.4, 0.3, 2.8]]).as_matrix()
    shifts = np.array([[0, 0, 0], [0.15, 0.0, 0.1], [-0.1, 0.1, 0.0]])
    vertices = (mesh.vertices @ turns.swapaxes(1, 2) + shifts[:, None]).astype(np.float32)
    return mesh, vertices, film(mesh, vertices, 64)


@pytest.fixture(scope="session")
def tube() -> Mesh:
    """A closed tube along y."""
    return build_tube()


@pytest.fixture(scope="session")
def make_mesh():
    """Build a mesh of one material from points, faces and colours."""
    return build_mesh
