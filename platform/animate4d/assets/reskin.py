"""Write somebody's model again to move otherwise: same surfaces, materials and names, new skin or shapes.

Positions are baked in world space in the pose of `Asset.mesh`, so what is written needs no node transforms. Output is
y-up as glTF demands: models from glTF stay in their own frame, others are turned upright if their format is not y-up.
"""

from __future__ import annotations

import copy
import io
from typing import Any, Protocol

import numpy as np
from PIL import Image

from animate4d.assets.asset import Asset
from animate4d.assets.normalise import UP_ROTATIONS
from animate4d.assets.normals import carried_normals, fit_similarity, smooth_normals
from animate4d.assets.parts import Part
from animate4d.core.errors import AssetError
from animate4d.core.mesh import Material, Mesh, Similarity
from animate4d.io.glb_builder import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, GlbBuilder
from animate4d.io.gltf import GltfDocument, read_primitive, view_bytes


def output_frame(asset: Asset) -> Similarity:
    """Return the similarity from the frame of the file we write (y-up, the user's units) to the canonical frame."""
    if asset.document is not None:
        return asset.to_canonical
    return Similarity(
        scale=asset.to_canonical.scale, rotation=UP_ROTATIONS["y"], translation=asset.to_canonical.translation
    )


class Binding(Protocol):
    """What makes a surface move.

    Attributes:
        node: properties of the nodes that draw it.
    """

    node: dict[str, Any]

    def attributes(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Return the vertex attributes that these rows of the asset's vertices get."""
        ...

    def targets(self, rows: np.ndarray | slice) -> list[dict[str, np.ndarray]]:
        """Return the morph targets of these rows."""
        ...


class SkinBinding:
    """Surfaces bound to a skin."""

    def __init__(self, skin: int, joints: np.ndarray, weights: np.ndarray) -> None:
        """Take joints `[N, 4]` and weights `[N, 4]` whose rows sum to 1; joints of zero weight become 0."""
        self.node: dict[str, Any] = {"skin": skin}
        kind = np.uint8 if joints.max(initial=0) < 256 else np.uint16
        self._joints = np.where(weights > 0, joints, 0).astype(kind)
        self._weights = exact_weights(weights)

    def attributes(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Return joints and weights."""
        return {"JOINTS_0": self._joints[rows], "WEIGHTS_0": self._weights[rows]}

    def targets(self, rows: np.ndarray | slice) -> list[dict[str, np.ndarray]]:
        """Return none."""
        return []


class ShapeBinding:
    """Surfaces that blend between shapes."""

    def __init__(self, shapes: np.ndarray, normals: np.ndarray) -> None:
        """Take displacements `[M, N, 3]` of positions and of normals, in the frame that is written."""
        self.node: dict[str, Any] = {}
        self._shapes, self._normals = shapes.astype(np.float32), normals.astype(np.float32)

    def attributes(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Return none."""
        return {}

    def targets(self, rows: np.ndarray | slice) -> list[dict[str, np.ndarray]]:
        """Return a target per shape."""
        return [
            {"POSITION": places[rows], "NORMAL": turns[rows]}
            for places, turns in zip(self._shapes, self._normals, strict=True)
        ]


def append_surfaces(builder: GlbBuilder, asset: Asset, binding: Binding) -> list[int]:
    """Append the asset's surfaces.

    Args:
        builder: receives materials, textures, meshes and one node per drawn mesh.
        asset: a mesh asset.
        binding: to what they are bound.

    Returns:
        Indices of the appended nodes, to be listed in a scene.

    Raises:
        AssetError: the asset is a splat cloud.
    """
    if asset.mesh is None:
        raise AssetError(
            f"{asset.path}: is a cloud of splats and has no surface to write as GLB; ask for splats instead"
        )
    positions = output_frame(asset).invert(asset.mesh.vertices.astype(np.float64)).astype(np.float32)
    if asset.document is None:
        return _append_plain(builder, asset, asset.mesh, positions, binding)
    _copy_materials(builder, asset.document)
    nodes: list[int] = []
    drawn: list[tuple[int, list[Part]]] = []
    for part in asset.parts:
        if not drawn or drawn[-1][0] != part.node:
            drawn.append((part.node, []))
        drawn[-1][1].append(part)
    for node, parts in drawn:
        source = asset.document.json["nodes"][node]
        mesh_source = asset.document.json["meshes"][parts[0].mesh]
        mesh = {
            "primitives": [_primitive(builder, asset.document, asset.mesh, part, positions, binding) for part in parts]
        }
        names = {"name": source.get("name", mesh_source.get("name"))}
        mesh |= {"name": mesh_source["name"]} if "name" in mesh_source else {}
        index = builder.append("meshes", mesh)
        own = {"mesh": index, **binding.node}
        nodes.append(builder.append("nodes", {key: value for key, value in names.items() if value} | own))
    return nodes


def exact_weights(weights: np.ndarray) -> np.ndarray:
    """Return `[N, K]` float32 weights whose rows sum to 1 as closely as float32 can."""
    wide = np.maximum(weights.astype(np.float64), 0)
    narrow = (wide / wide.sum(1, keepdims=True)).astype(np.float32)
    rows, largest = np.arange(len(narrow)), narrow.argmax(1)
    narrow[rows, largest] += (1.0 - narrow.astype(np.float64).sum(1)).astype(np.float32)
    return narrow


def _primitive(
    builder: GlbBuilder,
    document: GltfDocument,
    mesh: Mesh,
    part: Part,
    positions: np.ndarray,
    binding: Binding,
) -> dict[str, Any]:
    rows = slice(part.vertex_start, part.vertex_start + part.vertex_count)
    faces = mesh.faces[part.face_start : part.face_start + part.face_count].astype(np.int64) - part.vertex_start
    source = read_primitive(document, document.json["meshes"][part.mesh]["primitives"][part.primitive])
    arrays: dict[str, np.ndarray] = {"POSITION": positions[rows]}
    if "NORMAL" in source:
        carry = fit_similarity(source["POSITION"], positions[rows], mirrored=part.flipped)
        arrays["NORMAL"] = carried_normals(source["POSITION"], source["NORMAL"], positions[rows], faces, carry)
        if carry is not None and "TANGENT" in source:
            tangent = np.array(source["TANGENT"], np.float64)
            tangent[:, :3] = tangent[:, :3] @ carry.T
            tangent[:, :3] /= np.maximum(np.linalg.norm(tangent[:, :3], axis=1, keepdims=True), 1e-12)
            tangent[:, 3] = np.where(tangent[:, 3] < 0, -1, 1) * (-1 if part.flipped else 1)
            arrays["TANGENT"] = tangent.astype(np.float32)
    for name in sorted(source):
        if name.startswith("TEXCOORD_"):
            arrays[name] = source[name].astype(np.float32)
        elif name.startswith("COLOR_"):
            whole = np.iinfo(source[name].dtype).max if source[name].dtype.kind in "ui" else 1
            arrays[name] = np.clip(source[name].astype(np.float32) / whole, 0, 1)
    primitive = _surface(builder, arrays, faces, binding, rows)
    if part.material is not None:
        primitive["material"] = part.material
    return primitive


def _surface(
    builder: GlbBuilder, arrays: dict[str, np.ndarray], faces: np.ndarray, binding: Binding, rows: np.ndarray | slice
) -> dict[str, Any]:
    def stored(entries: dict[str, np.ndarray]) -> dict[str, int]:
        return {
            name: builder.add_accessor(values, target=ARRAY_BUFFER, bounds=name == "POSITION")
            for name, values in entries.items()
        }

    attributes = stored(arrays | binding.attributes(rows))
    # The largest 16-bit index is reserved for restarting strips.
    kind = np.uint16 if faces.max(initial=0) < 65535 else np.uint32
    indices = builder.add_accessor(faces.ravel().astype(kind), target=ELEMENT_ARRAY_BUFFER)
    primitive: dict[str, Any] = {"attributes": attributes, "indices": indices}
    # A target may only name attributes that the surface has.
    targets = [stored({name: values for name, values in t.items() if name in arrays}) for t in binding.targets(rows)]
    return primitive | ({"targets": targets} if targets else {})


def _copy_materials(builder: GlbBuilder, document: GltfDocument) -> None:
    """Copy materials, textures, samplers and image bytes unchanged, so that their indices stay valid."""
    for image in document.json.get("images", []):
        if "bufferView" in image:
            data = view_bytes(document, image["bufferView"])
        elif document.is_missing(image["uri"]):
            # The reader has warned; a white pixel keeps the material valid and shows its colour factor.
            data = _png(np.full((1, 1, 4), 255, np.uint8))
            image = {key: value for key, value in image.items() if key != "mimeType"}
        else:
            data = document.read_uri(image["uri"])
        kept = {key: value for key, value in image.items() if key not in ("uri", "bufferView")}
        index = builder.add_image(data, image.get("mimeType") or _mime_type(data))
        builder.document["images"][index] |= {**kept, "mimeType": builder.document["images"][index]["mimeType"]}
    used: set[str] = set()
    for kind in ("materials", "textures", "samplers"):
        if document.json.get(kind) and (kind != "samplers" or document.json.get("textures")):
            builder.document[kind] = copy.deepcopy(document.json[kind])
    for kind in ("materials", "textures", "samplers", "images"):
        _collect_extensions(builder.document.get(kind, []), used)
    for kind in ("extensionsUsed", "extensionsRequired"):
        names = [name for name in document.json.get(kind, []) if name in used]
        if names:
            builder.document[kind] = names
    if "copyright" in document.json["asset"]:
        builder.document["asset"]["copyright"] = document.json["asset"]["copyright"]


def _collect_extensions(value: Any, found: set[str]) -> None:
    if isinstance(value, dict):
        if isinstance(value.get("extensions"), dict):
            found.update(value["extensions"])
        for entry in value.values():
            _collect_extensions(entry, found)
    elif isinstance(value, list):
        for entry in value:
            _collect_extensions(entry, found)


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _mime_type(data: bytes) -> str:
    if data[:3] == b"\xff\xd8\xff":
        return "image/jpeg"
    return "image/webp" if data[8:12] == b"WEBP" else "image/png"


def _append_plain(
    builder: GlbBuilder,
    asset: Asset,
    mesh: Mesh,
    positions: np.ndarray,
    binding: Binding,
) -> list[int]:
    """Append a mesh that did not come from glTF: one primitive per material, materials made from `Mesh`."""
    arrays = {"POSITION": positions, "NORMAL": smooth_normals(positions, mesh.faces)}
    if any(material.texture is not None for material in mesh.materials):
        arrays["TEXCOORD_0"] = mesh.uv.astype(np.float32)
    if (mesh.colors != 1).any():
        arrays["COLOR_0"] = mesh.colors.astype(np.float32)
    primitives: list[dict[str, Any]] = []
    for number, material in enumerate(mesh.materials):
        faces = mesh.faces[mesh.face_material == number]
        if not len(faces):
            continue
        rows, numbers = np.unique(faces, return_inverse=True)
        own = {name: values[rows] for name, values in arrays.items()}
        primitive = _surface(builder, own, numbers.reshape(faces.shape), binding, rows)
        primitives.append(primitive | {"material": _plain_material(builder, material)})
    index = builder.append("meshes", {"name": asset.name, "primitives": primitives})
    return [builder.append("nodes", {"name": asset.name, "mesh": index, **binding.node})]


def _plain_material(builder: GlbBuilder, material: Material) -> int:
    surface: dict[str, Any] = {
        "baseColorFactor": list(map(float, material.base_color)),
        "metallicFactor": 0.0,
        "roughnessFactor": 0.9,
    }
    if material.texture is not None:
        texture = builder.append("textures", {"source": builder.add_image(_png(material.texture), "image/png")})
        surface["baseColorTexture"] = {"index": texture}
    entry: dict[str, Any] = {"pbrMetallicRoughness": surface, "doubleSided": material.double_sided}
    if material.name:
        entry["name"] = material.name
    if material.alpha_mode != "OPAQUE":
        entry["alphaMode"] = material.alpha_mode
    if material.alpha_mode == "MASK":
        entry["alphaCutoff"] = material.alpha_cutoff
    return builder.append("materials", entry)
