"""Procedural props without limbs: surfaces with colour roles, standing on the ground. Axes: y up, z forward."""

# ruff: noqa: RUF005 - lists are added to arrays here, not joined.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from animate4d.assets.shapes import Shape, box, ellipsoid, lathe, limb, rotation, tube


@dataclass(kw_only=True, slots=True)
class Prop:
    """Surfaces of one prop: what captions call it, (shape, role) pairs, and colours that are not drawn at random."""

    noun: str
    pieces: list[tuple[Shape, str]] = field(default_factory=list)
    colors: dict[str, str] = field(default_factory=dict)

    def add(self, shape: Shape, role: str = "main") -> None:
        """Add a surface."""
        self.pieces.append((shape, role))


def barrel(rng: np.random.Generator) -> Prop:
    """A bulging barrel with hoops."""
    prop = Prop(noun="barrel")
    height, radius, bulge = rng.uniform(0.9, 1.4), rng.uniform(0.35, 0.5), rng.uniform(1.1, 1.3)
    heights = np.linspace(0, height, 9)
    radii = radius * (1 + (bulge - 1) * np.sin(np.pi * heights / height))
    wall = list(zip(radii.tolist(), heights.tolist(), strict=True))
    prop.add(lathe([(0, 0), wall[0], *wall, wall[-1], (0, height)], sides=14, step=0.3))
    for k in (1, 7):
        middle, half = heights[k], 0.035
        r = radii[k] + 0.02
        prop.add(lathe([(r - 0.03, middle - half), (r, middle - half), (r, middle + half), (r - 0.03, middle + half)],
                       sides=14), "accent")  # fmt: skip
    return prop


def crate(rng: np.random.Generator) -> Prop:
    """A box with framed edges."""
    prop = Prop(noun="crate")
    size = rng.uniform(0.7, 1.2, 3)
    size[1] = rng.uniform(0.7, 1.1)
    prop.add(box(np.array([0, size[1] / 2, 0]), size))
    beam = 0.09
    for x in (-1, 1):
        for z in (-1, 1):
            place = np.array([x * size[0], size[1], z * size[2]]) / 2
            prop.add(box(place, np.array([beam, 1.03 * size[1], beam])), "accent")
    return prop


def lamp(rng: np.random.Generator) -> Prop:
    """A standing lamp with a shade."""
    prop = Prop(noun="lamp")
    pole, foot, shade = rng.uniform(0.7, 1.3), rng.uniform(0.22, 0.34), rng.uniform(0.28, 0.42)
    prop.add(lathe([(0, 0), (foot, 0), (foot, 0), (foot, 0.05), (foot, 0.05), (0.05, 0.12), (0.04, pole), (0, pole)],
                   sides=10), "dark")  # fmt: skip
    top = pole + rng.uniform(0.3, 0.45)
    prop.add(lathe([(0, pole - 0.05), (shade, pole - 0.05), (shade, pole - 0.05), (0.6 * shade, top),
                    (0.6 * shade, top), (0, top)], sides=12, step=0.1))  # fmt: skip
    return prop


