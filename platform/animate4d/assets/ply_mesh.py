"""Triangle meshes in PLY files. Colours are display values (sRGB), as scanners and modelling tools write them."""

from __future__ import annotations

import numpy as np

from animate4d.assets.textures import srgb_to_linear
from animate4d.core.errors import AssetError
from animate4d.core.mesh import Material, Mesh
from animate4d.io.ply import PlyFile

_UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))


def mesh_of(ply: PlyFile) -> Mesh:
    """Return the mesh of a PLY, vertices as in the file (float64); polygons become triangle fans.

    Raises:
        AssetError: no vertices, no faces, an index out of range, or positions that are not finite.
    """
    path = ply.path
    rows = ply.elements.get("vertex", np.zeros(0))
    names = rows.dtype.names or ()
    if not {"x", "y", "z"} <= set(names) or len(rows) == 0:
        raise AssetError(f"{path}: this PLY holds no vertices")
    vertices = np.stack([rows[axis].astype(np.float64) for axis in "xyz"], axis=1)
    if not np.isfinite(vertices).all():
        bad = int((~np.isfinite(vertices)).any(1).sum())
        raise AssetError(f"{path}: {bad} vertex positions are NaN or infinite; repair and re-export the model")
    faces = _faces(ply, len(vertices))
    if len(faces) == 0:
        raise AssetError(f"{path}: holds no triangles that could be drawn (a point cloud needs a surface first)")
    uv = np.zeros((len(vertices), 2), np.float32)
    for u, v in _UV_NAMES:
        if u in names and v in names:
            uv = np.nan_to_num(np.stack([rows[u], 1.0 - rows[v]], axis=1)).astype(np.float32)
    return Mesh(
        vertices=vertices,
        faces=faces.astype(np.int32),
        face_material=np.zeros(len(faces), np.int32),
        materials=(Material(double_sided=True),),
        uv=uv,
        colors=_colors(rows),
        part_of_vertex=np.zeros(len(vertices), np.int32),
    )


def _faces(ply: PlyFile, count: int) -> np.ndarray:
    """Return `[F, 3]` triangles of the face lists, fans of their polygons."""
    found = [ply.lists.get(("face", name)) for name in ("vertex_indices", "vertex_index")]
    polygons = next((values for values in found if values is not None), None)
    if polygons is None:
        return np.zeros((0, 3), np.int64)
    corners = polygons.values.astype(np.int64)
    if corners.size and not 0 <= int(corners.min()) <= int(corners.max()) < count:
        raise AssetError(f"{ply.path}: a face refers to a vertex outside 0..{count - 1}")
    starts = np.concatenate([[0], np.cumsum(polygons.counts)[:-1]]) if len(polygons.counts) else np.zeros(0, np.int64)
    fans = np.maximum(polygons.counts - 2, 0)
    first = np.repeat(starts, fans)
    step = np.arange(int(fans.sum())) - np.repeat(np.cumsum(fans) - fans, fans)
    return np.stack([corners[first], corners[first + step + 1], corners[first + step + 2]], axis=1)


def _colors(rows: np.ndarray) -> np.ndarray:
    """Return `[N, 4]` float32 linear colours; ones where there are none."""
    names = rows.dtype.names or ()
    colors = np.ones((len(rows), 4), np.float32)
    for channels in (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")):
        if set(channels) <= set(names):
            colors[:, :3] = srgb_to_linear(np.stack([_unit_range(rows[name]) for name in channels], axis=1))
            break
    if "alpha" in names:
        colors[:, 3] = _unit_range(rows["alpha"])
    return colors


def _unit_range(values: np.ndarray) -> np.ndarray:
    """Scale integers to [0, 1] by their type; floats are taken as they are."""
    if values.dtype.kind in "iu":
        return (values / float(np.iinfo(values.dtype).max)).clip(0.0, 1.0)
    return np.nan_to_num(values.astype(np.float64)).clip(0.0, 1.0)
