"""Rig what has no skeleton: a spine of joints with smooth weights, driven by the whole-body verbs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from animate4d.assets.figure_glb import NamedClip, add_clips, add_skeleton
from animate4d.assets.figures import Figure, Part, chain_weights
from animate4d.assets.load import load_asset
from animate4d.assets.props import Prop
from animate4d.assets.reskin import SkinBinding, append_surfaces, output_frame
from animate4d.assets.verbs import AMPLITUDES, WHOLE_BODY_VERBS, Spine, own_keys, spine_of, whole_body_keys
from animate4d.core.errors import AssetError, ConfigError
from animate4d.io.glb_builder import GlbBuilder

KEYFRAMES = 25
"""Keyframes a clip: linear interpolation between 24 intervals stays within 1 % of a sine of one or two periods."""

SPINE_JOINTS = 6
"""Joints along a spine; blended linearly they follow an arc of 0.9 rad within 1 % of its length."""

_DOUBLED = {"spin", "swim", "flap", "wag", "nod"}
"""Verbs whose last letter doubles before -ing."""


def animate_static(
    path: Path, out: Path, *, verbs: Sequence[str] = WHOLE_BODY_VERBS, seed: int = 0, clips: int | None = None
) -> list[tuple[str, str, str]]:
    """Rig somebody's static model and write it with whole-body verbs as clips: training data from props.

    Materials, textures and names are kept; animations the file may have are dropped.

    Args:
        path: any mesh `load_asset` reads.
        out: the GLB to write.
        verbs: names from WHOLE_BODY_VERBS.
        seed: draws strength and duration of each clip, together with the file's content.
        clips: number of clips; each verb once when None, verbs repeat with other strengths beyond that.

    Returns:
        Rows (file, clip, caption) for a captions table.

    Raises:
        AssetError: the file cannot be read or is a cloud of splats.
        ConfigError: an unknown verb.
    """
    unknown = sorted(set(verbs) - set(WHOLE_BODY_VERBS))
    if unknown or not verbs:
        raise ConfigError(f"verbs: unknown {', '.join(unknown)}; choose from {', '.join(WHOLE_BODY_VERBS)}")
    asset = load_asset(path)
    if asset.mesh is None:
        raise AssetError(f"{path}: is a cloud of splats and cannot be rigged; give a mesh")
    points = output_frame(asset).invert(asset.mesh.vertices.astype(np.float64))
    spine = spine_of(points[np.unique(asset.mesh.faces)])
    figure = Figure(noun=noun_of(path.stem), ground=spine.middle * [1, 0, 1] + spine.lowest * np.array([0, 1, 0]))
    joints, weights = spine_weights(points, spine, add_spine(figure, spine))
    builder = GlbBuilder()
    first_joint, skin = add_skeleton(builder, figure.joints)
    surfaces = append_surfaces(builder, asset, SkinBinding(skin, joints, weights))
    builder.append("scenes", {"name": asset.name, "nodes": [first_joint, *surfaces]})
    builder.document["scene"] = 0
    rng = np.random.default_rng([seed, int(asset.source_sha256[:8], 16)])
    made = draw_clips(figure, spine, verbs, rng, clips)
    add_clips(builder, figure.joints, first_joint, made)
    builder.save(out)
    return [(out.name, clip.name, caption_of(figure.noun, clip.name)) for clip in made]


def draw_clips(
    figure: Figure, spine: Spine, whole_body: Sequence[str], rng: np.random.Generator, limit: int | None
) -> list[NamedClip]:
    """Draw a strength and a duration for each verb of a figure, its own verbs first.

    Verbs repeat with other strengths only when `limit` asks for more clips than there are verbs.
    """
    phases = np.linspace(0, 1, KEYFRAMES)
    verbs = [*figure.verbs, *(str(verb) for verb in rng.permutation(list(whole_body)))]
    adverbs = {verb: [str(adverb) for adverb in rng.permutation(list(AMPLITUDES))] for verb in verbs}
    duration = {verb: float(rng.uniform(1.0, 1.6)) for verb in verbs}
    planned = [(verb, adverbs[verb][turn]) for turn in range(len(AMPLITUDES)) for verb in verbs]
    clips = []
    for verb, adverb in planned[: len(verbs) if limit is None else limit]:
        amplitude = AMPLITUDES[adverb]
        if verb in figure.verbs:
            keys = own_keys(figure.joints, figure.verbs[verb](phases, amplitude), spine)
        else:
            keys = whole_body_keys(verb, figure.joints, spine, phases, amplitude)
        times = np.round(phases * duration[verb], 6)
        clips.append(NamedClip(name=f"{verb} {adverb}".strip(), times=times, keys=keys))
    return clips


def noun_of(stem: str) -> str:
    """Turn a file name into a noun: "ships__CruiseShip" -> "cruise ship", "Barrel_2" -> "barrel"."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", stem.rsplit("__", 1)[-1])
    return " ".join(words).lower() or "object"


def caption_of(subject: str, clip: str) -> str:
    """Say what a clip shows: "blue striped dog", "walk gently" -> "a blue striped dog walking gently"."""
    verb, _, adverb = clip.partition(" ")
    article = "an" if subject[0] in "aeiou" else "a"
    return " ".join(word for word in (article, subject, gerund(verb), adverb) if word)


def gerund(verb: str) -> str:
    """Return the -ing form of one of our verbs."""
    if verb in _DOUBLED:
        return f"{verb}{verb[-1]}ing"
    return f"{verb.removesuffix('e')}ing"


def figure_of_prop(prop: Prop) -> Figure:
    """Hang a prop's pieces on a spine."""
    figure = Figure(noun=prop.noun, colors=prop.colors)
    spine = spine_of(np.concatenate([shape.vertices for shape, _ in prop.pieces]))
    order = add_spine(figure, spine)
    for shape, role in prop.pieces:
        joints, weights = spine_weights(shape.vertices, spine, order)
        figure.parts.append(Part(shape=shape, role=role, joints=joints, weights=weights))
    return figure


def add_spine(figure: Figure, spine: Spine) -> np.ndarray:
    """Add SPINE_JOINTS joints along the spine to a figure; returns their indices in order."""
    share = np.linspace(0, 1, SPINE_JOINTS + 1)[:, None]
    names = figure.chain("spine", "root", spine.origin + share * spine.length * spine.axis)
    return np.array([figure.index(name) for name in names])


def spine_weights(points: np.ndarray, spine: Spine, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of `[N, 3]` points along the spine, linear between neighbouring joints' centres (see `chain_weights`)."""
    return chain_weights(spine.share(points) * len(order) - 0.5, order)
