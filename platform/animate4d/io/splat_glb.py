"""Gaussian splats in glTF (KHR_gaussian_splatting): a primitive of points whose attributes carry what a splat needs.

Scales and opacities are linear, quaternions xyzw, harmonics one RGB attribute per coefficient with the signs and the
order of 3DGS files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from animate4d.core.errors import AssetError
from animate4d.core.harmonics import SH0
from animate4d.core.splats import SplatCloud
from animate4d.io.glb_builder import ARRAY_BUFFER, GlbBuilder
from animate4d.io.gltf import GltfDocument, read_accessor
from animate4d.io.splat_file import check_count

EXTENSION = "KHR_gaussian_splatting"
LINEAR_COLORS = "lin_rec709_display"
_KERNEL = "ellipse"


def is_splat_primitive(primitive: dict[str, Any]) -> bool:
    """Whether a primitive is to be drawn as Gaussian splats."""
    return EXTENSION in primitive.get("extensions", {})


def read_splat_primitive(document: GltfDocument, primitive: dict[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return a primitive's splats in the space of its node, and warnings.

    Returns:
        means `[N, 3]`, quats `[N, 4]` wxyz, scales `[N, 3]`, opacities `[N]` and sh `[N, K, 3]`, as stored; colours
        said to be linear become sRGB, without their higher harmonics.

    Raises:
        AssetError: attributes are missing or of the wrong shape, or splats of another kind than ellipses.
    """
    settings = primitive["extensions"][EXTENSION]
    if packed := sorted(settings.get("extensions", {})):
        raise AssetError(f"{document.path}: its splats need the glTF extension {', '.join(packed)}; export without it")
    if settings.get("kernel", _KERNEL) != _KERNEL:
        raise AssetError(f"{document.path}: its splats are of kind {settings['kernel']!r}; only {_KERNEL!r} is known")
    count = document.item("accessors", primitive["attributes"].get("POSITION"))["count"]
    check_count(document.path, count)

    def attribute(name: str, width: int) -> np.ndarray:
        values = read_accessor(document, primitive["attributes"].get(name))
        if values.shape != ((count, width) if width > 1 else (count,)):
            raise AssetError(f"{document.path}: {name} of its splats has shape {values.shape} for {count} splats")
        return values

    names = set(primitive["attributes"])
    needed = ["POSITION", *(f"{EXTENSION}:{name}" for name in ("ROTATION", "SCALE", "OPACITY", "SH_DEGREE_0_COEF_0"))]
    if absent := [name for name in needed if name not in names]:
        raise AssetError(f"{document.path}: its splats lack the attributes {', '.join(absent)}")
    degree = max(k for k in range(4) if f"{EXTENSION}:SH_DEGREE_{k}_COEF_0" in names)
    warnings = []
    linear = settings.get("colorSpace") == LINEAR_COLORS
    if linear and degree:
        warnings.append("its splats have linear colours: converted to sRGB without the higher harmonics")
        degree = 0
    coefficients = [f"{EXTENSION}:SH_DEGREE_{k}_COEF_{n}" for k in range(degree + 1) for n in range(2 * k + 1)]
    if absent := [name for name in coefficients if name not in names]:
        raise AssetError(f"{document.path}: its splats lack the attributes {', '.join(absent)}")
    sh = np.stack([attribute(name, 3) for name in coefficients], axis=1)
    if linear:
        light = (0.5 + SH0 * sh).clip(0, 1)
        sh = (np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) - 0.5) / SH0
    values = {
        "means": attribute("POSITION", 3),
        "quats": attribute(f"{EXTENSION}:ROTATION", 4)[:, [3, 0, 1, 2]],
        "scales": attribute(f"{EXTENSION}:SCALE", 3),
        "opacities": attribute(f"{EXTENSION}:OPACITY", 1),
        "sh": sh,
    }
    return values, warnings


def write_splat_glb(path: Path, splats: SplatCloud, name: str) -> None:
    """Write splats of glTF's frame (y up) as a GLB; viewers without the extension show coloured points.

    The extension is listed as used, not as required, for their sake.
    """
    builder = GlbBuilder()
    builder.document["extensionsUsed"] = [EXTENSION]
    points = np.concatenate([0.5 + SH0 * splats.sh[:, 0], splats.opacities[:, None]], axis=1)
    arrays = {
        "POSITION": splats.means,
        f"{EXTENSION}:ROTATION": splats.quats[:, [1, 2, 3, 0]],
        f"{EXTENSION}:SCALE": splats.scales,
        f"{EXTENSION}:OPACITY": splats.opacities,
    }
    for degree in range(round(np.sqrt(splats.sh.shape[1]))):
        for number in range(2 * degree + 1):
            arrays[f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{number}"] = splats.sh[:, degree**2 + number]
    attributes = {
        key: builder.add_accessor(values.astype(np.float32), target=ARRAY_BUFFER, bounds=key == "POSITION")
        for key, values in arrays.items()
    }
    colors = np.round(255 * points.clip(0, 1)).astype(np.uint8)
    attributes["COLOR_0"] = builder.add_accessor(colors, target=ARRAY_BUFFER, normalized=True)
    settings = {"kernel": _KERNEL, "colorSpace": "srgb_rec709_display"}
    primitive = {"attributes": attributes, "mode": 0, "extensions": {EXTENSION: settings}}
    mesh = builder.append("meshes", {"name": name, "primitives": [primitive]})
    node = builder.append("nodes", {"name": name, "mesh": mesh})
    builder.append("scenes", {"nodes": [node]})
    builder.document["scene"] = 0
    builder.save(Path(path))
