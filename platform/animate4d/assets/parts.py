"""Where each run of an asset's vertices came from in its glTF file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One primitive drawn by one node. Its vertices are the primitive's POSITION entries, in file order.

    Attributes:
        node: index of the glTF node.
        mesh: index of the glTF mesh.
        primitive: position of the primitive in that mesh.
        vertex_start: first row in `Mesh.vertices`.
        vertex_count: number of rows.
        face_start: first row in `Mesh.faces`.
        face_count: number of rows.
        material: index of the glTF material, None for the default one.
        flipped: the node mirrors the primitive, so its faces were turned over to stay counter-clockwise.
    """

    node: int
    mesh: int
    primitive: int
    vertex_start: int
    vertex_count: int
    face_start: int
    face_count: int
    material: int | None
    flipped: bool = False
