"""Write a figure as a skinned GLB: painted primitives, one skin, named clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from animate4d.assets.figures import Figure, Joint, Part
from animate4d.assets.paint import PALETTE, linear, pattern_share, texture_png
from animate4d.assets.verbs import Keys
from animate4d.io.glb_builder import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, GlbBuilder


@dataclass(frozen=True, kw_only=True, slots=True)
class Paint:
    """How a figure is coloured.

    Attributes:
        main: sRGB of the colour that captions name.
        accent: sRGB of the second colour.
        pattern: a key of `paint.PATTERNS`.
        grain: length of one pattern tile in the object's units.
        textured: pattern as a PNG texture; else as vertex colours.
    """

    main: tuple[float, float, float]
    accent: tuple[float, float, float]
    pattern: str
    grain: float
    textured: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedClip:
    """One animation: keyframe times `[K]` in seconds and the poses there."""

    name: str
    times: np.ndarray
    keys: Keys


def write_figure(
    path: Path, figure: Figure, paint: Paint, clips: Sequence[NamedClip], rng: np.random.Generator
) -> None:
    """Write a painted, skinned, animated GLB that validates without errors or warnings."""
    builder = GlbBuilder()
    main = [part for part in figure.parts if part.role == "main"]
    rest = [part for part in figure.parts if part.role != "main"]
    primitives = []
    if paint.textured and main:
        material = _textured_material(builder, paint, rng)
        primitives.append(_primitive(builder, figure, main, paint, material, textured=True))
    else:
        rest = figure.parts
    if rest:
        material = builder.append("materials", _material("painted"))
        primitives.append(_primitive(builder, figure, rest, paint, material, textured=False))
    mesh = builder.append("meshes", {"name": figure.noun, "primitives": primitives})
    first_joint, skin = add_skeleton(builder, figure.joints)
    body = builder.append("nodes", {"name": figure.noun, "mesh": mesh, "skin": skin})
    builder.append("scenes", {"nodes": [first_joint, body]})
    builder.document["scene"] = 0
    add_clips(builder, figure.joints, first_joint, clips)
    builder.save(path)


def add_skeleton(builder: GlbBuilder, joints: Sequence[Joint]) -> tuple[int, int]:
    """Append joint nodes (unrotated at rest) and their skin; returns the first joint's node index and the skin's."""
    first = len(builder.document.get("nodes", []))
    for index, joint in enumerate(joints):
        offset = joint.position - (joints[joint.parent].position if joint.parent >= 0 else 0.0)
        node = {"name": joint.name, "translation": offset.tolist()}
        children = [first + child for child, other in enumerate(joints) if other.parent == index]
        if children:
            node["children"] = children
        builder.append("nodes", node)
    inverse = np.repeat(np.eye(4, dtype=np.float32)[None], len(joints), axis=0)
    inverse[:, 3, :3] = -np.stack([joint.position for joint in joints])
    skin = builder.append(
        "skins",
        {
            "inverseBindMatrices": builder.add_accessor(inverse),
            "joints": list(range(first, first + len(joints))),
            "skeleton": first,
        },
    )
    return first, skin


def add_clips(builder: GlbBuilder, joints: Sequence[Joint], first_joint: int, clips: Sequence[NamedClip]) -> None:
    """Append animations, leaving out what never moves."""
    for clip in clips:
        channels: list[tuple[int, str, np.ndarray]] = []
        for index in range(len(joints)):
            for path, values in (
                ("translation", clip.keys.translations[:, index]),
                ("rotation", clip.keys.rotations[:, index]),
                ("scale", clip.keys.scales[:, index]),
            ):
                if np.ptp(values, axis=0).max() > 1e-6:
                    channels.append((first_joint + index, path, values))
        builder.add_animation(clip.name, clip.times, channels)


def _material(name: str) -> dict:
    return {"name": name, "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.8}}


def _textured_material(builder: GlbBuilder, paint: Paint, rng: np.random.Generator) -> int:
    image = builder.add_image(
        texture_png(paint.pattern, np.array(paint.main), np.array(paint.accent), rng), "image/png", paint.pattern
    )
    sampler = builder.append("samplers", {"magFilter": 9729, "minFilter": 9987, "wrapS": 10497, "wrapT": 10497})
    texture = builder.append("textures", {"sampler": sampler, "source": image})
    material = _material(paint.pattern)
    material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": texture}
    return builder.append("materials", material)


def _primitive(
    builder: GlbBuilder, figure: Figure, parts: Sequence[Part], paint: Paint, material: int, *, textured: bool
) -> dict:
    starts = np.cumsum([0, *(len(part.shape.vertices) for part in parts)])
    vertices = np.concatenate([part.shape.vertices for part in parts])
    faces = np.concatenate([part.shape.faces + start for part, start in zip(parts, starts[:-1], strict=True)])
    heights = figure.vertices()[:, 1]
    low, high = heights.min(), heights.max()
    attributes = {
        "POSITION": builder.add_accessor(vertices.astype(np.float32), target=ARRAY_BUFFER, bounds=True),
        "NORMAL": builder.add_accessor(
            np.concatenate([part.shape.normals() for part in parts]).astype(np.float32), target=ARRAY_BUFFER
        ),
    }
    if textured:
        # A gradient spans the whole object once; other patterns tile.
        height = (vertices[:, 1] - low) / max(high - low, 1e-9)
        uv = np.concatenate([_whole_tiles(part, paint.grain) for part in parts])
        if paint.pattern == "gradient":
            uv = np.stack([uv[:, 0], 0.02 + 0.96 * height], 1)
        attributes["TEXCOORD_0"] = builder.add_accessor(uv.astype(np.float32), target=ARRAY_BUFFER)
    else:
        colors = np.concatenate([_vertex_colors(part, paint, low, high) for part in parts])
        packed = np.concatenate([colors, np.ones((len(colors), 1))], 1)
        attributes["COLOR_0"] = builder.add_accessor(
            (packed * 65535).round().astype(np.uint16), target=ARRAY_BUFFER, normalized=True
        )
    attributes["JOINTS_0"] = builder.add_accessor(
        np.concatenate([part.joints for part in parts]).astype(np.uint8), target=ARRAY_BUFFER
    )
    attributes["WEIGHTS_0"] = builder.add_accessor(
        np.concatenate([part.weights for part in parts]).astype(np.float32), target=ARRAY_BUFFER
    )
    indices = builder.add_accessor(faces.ravel().astype(np.uint16), target=ELEMENT_ARRAY_BUFFER)
    return {"attributes": attributes, "indices": indices, "material": material}


def _whole_tiles(part: Part, grain: float) -> np.ndarray:
    """Texture coordinates in tiles, with a whole number of tiles around so that the seam does not show."""
    uv = part.shape.uv / grain
    around = uv[:, 0].max()
    return uv * [max(1.0, np.round(around)) / max(around, 1e-9), 1.0]


def _vertex_colors(part: Part, paint: Paint, low: float, high: float) -> np.ndarray:
    first, second = np.array(paint.main), np.array(paint.accent)
    if part.role == "main":
        uv = _whole_tiles(part, paint.grain)
        height = (part.shape.vertices[:, 1] - low) / max(high - low, 1e-9)
        share = pattern_share(paint.pattern, uv[:, 0] + 1e-3, uv[:, 1] + 1e-3, height)[:, None]
        return linear(first * (1 - share) + second * share)
    named = {"accent": second, "dark": 0.55 * first, "light": 0.5 + 0.5 * first}
    color = named[part.role] if part.role in named else np.array(PALETTE[part.role])
    return np.repeat(linear(color)[None], len(part.shape.vertices), axis=0)
