"""Any 3D model in: the format is told by content, the model is brought into the canonical frame.

Up and front are those of the format (`normalise.Up`): glTF, OBJ and SPZ are y-up facing +z; mesh PLY is z-up facing -y,
as Blender writes it; `.splat` and 3DGS PLY are y-down, a PLY unless its header holds `comment up y` or the like. An
explicit `up` wins.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np

from animate4d.assets.asset import AnimationClip, Asset, StillPoser
from animate4d.assets.gltf_scene import GltfScene
from animate4d.assets.normalise import UP_ROTATIONS, Up
from animate4d.assets.obj import read_obj
from animate4d.assets.ply_mesh import mesh_of
from animate4d.assets.sniff import detect_format
from animate4d.assets.splat_asset import splat_asset
from animate4d.assets.splat_scene import is_splat_scene, splats_of_scene
from animate4d.core.errors import AssetError
from animate4d.core.hashing import hash_file
from animate4d.core.mesh import Mesh, Similarity
from animate4d.io.gltf import read_gltf
from animate4d.io.ply import is_splat_ply, read_ply, splats_of
from animate4d.io.splat import read_splat
from animate4d.io.spz import read_spz


def load_asset(path: Path, *, clip: int | str | None = None, time: float = 0.0, up: Up | None = None) -> Asset:
    """Read a 3D model: GLB or glTF (triangles or Gaussian splats), OBJ, PLY (both), SPZ or SPLAT.

    Args:
        path: the file; siblings it names are read from its own folder only.
        clip: name or number of the animation whose pose becomes `Asset.mesh` and fixes the normalisation; None for the
            rest pose.
        time: seconds into that clip.
        up: up axis of the file, where it is not the format's own.

    Raises:
        AssetError: the file cannot be read or holds nothing that can be animated, or there is no such clip.
    """
    path = Path(path)
    if up is not None and up not in UP_ROTATIONS:
        raise AssetError(f"{path}: up axis {up!r} is unknown; give one of {', '.join(UP_ROTATIONS)}")
    kind = detect_format(path)
    try:
        with np.errstate(all="ignore"):  # overflow and NaN are found by the checks for finite numbers
            if kind == "gltf":
                asset = _load_gltf(path, up or "y")
            elif kind == "obj":
                asset = _load_obj(path, up or "y")
            elif kind == "ply":
                asset = _load_ply(path, up)
            else:
                asset = splat_asset(read_spz(path) if kind == "spz" else read_splat(path), up)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, struct.error) as error:
        # A hostile or broken file can hold the wrong kind of value in any of its fields.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise AssetError(f"{path}: this {kind} file is malformed ({reason}); re-export the model") from error
    return asset.posed(clip, time)


def _load_gltf(path: Path, up: Up) -> Asset:
    document = read_gltf(path)
    if is_splat_scene(document):
        asset = splat_asset(splats_of_scene(document), up)
        return replace(asset, source_sha256=_hash_files([path, *document.siblings]))
    scene = GltfScene(document)
    mesh = Mesh(
        vertices=np.zeros((len(scene.uv), 3), np.float32),
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
        clips=tuple(AnimationClip(name=entry.name, duration=entry.duration) for entry in scene.clips),
        to_canonical=Similarity(rotation=UP_ROTATIONS[up]),
        source_sha256=_hash_files([path, *document.siblings]),
        warnings=tuple(dict.fromkeys(scene.warnings)),
        parts=scene.parts,
        document=document,
        poser=scene,
    )


def _load_obj(path: Path, up: Up) -> Asset:
    obj = read_obj(path)
    return Asset(
        path=path,
        mesh=obj.mesh,
        to_canonical=Similarity(rotation=UP_ROTATIONS[up]),
        source_sha256=_hash_files([path, *obj.siblings]),
        warnings=tuple(obj.warnings),
        poser=StillPoser(obj.mesh.vertices),
    )


def _load_ply(path: Path, up: Up | None) -> Asset:
    ply = read_ply(path)
    if is_splat_ply(ply):
        return splat_asset(splats_of(ply), up)
    mesh = mesh_of(ply)
    return Asset(
        path=path,
        mesh=mesh,
        to_canonical=Similarity(rotation=UP_ROTATIONS[up or "z"]),
        source_sha256=hash_file(path),
        poser=StillPoser(mesh.vertices),
    )


def _hash_files(paths: list[Path]) -> str:
    """Hash one file, or several as the hash of their hashes."""
    if len(paths) == 1:
        return hash_file(paths[0])
    return hashlib.sha256("".join(hash_file(path) for path in paths).encode()).hexdigest()
