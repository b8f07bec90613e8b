"""Colours of surface points: base colour x texture x vertex colour x baked light, in linear light, shown as sRGB.

glTF stores base colour factors and vertex colours linear and textures sRGB, so textures are linearised first, products
and pixel averages are taken in linear light, and the result is encoded once at the end: the look of a glTF viewer.
The light is computed for one pose and stays on the surface when it moves, so a moved pixel of frame 0 keeps its colour
(paper 000 bakes its lights into vertex colours likewise).
"""

from __future__ import annotations

import cv2
import numpy as np

from animate4d.core.mesh import Material, Mesh
from animate4d.views.rays import OpaqueTest

AMBIENT, SKY, KEY, FILL = 0.34, 0.18, 0.50, 0.16
"""Linear strengths. Darkest 0.34 (sRGB 0.62: never black), brightest about 1.0 (white stays white, not more)."""

KEY_DIRECTION = np.array([0.55, 0.45, 0.70])
"""From the upper front left; the front of a canonical object is +x."""

FILL_DIRECTION = np.array([-0.65, -0.60, 0.25])
"""From behind, opposite to the key, so that the back views are not flat."""

SMOOTH_COSINE = 0.7
"""Faces that meet at less than 45 degrees shade as one smooth surface; sharper edges stay edges."""

MAX_VALENCE = 48
"""Corners of more crowded points shade flat: comparing all pairs there is quadratic and would not be seen."""

BLEND_CUTOFF = 0.1
"""Alpha below which a BLEND material lets rays through; above, it is drawn solid: a pixel has one surface point."""

REFLECTANCE = 0.04
"""Share of the light that any non-metal mirrors (glTF 2.0 appendix B): gives black paint a form."""