def vase(rng: np.random.Generator) -> Prop:
    """A turned vessel with a random smooth outline."""
    prop = Prop(noun=str(rng.choice(["vase", "bottle", "pot"])))
    height = rng.uniform(0.9, 1.5)
    knots = rng.uniform(0.18, 0.5, 5)
    if prop.noun == "bottle":
        knots = np.array([0.3, 0.32, 0.3, 0.12, 0.1]) * rng.uniform(0.8, 1.2)
    if prop.noun == "pot":
        knots, height = np.array([0.3, 0.42, 0.5, 0.48, 0.42]) * rng.uniform(0.9, 1.1), rng.uniform(0.6, 0.9)
    share = np.linspace(0, 1, 13)
    blend = np.maximum(1 - np.abs(share[:, None] * 4 - np.arange(5)), 0)
    soft = np.convolve(np.pad(blend @ knots, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    wall = list(zip(soft.tolist(), (share * height).tolist(), strict=True))
    lip = wall[-1]
    prop.add(lathe([(0, 0), wall[0], *wall, lip, (0.75 * lip[0], height), (0.7 * lip[0], height - 0.1),
                    (0, height - 0.12)], sides=14, step=0.3))  # fmt: skip
    if rng.random() < 0.5:
        prop.add(lathe([(wall[6][0], wall[5][1]), (wall[6][0] + 0.03, wall[6][1]), (wall[6][0], wall[7][1])],
                       sides=14), "accent")  # fmt: skip
    return prop


def mushroom(rng: np.random.Generator) -> Prop:
    """A stem with a cap."""
    prop = Prop(noun="mushroom")
    stem, cap, thick = rng.uniform(0.5, 0.9), rng.uniform(0.4, 0.65), rng.uniform(0.12, 0.2)
    prop.add(lathe([(0, 0), (1.3 * thick, 0), (thick, 0.15), (0.8 * thick, stem), (0, stem)], sides=10), "white")
    dome = rng.uniform(0.3, 0.5)
    angles = np.linspace(0, np.pi / 2, 7)
    outline = [(float(cap * np.cos(a)), float(stem - 0.05 + dome * np.sin(a))) for a in angles]
    prop.add(lathe([(0, stem), (cap, stem - 0.05), *outline[:-1], (0, stem - 0.05 + dome)], sides=14, step=0.4))
    return prop


def house(rng: np.random.Generator) -> Prop:
    """Walls, a roof, a door, windows and perhaps a chimney."""
    prop = Prop(noun=str(rng.choice(["house", "tower"])))
    wide, deep, tall = rng.uniform(0.8, 1.2), rng.uniform(0.7, 1.1), rng.uniform(0.5, 0.8)
    if prop.noun == "tower":
        wide, deep, tall = rng.uniform(0.5, 0.7), rng.uniform(0.5, 0.7), rng.uniform(1.1, 1.6)
    prop.add(box(np.array([0, tall / 2, 0]), np.array([wide, tall, deep])))
    roof = rng.uniform(0.3, 0.6)
    pyramid = lathe([(0, 0), (0.82, 0), (0.82, 0), (0.0, 1.0)], sides=4, step=0.25).moved(turn=rotation("y", np.pi / 4))
    scaled = pyramid.vertices * [wide, roof, deep] + [0, tall, 0]
    # One crease group per face keeps the four sides of the roof flat.
    flat = pyramid.faces.ravel()
    roof_shape = Shape(
        vertices=scaled[flat],
        faces=np.arange(len(flat)).reshape(-1, 3),
        uv=pyramid.uv[flat],
        crease=np.repeat(np.arange(len(pyramid.faces)), 3),
    )
    prop.add(roof_shape, "accent")
    prop.add(box(np.array([0, 0.17, deep / 2]), np.array([0.2, 0.34, 0.05])), "brown")
    for x in (-0.3, 0.3):
        for side in (-1, 1):
            place = np.array([x * wide, 0.66 * tall, side * deep / 2])
            prop.add(box(place, np.array([0.16, 0.16, 0.05])), "yellow")
    if rng.random() < 0.6:
        place = np.array([0.27 * wide, tall + 0.45 * roof, 0.1])
        prop.add(box(place, np.array([0.13, 0.75 * roof, 0.13])), "dark")
    return prop


def rocks(rng: np.random.Generator) -> Prop:
    """A pile of lumpy stones."""
    prop = Prop(noun=str(rng.choice(["rock", "rock pile"])))
    count = 1 if prop.noun == "rock" else int(rng.integers(3, 6))
    for number in range(count):
        size = rng.uniform(0.3, 0.5) if count > 1 else 0.6
        angle = rng.uniform(0, 2 * np.pi)
        high = size * 0.7 if number < 3 else 0.75
        place = np.array([0.35 * np.cos(angle), high, 0.35 * np.sin(angle)]) * [count > 1, 1, count > 1]
        stone = ellipsoid(np.zeros(3), size * rng.uniform(0.7, 1.1, 3), sides=12, rings=9)
        waves = rng.normal(0, 3.5, (5, 3)) / size / 2
        bumps = 1 + 0.08 * np.sin(stone.vertices @ waves.T + rng.uniform(0, 6, 5)).sum(1, keepdims=True)
        prop.add(replace(stone, vertices=stone.vertices * bumps + place), str(rng.choice(["main", "main", "dark"])))
    prop.pieces[0] = (prop.pieces[0][0], "main")
    return prop


def ship(rng: np.random.Generator) -> Prop:
    """A hull with a cabin or a sail."""
    prop = Prop(noun="boat" if rng.random() < 0.5 else "ship")
    length, wide, deep = rng.uniform(1.2, 1.7), rng.uniform(0.22, 0.34), rng.uniform(0.18, 0.28)
    share = np.linspace(-0.5, 0.5, 11)
    path = np.stack([np.zeros(11), deep + 0.35 * deep * (2 * np.abs(share)) ** 3, length * share], 1)
    girth = np.interp(share, [-0.5, -0.3, 0.2, 0.5], [0.7, 1.0, 1.0, 0.08])
    hull = tube(path, girth[:, None] * [wide, deep], sides=10, round_ends=False)
    vertices = hull.vertices.copy()
    vertices[:, 1] = np.minimum(vertices[:, 1], deep * 1.25 + 0.3 * deep * np.abs(vertices[:, 2] / length * 2) ** 3)
    prop.add(replace(hull, vertices=vertices))
    deck = 1.2 * deep
    if prop.noun == "boat":
        mast = rng.uniform(0.8, 1.2)
        prop.add(limb((0, deck, 0.1), (0, deck + mast, 0.1), 0.03, sides=6), "brown")
        sail = lathe([(0, 0), (0.5, 0), (0.5, 0), (0.02, 1), (0, 1)], sides=3, step=0.2)
        thin = sail.vertices * [0.06, 0.9 * mast, 0.5 * length] + [0, deck + 0.1 * mast, -0.05]
        prop.add(replace(sail, vertices=thin), "white")
    else:
        prop.add(box(np.array([0, deck + 0.12, -0.15 * length]), np.array([wide, 0.24, 0.35 * length])), "white")
        for z in (-0.22, -0.08):
            chimney = lathe([(0.07, 0), (0.07, 0.3), (0.07, 0.3), (0, 0.3)], sides=8)
            prop.add(chimney.moved(offset=np.array([0, deck + 0.22, z * length])), "accent")
    return prop


def sword(rng: np.random.Generator) -> Prop:
    """A tool with a handle, standing upright: sword, axe, hammer or shovel."""
    prop = Prop(noun=str(rng.choice(["sword", "axe", "hammer", "shovel"])))
    handle = rng.uniform(0.3, 0.4) if prop.noun == "sword" else rng.uniform(0.9, 1.2)
    prop.add(limb((0, 0.05, 0), (0, handle, 0), 0.05, sides=7), "brown")
    head = np.array([0.0, handle, 0.0])
    if prop.noun == "sword":
        prop.add(box(head, np.array([0.4, 0.07, 0.1])), "accent")
        prop.add(ellipsoid(np.array([0, 0.03, 0]), np.full(3, 0.08), sides=8, rings=6), "accent")
        blade = np.linspace(handle, handle + rng.uniform(0.9, 1.3), 10)
        widths = np.interp(np.linspace(0, 1, 10), [0, 0.8, 1], [0.11, 0.09, 0.01])
        path = np.stack([np.zeros(10), blade, np.zeros(10)], 1)
        prop.add(tube(path, np.stack([widths, np.full(10, 0.03)], 1), sides=6, round_ends=False))
    elif prop.noun == "axe":
        for x in (-1, 1) if rng.random() < 0.5 else (1,):
            path = np.array([[0.03 * x, 0, 0], [0.15 * x, 0, 0], [0.3 * x, 0, 0]]) + head - [0, 0.1, 0]
            prop.add(tube(path, np.array([[0.1, 0.05], [0.13, 0.04], [0.24, 0.01]]), sides=8, round_ends=False,
                          side_hint=np.array([0.0, 1, 0])))  # fmt: skip
    elif prop.noun == "hammer":
        prop.add(box(head, np.array([0.5, 0.22, 0.22])))
    else:
        path = np.array([[0, 0, 0], [0, 0.15, 0.02], [0, 0.3, 0.02], [0, 0.42, 0]]) + head
        prop.add(tube(path, np.array([[0.12, 0.03], [0.18, 0.03], [0.16, 0.03], [0.05, 0.02]]), sides=8))
    return prop


def plant(rng: np.random.Generator) -> Prop:
    """A pot with leaves, a cactus or a flower."""
    prop = Prop(noun=str(rng.choice(["potted plant", "cactus", "flower"])))
    pot = rng.uniform(0.3, 0.45)
    prop.add(lathe([(0, 0), (0.2, 0), (0.2, 0), (0.3, pot), (0.3, pot), (0.24, pot - 0.02), (0, pot - 0.04)], sides=12))
    base = np.array([0, pot - 0.05, 0])
    if prop.noun == "cactus":
        tall = rng.uniform(0.6, 0.9)
        prop.add(limb(base, base + [0, tall, 0], 0.15, 0.13, sides=9, rings=9), "green")
        for x in (-1.0, 1.0):
            path = base + np.array([[0.1 * x, 0.35 * tall, 0], [0.3 * x, 0.4 * tall, 0], [0.32 * x, 0.7 * tall, 0]])
            prop.add(tube(path, np.full(3, 0.08), sides=7, side_hint=np.array([0.0, 0, 1])), "green")
    elif prop.noun == "flower":
        top = base + [0, rng.uniform(0.6, 0.9), 0]
        prop.add(limb(base, top, 0.04, 0.03, rings=9, sides=6), "green")
        prop.add(ellipsoid(top, np.full(3, 0.12), sides=8, rings=6), "yellow")
        petals = int(rng.integers(5, 8))
        for angle in np.arange(petals) * 2 * np.pi / petals:
            out = np.array([np.cos(angle), np.sin(angle), 0.1])
            prop.add(tube(np.array([top + 0.08 * out, top + 0.2 * out, top + 0.32 * out]),
                          np.array([[0.05, 0.03], [0.1, 0.03], [0.06, 0.02]]), sides=6,
                          side_hint=np.array([-out[1], out[0], 0])))  # fmt: skip
    else:
        for angle in np.linspace(0, 2 * np.pi, int(rng.integers(6, 10)), endpoint=False) + rng.uniform(0, 1):
            out = np.array([np.cos(angle), 0, np.sin(angle)])
            reach, tall = rng.uniform(0.25, 0.5), rng.uniform(0.45, 0.9)
            share = np.linspace(0, 1, 6)[:, None]
            path = base + out * reach * share**1.5 + np.array([0, 1, 0]) * tall * share
            widths = np.interp(share[:, 0], [0, 0.5, 1], [0.03, 0.09, 0.02])
            prop.add(tube(path, np.stack([widths, np.full(6, 0.015)], 1), sides=5,
                          side_hint=np.array([-out[2], 0, out[0]])), "green")  # fmt: skip
    return prop


def furniture(rng: np.random.Generator) -> Prop:
    """A chair, a table or a stool."""
    prop = Prop(noun=str(rng.choice(["chair", "table", "stool"])))
    wide, seat = (rng.uniform(0.5, 0.7), rng.uniform(0.45, 0.65))
    if prop.noun == "table":
        wide = rng.uniform(0.9, 1.3)
    deep = wide * rng.uniform(0.7, 1.0)
    prop.add(box(np.array([0, seat, 0]), np.array([wide, 0.09, deep])))
    for x in (-1, 1):
        for z in (-1, 1):
            foot = np.array([0.42 * wide * x, 0, 0.42 * deep * z])
            prop.add(box(foot + [0, seat / 2, 0], np.array([0.09, seat, 0.09])), "accent")
    if prop.noun == "chair":
        tall = rng.uniform(0.5, 0.8)
        prop.add(box(np.array([0, seat + tall / 2, -0.46 * deep]), np.array([wide, tall, 0.08])))
    return prop


def rocket(rng: np.random.Generator) -> Prop:
    """A rocket, a candle or a snowman: things stacked on an axis."""
    prop = Prop(noun=str(rng.choice(["rocket", "candle", "snowman", "bell"])))
    if prop.noun == "rocket":
        radius, tall = rng.uniform(0.2, 0.3), rng.uniform(0.8, 1.2)
        prop.add(lathe([(0, 0.15), (0.8 * radius, 0.15), (radius, 0.4), (radius, tall)], sides=12))
        prop.add(lathe([(radius, tall), (0.7 * radius, tall + 0.25), (0, tall + 0.5)], sides=12), "accent")
        for angle in np.arange(3) * 2 * np.pi / 3:
            out = np.array([np.sin(angle), 0, np.cos(angle)])
            path = np.array([0.8 * radius * out + [0, 0.45, 0], 1.5 * radius * out + [0, 0.25, 0],
                             1.8 * radius * out + [0, 0.02, 0]])  # fmt: skip
            prop.add(tube(path, np.array([[0.03, 0.12], [0.03, 0.12], [0.02, 0.05]]), sides=6,
                          side_hint=np.array([-out[2], 0, out[0]])), "accent")  # fmt: skip
        prop.add(ellipsoid(np.array([0, 0.75 * tall, radius]), np.array([0.1, 0.1, 0.03]), sides=8, rings=5), "cyan")
    elif prop.noun == "candle":
        radius, tall = rng.uniform(0.15, 0.3), rng.uniform(0.6, 1.1)
        prop.add(lathe([(0, 0), (1.8 * radius, 0), (1.8 * radius, 0.08), (radius, 0.1)], sides=12), "dark")
        prop.add(lathe([(radius, 0.08), (radius, tall), (radius, tall), (0, tall)], sides=12))
        flame = np.array([0, tall + 0.17, 0])
        prop.add(ellipsoid(flame, np.array([0.08, 0.16, 0.08]), sides=8, rings=7), "orange")
    elif prop.noun == "snowman":
        prop.colors["main"] = "white"
        high = 0.0
        for size in (0.42, 0.31, 0.22):
            prop.add(ellipsoid(np.array([0, high + size, 0]), np.full(3, size), sides=12, rings=9))
            high += 1.6 * size
        face = np.array([0, high - 0.13, 0.2])
        prop.add(limb(face, face + [0, -0.02, 0.22], 0.05, 0.01, rings=3, sides=6), "orange")
        for x in (-0.08, 0.08):
            prop.add(ellipsoid(face + [x, 0.08, 0], np.full(3, 0.03), sides=6, rings=5), "black")
        hat = lathe([(0, 0), (0.24, 0), (0.24, 0.03), (0.15, 0.03), (0.15, 0.25), (0.15, 0.25), (0, 0.25)], sides=12)
        prop.add(hat.moved(offset=np.array([0, high + 0.02, 0])), "accent")
    else:
        radius = rng.uniform(0.4, 0.55)
        outline = [(radius * r, h) for r, h in ((1.0, 0.1), (0.8, 0.25), (0.65, 0.6), (0.5, 0.9), (0.2, 1.02))]
        prop.add(lathe([(0, 0.12), outline[0], *outline, (0, 1.05)], sides=14))
        prop.add(ellipsoid(np.array([0, 0.08, 0]), np.full(3, 0.1), sides=8, rings=6), "accent")
        prop.add(ellipsoid(np.array([0, 1.08, 0]), np.full(3, 0.09), sides=8, rings=6), "accent")
    return prop


def compound(rng: np.random.Generator) -> Prop:
    """Random primitives stacked and stuck together."""
    prop = Prop(noun=str(rng.choice(["toy", "sculpture", "thing"])))
    high = 0.0
    for number in range(int(rng.integers(2, 5))):
        size = rng.uniform(0.25, 0.5, 3) * (1 - 0.12 * number)
        aside = np.array([rng.uniform(-0.12, 0.12), 0, rng.uniform(-0.12, 0.12)]) * (number > 0)
        role = "main" if number == 0 else str(rng.choice(["main", "accent", "dark", "light"]))
        prop.add(_primitive(rng, size).moved(offset=aside + [0, high + size[1], 0]), role)
        for x in (-1, 1) if rng.random() < 0.35 else ():
            small = 0.4 * size
            prop.add(_primitive(rng, small).moved(offset=aside + [x * 0.9 * size[0], high + size[1], 0]), "accent")
        high += 1.8 * size[1]
    return prop


def _primitive(rng: np.random.Generator, size: np.ndarray) -> Shape:
    """A random surface with half-sizes `[3]` about the origin."""
    kind = rng.integers(5)
    if kind == 0:
        return box(np.zeros(3), 2 * size)
    if kind == 1:
        return ellipsoid(np.zeros(3), size)
    outlines: dict[int, list[tuple[float, float]]] = {
        2: [(0, -1), (1, -1), (1, -1), (1, 1), (1, 1), (0, 1)],
        3: [(0, -1), (1, -1), (1, -1), (0.05, 1), (0, 1)],
        4: [(0, -1), (0.5, -1), (1, 0), (1, 0), (0.5, 1), (0.5, 1), (0, 1)],
    }
    turned = lathe(outlines[int(kind)], sides=int(rng.choice([5, 8, 12])), step=0.5)
    return replace(turned, vertices=turned.vertices * size, uv=turned.uv * size.mean())


PROPS: dict[str, Callable[[np.random.Generator], Prop]] = {
    "barrel": barrel,
    "crate": crate,
    "lamp": lamp,
    "vase": vase,
    "mushroom": mushroom,
    "house": house,
    "rocks": rocks,
    "ship": ship,
    "sword": sword,
    "plant": plant,
    "furniture": furniture,
    "rocket": rocket,
    "compound": compound,
}
