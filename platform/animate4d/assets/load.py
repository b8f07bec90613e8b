"""Any 3D model in: the format is told by content, the model is brought into the canonical frame.

Up and front are those of the format (`normalise.Up`): glTF and OBJ are y-up facing +z, mesh PLY is z-up facing -y as Blender writes it,
captured 3DGS PLY is y-down; `up` overrides this.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from animate4d.assets.asset import AnimationClip, Asset
from animate4d.assets.gltf_scene import GltfScene
from animate4d.assets.normalise import Up, canonical_similarity
from animate4d.core.errors import AssetError
from animate4d.core.hashing import hash_file
from animate4d.core.mesh import Mesh
from animate4d.io.gltf import read_gltf

import numpy as np


def load_asset(path: Path, *, clip: int | str | None = None, time: float = 0.0, up: Up | None = None) -> Asset:
    """Read a 3D model.

    Args:
        path: a GLB or glTF file.
        clip: name or number of the animation whose pose is taken; None for the model's rest pose.
        time: seconds into that clip.
        up: up axis of the file, where it is not the format's own.

    Raises:
        AssetError: the file cannot be read or holds nothing that can be animated.
    """
    path = Path(path)
    return _load_gltf(path, clip, time, up or "y")


def _load_gltf(path: Path, clip: int | str | None, time: float, up: Up) -> Asset:
    document = read_gltf(path)
    scene = GltfScene(document)
    probe = Asset(
        path=path,
        clips=tuple(AnimationClip(name=entry.name, duration=entry.duration) for entry in scene.clips),
        to_canonical=canonical_similarity(np.eye(3), up),
        source_sha256="",
    )
    number = None if clip is None else probe.clip_number(clip)
    world = scene.vertices(number, time)
    try:
        similarity = canonical_similarity(world[np.unique(scene.faces)], up)
    except ValueError as error:
        raise AssetError(f"{path}: the model has no size ({error})") from error
    mesh = Mesh(
        vertices=similarity.apply(world).astype(np.float32),
        faces=scene.faces,
        face_material=scene.face_material,
        materials=scene.materials,
        uv=scene.uv,
        colors=scene.colors,
        part_of_vertex=scene.part_of_vertex,
    )
    return Asset(
        path=path,
        mesh=mesh,
        clips=probe.clips,
        to_canonical=similarity,
        source_sha256=_hash_files([path, *document.siblings]),
        warnings=tuple(scene.warnings),
        parts=scene.parts,
        document=document,
        poser=scene,
    )


def _hash_files(paths: list[Path]) -> str:
    if len(paths) == 1:
        return hash_file(paths[0])
    return hashlib.sha256("".join(hash_file(path) for path in paths).encode()).hexdigest()