TO_LINEAR = np.where(
    np.arange(256) <= 0.04045 * 255, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4
).astype(np.float32)
"""sRGB byte -> linear value (IEC 61966-2-1)."""


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Encode linear values as sRGB in [0, 1]; values above 1 are cut."""
    value = np.clip(linear, 0.0, 1.0)
    return np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** np.float32(1 / 2.4) - 0.055)


def bake_shading(mesh: Mesh, vertices: np.ndarray) -> np.ndarray:
    """Light one pose by ambient, sky, key and fill.

    Args:
        mesh: gives the triangles.
        vertices: `[N, 3]` the pose, usually frame 0.

    Returns:
        `[F, 2, 3]` float32 linear light at the three corners of each face; index 0 of the middle axis is the front
        side, 1 the back, because nothing is culled and leaves or flipped faces show their backs.
    """
    normals = corner_normals(vertices, mesh.faces)
    both = np.stack([normals, -normals], axis=1)
    key = np.maximum(both @ (KEY_DIRECTION / np.linalg.norm(KEY_DIRECTION)), 0.0)
    fill = np.maximum(both @ (FILL_DIRECTION / np.linalg.norm(FILL_DIRECTION)), 0.0)
    return (AMBIENT + SKY * (0.5 + 0.5 * both[..., 2]) + KEY * key + FILL * fill).astype(np.float32)


def corner_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return `[F, 3, 3]` float32 unit normals per corner, smoothed over edges flatter than `SMOOTH_COSINE`.

    Vertices at the same place count as one, whatever their index. Faces without area get the normal (0, 0, 1).
    """
    triangles = vertices[faces].astype(np.float64)
    area = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = np.linalg.norm(area, axis=1, keepdims=True)
    unit = np.where(length > 1e-12, area / np.maximum(length, 1e-12), (0.0, 0.0, 1.0))
    # 1e-5 of the canonical diameter: far below any detail, far above float32 noise.
    place = np.unique(np.round(vertices / 1.6e-5).astype(np.int64), axis=0, return_inverse=True)[1].reshape(-1)
    corner_place = place[faces].reshape(-1)
    order = np.argsort(corner_place, kind="stable")
    counts = np.bincount(corner_place)
    starts = np.cumsum(counts) - counts
    # Every corner meets every corner of its place: (corner, other) pairs, flattened.
    valence = np.where(counts <= MAX_VALENCE, counts, 0)[corner_place]
    corner = np.repeat(np.arange(len(corner_place)), valence)
    step = np.arange(len(corner)) - np.repeat(np.cumsum(valence) - valence, valence)
    other = order[starts[corner_place[corner]] + step]
    near = np.einsum("ni,ni->n", unit[corner // 3], unit[other // 3]) > SMOOTH_COSINE
    smooth = np.stack(
        [np.bincount(corner[near], area[other[near] // 3, axis], minlength=len(corner_place)) for axis in range(3)], -1
    )
    length = np.linalg.norm(smooth, axis=1, keepdims=True)
    flat = np.repeat(unit, 3, axis=0)
    return np.where(length > 1e-12, smooth / np.maximum(length, 1e-12), flat).reshape(-1, 3, 3).astype(np.float32)


class Surfacer:
    """Looks up colour and solidity of surface points of one mesh."""

    def __init__(self, mesh: Mesh, shading: np.ndarray, *, texels_per_unit: float) -> None:
        """Prepare tables.

        Args:
            mesh: materials, texture coordinates, vertex colours.
            shading: `[F, 2, 3]` from `bake_shading`.
            texels_per_unit: texture samples per canonical length that the pictures can show; finer textures are
                averaged down to it once, so that small pictures of large textures do not flicker.
        """
        factor = np.array([material.base_color for material in mesh.materials], np.float32)[mesh.face_material]
        corner = mesh.colors[mesh.faces] * factor[:, None]
        self._corner_color = (1 - REFLECTANCE) * corner[:, None, :, :3] * shading[..., None]
        self._corner_mirrored = REFLECTANCE * shading
        self._corner_alpha = corner[..., 3]
        self._mesh = mesh
        self._solid = np.array([material.alpha_mode == "OPAQUE" for material in mesh.materials])[mesh.face_material]
        self._cutoff = np.array(
            [m.alpha_cutoff if m.alpha_mode == "MASK" else BLEND_CUTOFF for m in mesh.materials], np.float32
        )[mesh.face_material]
        self._textures = [
            None if material.texture is None else minified(mesh, number, material, texels_per_unit)
            for number, material in enumerate(mesh.materials)
        ]

    @property
    def opaque(self) -> OpaqueTest | None:
        """Test for `RayCaster`; None when no face can have a hole."""
        return None if self._solid.all() else self._is_solid

    def colors(self, face: np.ndarray, barycentric: np.ndarray, back: np.ndarray) -> np.ndarray:
        """Return `[n, 3]` float32 linear colours.

        Args:
            face: `[n]`.
            barycentric: `[n, 2]`.
            back: `[n]` bool, True where the back side is seen.
        """
        weights = corner_weights(barycentric)
        side = back.astype(np.intp)
        colors = np.einsum("nk,nkc->nc", weights, self._corner_color[face, side])
        for chosen, texture in self._textured(face):
            uv = np.einsum("nk,nkc->nc", weights[chosen], self._mesh.uv[self._mesh.faces[face[chosen]]])
            colors[chosen] *= sample_texture(texture[..., :3], uv)
        return colors + np.einsum("nk,nk->n", weights, self._corner_mirrored[face, side])[:, None]

    def _is_solid(self, face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
        solid = self._solid[face]
        asked = np.flatnonzero(~solid)
        if not len(asked):
            return solid
        face, weights = face[asked], corner_weights(barycentric[asked])
        alpha = np.einsum("nk,nk->n", weights, self._corner_alpha[face])
        for chosen, texture in self._textured(face):
            uv = np.einsum("nk,nkc->nc", weights[chosen], self._mesh.uv[self._mesh.faces[face[chosen]]])
            alpha[chosen] *= sample_texture(texture[..., 3:], uv)[:, 0]
        solid[asked] = alpha >= self._cutoff[face]
        return solid

    def _textured(self, face: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (positions in `face`, texture) for every material with a texture that occurs in `face`."""
        if all(texture is None for texture in self._textures):
            return []
        material = self._mesh.face_material[face]
        pairs = [(np.flatnonzero(material == number), texture) for number, texture in enumerate(self._textures)]
        return [(chosen, texture) for chosen, texture in pairs if texture is not None and len(chosen)]


def corner_weights(barycentric: np.ndarray) -> np.ndarray:
    """Return `[n, 3]` weights of the three corners."""
    return np.concatenate([1.0 - barycentric.sum(-1, keepdims=True), barycentric], axis=-1)


def minified(mesh: Mesh, number: int, material: Material, texels_per_unit: float) -> np.ndarray:
    """Return `[h, w, 4]` float32 texture (linear colour, plain alpha), area-averaged to what pictures can show.

    One reduction per texture, from the median over its faces of texels per surface length: mip mapping with one level.
    """
    assert material.texture is not None
    height, width = material.texture.shape[:2]
    faces = mesh.faces[mesh.face_material == number]
    span = mesh.vertices[faces].astype(np.float64)
    surface = np.linalg.norm(np.cross(span[:, 1] - span[:, 0], span[:, 2] - span[:, 0]), axis=1)
    edge = (mesh.uv[faces] * (width, height)).astype(np.float64)
    first, second = edge[:, 1] - edge[:, 0], edge[:, 2] - edge[:, 0]
    texels = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    usable = (surface > 1e-12) & (texels > 0)
    density = float(np.sqrt(np.median(texels[usable] / surface[usable]))) if usable.any() else 0.0
    reduction = max(1.0, density / texels_per_unit)
    texture = np.concatenate([TO_LINEAR[material.texture[..., :3]], material.texture[..., 3:] / np.float32(255)], -1)
    if reduction < 1.5:
        return texture.astype(np.float32)
    target = (max(1, round(width / reduction)), max(1, round(height / reduction)))
    return cv2.resize(texture.astype(np.float32), target, interpolation=cv2.INTER_AREA).reshape(target[1], target[0], 4)


def sample_texture(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Look up `[h, w, c]` at `uv [n, 2]` bilinearly, repeating beyond [0, 1] (glTF default); (0, 0) is top left."""
    height, width = texture.shape[:2]
    x, y = (uv[:, 0] % 1.0) * width - 0.5, (uv[:, 1] % 1.0) * height - 0.5
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right_share, bottom_share = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
    left, right, top, bottom = left % width, (left + 1) % width, top % height, (top + 1) % height
    upper = texture[top, left] * (1 - right_share) + texture[top, right] * right_share
    lower = texture[bottom, left] * (1 - right_share) + texture[bottom, right] * right_share
    return upper * (1 - bottom_share) + lower * bottom_share
