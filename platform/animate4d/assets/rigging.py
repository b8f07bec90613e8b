"""Rig what has no skeleton: a spine of joints with smooth weights, driven by the whole-body verbs."""

from __future__ import annotations

import numpy as np

from animate4d.assets.figures import Figure, Part, chain_weights
from animate4d.assets.props import Prop
from animate4d.assets.verbs import Spine, spine_of

KEYFRAMES = 25
"""Keyframes a clip: linear interpolation between 24 intervals stays within 1 % of a sine of one or two periods."""

SPINE_JOINTS = 6
"""Joints along a spine; blended linearly they follow an arc of 0.9 rad within 1 % of its length."""

_DOUBLED = {"spin", "swim", "flap", "wag", "nod"}
"""Verbs whose last letter doubles before -ing."""


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
