"""Draco-compressed primitives of glTF (KHR_draco_mesh_compression), through the DracoPy package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from animate4d.core.errors import AssetError


def decode_draco(data: bytes, attributes: dict[str, int], path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Decode one compressed primitive.

    Args:
        data: the Draco bitstream.
        attributes: glTF attribute name -> Draco unique id, as in the extension.
        path: the file, for messages.

    Returns:
        Arrays `[N, n]` by attribute name (as stored, integers not normalised), and triangles `[F, 3]`.

    Raises:
        AssetError: the bitstream is damaged or lacks an attribute.
    """
    import DracoPy

    try:
        mesh = DracoPy.decode(data)
    except (DracoPy.FileTypeException, ValueError, RuntimeError) as error:
        raise AssetError(f"{path}: its Draco-compressed mesh is damaged ({error})") from error
    if not isinstance(mesh, DracoPy.DracoMesh):
        raise AssetError(f"{path}: its Draco-compressed mesh is a point cloud without triangles")
    stored = {entry["unique_id"]: entry["data"] for entry in mesh.attributes}
    missing = [name for name, number in attributes.items() if number not in stored]
    if missing:
        raise AssetError(f"{path}: its Draco-compressed mesh lacks {', '.join(missing)}")
    return {name: np.asarray(stored[number]) for name, number in attributes.items()}, np.asarray(mesh.faces)
