"""Materials of a glTF file as base colours and textures; each image is decoded once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from animate4d.assets.textures import TextureDecoder
from animate4d.core.errors import AssetError
from animate4d.core.mesh import Material
from animate4d.io.gltf import GltfDocument, view_bytes


class MaterialReader:
    """Turns glTF materials into `Material`s, in the order they are first asked for.

    Attributes:
        materials: those asked for so far.
    """

    def __init__(self, document: GltfDocument, warnings: list[str]) -> None:
        self.materials: list[Material] = []
        self._document = document
        self._warnings = warnings
        self._decoder = TextureDecoder()
        self._numbers: dict[int | None, int] = {}
        self._images: dict[int, np.ndarray | None] = {}

    def number(self, index: int | None) -> int:
        """Return the position in `materials` of glTF material `index` (None: the default white one)."""
        if index not in self._numbers:
            self._numbers[index] = len(self.materials)
            self.materials.append(Material() if index is None else self._read(index))
        return self._numbers[index]

    def uv(self, index: int | None, attributes: dict[str, np.ndarray]) -> np.ndarray:
        """Return `[N, 2]` float32 texture coordinates, KHR_texture_transform applied; zeros where there are none."""
        count = len(attributes["POSITION"])
        slot = None if index is None else _base(self._document.item("materials", index))[1]
        transform = {} if slot is None else slot.get("extensions", {}).get("KHR_texture_transform", {})
        channel = transform.get("texCoord", (slot or {}).get("texCoord", 0))
        stored = attributes.get(f"TEXCOORD_{channel}")
        if stored is None:
            return np.zeros((count, 2), np.float32)
        uv = stored.astype(np.float64)
        if transform:
            angle = float(transform.get("rotation", 0.0))
            cosine, sine = math.cos(angle), math.sin(angle)
            scaled = uv * np.array(transform.get("scale", (1.0, 1.0)))
            uv = scaled @ np.array([[cosine, -sine], [sine, cosine]]) + np.array(transform.get("offset", (0.0, 0.0)))
        return np.nan_to_num(uv, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)

    def _read(self, index: int) -> Material:
        material = self._document.item("materials", index)
        factor, slot = _base(material)
        texture = None if slot is None else self._texture(slot["index"])
        color = tuple(min(max(float(value), 0.0), 1.0) for value in factor)
        if len(color) != 4 or any(math.isnan(value) for value in color):
            raise AssetError(f"{self._document.path}: materials[{index}] has the base colour {factor}")
        mode = str(material.get("alphaMode", "OPAQUE"))
        return Material(
            name=str(material.get("name", "")),
            base_color=(color[0], color[1], color[2], color[3]),
            texture=texture,
            double_sided=bool(material.get("doubleSided", False)),
            alpha_mode=mode if mode in ("MASK", "BLEND") else "OPAQUE",
            alpha_cutoff=float(material.get("alphaCutoff", 0.5)),
        )

    def _texture(self, index: int) -> np.ndarray | None:
        texture = self._document.item("textures", index)
        source = texture.get("extensions", {}).get("EXT_texture_webp", {}).get("source", texture.get("source"))
        if source is None:
            self._warnings.append(f"textures[{index}] is in a format that cannot be decoded: drawn without it")
            return None
        if source not in self._images:
            self._images[source] = self._image(source)
        return self._images[source]

    def _image(self, index: int) -> np.ndarray | None:
        document = self._document
        image = document.item("images", index)
        if "bufferView" in image:
            data = view_bytes(document, image["bufferView"])
        elif "uri" in image:
            if document.is_missing(image["uri"]):
                self._warnings.append(f"the texture {image['uri'][:80]} is missing: drawn without it")
                return None
            data = document.read_uri(image["uri"])
        else:
            raise AssetError(f"{document.path}: images[{index}] has neither a uri nor a bufferView")
        return self._decoder.decode(data, f"{document.path}: images[{index}]")


def _base(material: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """Return base colour factor and texture slot; the older diffuse pair where specular-glossiness is all there is."""
    older = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
    if older is not None and "pbrMetallicRoughness" not in material:
        return older.get("diffuseFactor", (1.0, 1.0, 1.0, 1.0)), older.get("diffuseTexture")
    metal = material.get("pbrMetallicRoughness", {})
    return metal.get("baseColorFactor", (1.0, 1.0, 1.0, 1.0)), metal.get("baseColorTexture")
