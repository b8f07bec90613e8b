"""Procedural figures with limbs: each has a skeleton and one or two verbs of its own. Axes: y up, z forward."""

# ruff: noqa: RUF005 - lists are added to arrays here, not joined.
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from animate4d.assets.figures import Figure, Turns
from animate4d.assets.shapes import box, ellipsoid, lathe, limb, rotation, tube

X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def walker(rng: np.random.Generator) -> Figure:
    """A biped with swinging arms and legs; walks and waves."""
    figure = Figure(noun=str(rng.choice(["robot", "doll", "person"])))
    leg, torso, head = rng.uniform(0.55, 0.8), rng.uniform(0.5, 0.7), rng.uniform(0.16, 0.24)
    wide, arm, thick = rng.uniform(0.16, 0.26), rng.uniform(0.45, 0.65), rng.uniform(0.07, 0.1)
    points = np.array([[0, leg + torso * s, 0] for s in (0, 0.34, 0.67, 1.0)])
    spine = figure.chain("spine", "root", points)
    figure.add(tube(points, np.array([0.85, 0.8, 0.95, 0.7])[:, None] * [wide, 0.65 * wide], sides=10), spine)
    top = leg + torso + 0.9 * head
    figure.bone("head", spine[-1], (0, leg + torso, 0), (0, top + head, 0))
    if rng.random() < 0.5:
        figure.add(ellipsoid(np.array([0, top, 0]), np.array([0.9, 1.05, 0.95]) * head), "head", "light")
    else:
        figure.add(box(np.array([0, top, 0]), np.array([1.7, 1.7, 1.5]) * head), "head", "light")
    for side, x in (("left", 1.0), ("right", -1.0)):
        figure.add(ellipsoid(np.array([0.35 * x, 0.1, 0.85]) * head + [0, top, 0], np.full(3, 0.18 * head), sides=6,
                             rings=5), "head", "black")  # fmt: skip
        hip, knee, foot = np.array([[0.6 * wide * x, leg * s, 0] for s in (1.0, 0.5, 0.05)])
        figure.bone(f"{side}_thigh", "root", hip, knee)
        figure.bone(f"{side}_shin", f"{side}_thigh", knee, foot)
        figure.add(limb(hip, foot, thick, 0.8 * thick), [f"{side}_thigh", f"{side}_shin"], softness=0.35)
        toe = ellipsoid(foot + [0, 0.02, 0.06], np.array([1.1, 0.7, 1.9]) * thick, sides=8, rings=5)
        figure.add(toe, f"{side}_shin", "accent")
        shoulder = np.array([(wide + 0.6 * thick) * x, leg + 0.92 * torso, 0])
        elbow, hand = shoulder + [0.06 * x, -0.5 * arm, 0], shoulder + [0.1 * x, -arm, 0]
        figure.bone(f"{side}_arm", spine[-1], shoulder, elbow)
        figure.bone(f"{side}_hand", f"{side}_arm", elbow, hand)
        figure.add(limb(shoulder, hand, 0.85 * thick, 0.7 * thick), [f"{side}_arm", f"{side}_hand"], softness=0.35)

    def walk(phases: np.ndarray, amplitude: float) -> Turns:
        swing, fold = np.sin(2 * np.pi * phases), np.maximum(np.sin(2 * np.pi * phases), 0)
        other = np.maximum(-np.sin(2 * np.pi * phases), 0)
        return {
            "left_thigh": (X, -0.6 * amplitude * swing),
            "right_thigh": (X, 0.6 * amplitude * swing),
            "left_shin": (X, 0.5 * amplitude * other),
            "right_shin": (X, 0.5 * amplitude * fold),
            "left_arm": (X, 0.5 * amplitude * swing),
            "right_arm": (X, -0.5 * amplitude * swing),
        }

    def wave(phases: np.ndarray, amplitude: float) -> Turns:
        raised, swing = (1 - np.cos(2 * np.pi * phases)) / 2, np.sin(4 * np.pi * phases)
        return {
            "left_arm": (Z, 1.9 * min(amplitude, 1.2) * raised),
            "left_hand": (Z, 0.5 * amplitude * swing * raised),
            "head": (Z, -0.15 * amplitude * raised),
        }

    figure.verbs = {"walk": walk, "wave": wave}
    return figure


def quadruped(rng: np.random.Generator) -> Figure:
    """A four-legged animal; walks and wags."""
    figure = Figure(noun=str(rng.choice(["dog", "cat", "horse"])))
    leg, length, thick = rng.uniform(0.4, 0.75), rng.uniform(0.7, 1.1), rng.uniform(0.15, 0.24)
    neck, head = rng.uniform(0.2, 0.45), rng.uniform(0.13, 0.2)
    points = np.array([[0, leg + 0.5 * thick, length * (s - 0.5)] for s in np.linspace(0, 1, 4)])
    spine = figure.chain("spine", "root", points)
    figure.add(tube(points, np.array([0.9, 0.95, 1.0, 1.05]) * thick, sides=10), spine)
    base = points[-1] + [0, 0.4 * thick, 0]
    top = base + [0, neck, 0.45 * neck]
    figure.bone("neck", spine[-1], base, top)
    figure.add(limb(base, top, 0.62 * thick, 0.5 * thick, rings=5), "neck")
    figure.bone("head", "neck", top, top + [0, 0, 1.5 * head])
    figure.add(ellipsoid(top + [0, 0.02, 0.4 * head], np.array([0.9, 0.9, 1.2]) * head), "head", "light")
    figure.add(limb(top + [0, -0.1 * head, head], top + [0, -0.2 * head, 2.2 * head], 0.5 * head, 0.4 * head, rings=3),
               "head", "accent")  # fmt: skip
    for x in (-1.0, 1.0):
        ear = top + [0.6 * head * x, 0.6 * head, 0]
        figure.add(limb(ear, ear + [0.2 * head * x, rng.uniform(0.5, 1.2) * head, 0], 0.3 * head, 0.12 * head, rings=3,
                        sides=6), "head", "dark")  # fmt: skip
        eye = top + [0.5 * head * x, 0.4 * head, 1.2 * head]
        figure.add(ellipsoid(eye, np.full(3, 0.17 * head), sides=6, rings=5), "head", "black")
    for name, x, z in (("fl", 1, 0.42), ("fr", -1, 0.42), ("bl", 1, -0.42), ("br", -1, -0.42)):
        hip, knee, foot = np.array([[0.6 * thick * x, leg * s, z * length] for s in (1.1, 0.5, 0.08)])
        figure.bone(f"{name}_thigh", spine[-1] if z > 0 else spine[0], hip, knee)
        figure.bone(f"{name}_shin", f"{name}_thigh", knee, foot)
        figure.add(limb(hip, foot, 0.45 * thick, 0.32 * thick), [f"{name}_thigh", f"{name}_shin"], softness=0.35)
    start = points[0] + [0, 0.5 * thick, -0.5 * thick]
    end = start + [0, rng.uniform(-0.1, 0.3), -rng.uniform(0.3, 0.5)]
    tail = figure.chain("tail", spine[0], np.linspace(start, end, 3))
    figure.add(limb(start, end, 0.25 * thick, 0.12 * thick, sides=6), tail, "accent", softness=1.0)

    def walk(phases: np.ndarray, amplitude: float) -> Turns:
        swing, lag = np.sin(2 * np.pi * phases), np.maximum(np.sin(2 * np.pi * phases), 0)
        other = np.maximum(-np.sin(2 * np.pi * phases), 0)
        turns: Turns = {"neck": (X, 0.12 * amplitude * np.sin(4 * np.pi * phases))}
        for name, sign in (("fl", 1), ("br", 1), ("fr", -1), ("bl", -1)):
            turns[f"{name}_thigh"] = (X, -0.55 * sign * amplitude * swing)
            turns[f"{name}_shin"] = (X, 0.45 * amplitude * (other if sign > 0 else lag))
        turns["tail0"] = (Y, 0.3 * amplitude * swing)
        return turns

    def wag(phases: np.ndarray, amplitude: float) -> Turns:
        swing = np.sin(4 * np.pi * phases)
        return {
            "tail0": (Y, 0.7 * amplitude * swing),
            "tail1": (Y, 0.5 * amplitude * swing),
            "spine0": (Y, 0.12 * amplitude * swing),
            "neck": (Z, 0.2 * amplitude * np.sin(2 * np.pi * phases)),
        }

    figure.verbs = {"walk": walk, "wag": wag}
    return figure


def bird(rng: np.random.Generator) -> Figure:
    """A flying bird with two-piece wings."""
    figure = Figure(noun="bird")
    length, thick, span = rng.uniform(0.6, 0.9), rng.uniform(0.17, 0.24), rng.uniform(0.5, 0.75)
    figure.bone("body", "root", (0, 0, -0.3 * length), (0, 0, 0.3 * length))
    ends = np.array([[0, 0, -0.5], [0, 0, -0.2], [0, 0.02, 0.2], [0, 0.05, 0.4]]) * length
    figure.add(tube(ends, np.array([0.4, 1.0, 1.0, 0.6]) * thick, sides=10), "body")
    head = np.array([0, 0.1 + 0.5 * thick, 0.5 * length])
    figure.bone("head", "body", head - [0, 0.1, 0.1], head + [0, 0, 0.1])
    figure.add(ellipsoid(head, np.full(3, 0.75 * thick)), "head", "light")
    figure.add(limb(head + [0, 0, 0.6 * thick], head + [0, -0.02, 1.6 * thick], 0.3 * thick, 0.05 * thick, rings=3,
                    sides=6), "head", "orange")  # fmt: skip
    for x in (-1.0, 1.0):
        eye = head + np.array([0.5 * x, 0.3, 0.5]) * thick
        figure.add(ellipsoid(eye, np.full(3, 0.14 * thick), sides=6, rings=5), "head", "black")
    for side, x in (("left", 1.0), ("right", -1.0)):
        points = np.array(
            [[(0.5 * thick + span * s) * x, 0.03 - 0.05 * s, -0.18 * s * s] for s in np.linspace(0, 1, 7)]
        )
        chord = np.array([0.2, 0.25, 0.26, 0.24, 0.2, 0.14, 0.07]) * rng.uniform(0.8, 1.1)
        figure.bone(f"{side}_wing", "body", points[0], points[3])
        figure.bone(f"{side}_tip", f"{side}_wing", points[3], points[6])
        radii = np.stack([chord, np.full(7, 0.025)], 1)
        figure.add(tube(points, radii, sides=8), [f"{side}_wing", f"{side}_tip"], "main", softness=0.7)
    tail = np.array([[0, 0, -0.5 * length], [0, 0.0, -0.5 * length - rng.uniform(0.2, 0.35)]])
    figure.bone("tail", "body", tail[0], tail[1])
    figure.add(tube(tail, np.array([[0.07, 0.025], [0.16, 0.02]])), "tail", "accent")

    def flap(phases: np.ndarray, amplitude: float) -> Turns:
        beat, late = np.sin(2 * np.pi * phases), np.sin(2 * np.pi * phases) - 0.5 * np.sin(4 * np.pi * phases)
        return {
            "left_wing": (Z, 0.6 * amplitude * beat),
            "right_wing": (Z, -0.6 * amplitude * beat),
            "left_tip": (Z, 0.35 * amplitude * late),
            "right_tip": (Z, -0.35 * amplitude * late),
            "@": (Y, -0.06 * amplitude * beat),
        }

    figure.verbs = {"flap": flap}
    return figure


def fish(rng: np.random.Generator) -> Figure:
    """A fish whose body waves from side to side."""
    figure = Figure(noun=str(rng.choice(["fish", "shark"])))
    length, tall, thick = rng.uniform(1.0, 1.4), rng.uniform(0.18, 0.4), rng.uniform(0.1, 0.18)
    points = np.array([[0, 0, length * (0.5 - s)] for s in np.linspace(0, 1, 6)])
    spine = figure.chain("spine", "root", points)
    shape = np.interp(np.linspace(0, 1, 11), [0, 0.3, 0.7, 1], [0.35, 1.0, 0.6, 0.18])
    fine = np.array([[0, 0, length * (0.5 - s)] for s in np.linspace(0, 1, 11)])
    figure.add(tube(fine, shape[:, None] * [thick, tall], sides=10), spine, softness=1.0)
    end = points[-1]
    fork = rng.uniform(0.2, 0.32)
    for up in (-1.0, 1.0):
        blade = np.array([end, end + [0, 0.6 * fork * up, -0.5 * fork], end + [0, fork * up, -fork]])
        figure.add(tube(blade, np.array([[0.03, 0.1], [0.025, 0.09], [0.02, 0.03]])), spine[-1], "accent")
    fin = np.array([[0, 0.8 * tall, 0.1], [0, tall + 0.1, 0.0], [0, tall + 0.2, -0.12]]) * [1, 1, length]
    figure.add(tube(fin, np.array([[0.02, 0.16], [0.02, 0.12], [0.015, 0.04]])), spine[1], "accent")
    for side, x in (("left", 1.0), ("right", -1.0)):
        root = np.array([0.8 * thick * x, -0.3 * tall, 0.15 * length])
        tip = root + [0.2 * x, -0.12, -0.1]
        figure.bone(f"{side}_fin", spine[1], root, tip)
        figure.add(tube(np.linspace(root, tip, 4), np.array([[0.07, 0.02]] * 4), sides=6), f"{side}_fin", "dark")
        eye = np.array([0.55 * thick * x, 0.25 * tall, 0.42 * length])
        figure.add(ellipsoid(eye, np.full(3, 0.045), sides=6, rings=5), spine[0], "black")

    def swim(phases: np.ndarray, amplitude: float) -> Turns:
        turns: Turns = {
            name: (Y, 0.32 * amplitude * share * (np.sin(2 * np.pi * phases - 0.9 * k) + np.sin(0.9 * k)))
            for k, (name, share) in enumerate(zip(spine[1:], (0.4, 0.7, 1.0, 1.4), strict=True))
        }
        turns["left_fin"] = (Z, 0.5 * amplitude * np.sin(2 * np.pi * phases))
        turns["right_fin"] = (Z, -0.5 * amplitude * np.sin(2 * np.pi * phases))
        return turns

    figure.verbs = {"swim": swim}
    return figure


def tree(rng: np.random.Generator) -> Figure:
    """A tree or bush whose branches wave."""
    bush = rng.random() < 0.4
    figure = Figure(
        noun="bush" if bush else "tree", colors={"main": str(rng.choice(["green", "orange", "red", "pink"]))}
    )
    height = 0.25 if bush else rng.uniform(0.6, 0.9)
    trunk = figure.chain("trunk", "root", np.array([[0, height * s, 0] for s in (0, 0.5, 1.0)]))
    figure.add(limb((0, 0.05, 0), (0, height, 0), rng.uniform(0.07, 0.12), 0.06), trunk, "brown", softness=1.0)
    branches = int(rng.integers(3, 6))
    turn = rng.uniform(0, 2 * np.pi)
    swings: dict[str, tuple[tuple[float, float, float], float]] = {}
    for number in range(branches):
        angle = turn + 2 * np.pi * number / branches
        out = np.array([np.cos(angle), 0, np.sin(angle)])
        start = np.array([0, height * rng.uniform(0.75, 1.0), 0])
        end = start + out * rng.uniform(0.3, 0.5) + [0, rng.uniform(0.1, 0.45), 0]
        name = figure.bone(f"branch{number}", trunk[-1], start, end)
        figure.add(limb(start, end, 0.05, 0.03, rings=4, sides=6), name, "brown")
        size = rng.uniform(0.2, 0.32)
        figure.add(ellipsoid(end, size * rng.uniform(0.8, 1.2, 3), sides=9, rings=6), name)
        axis = np.cross(out, [0, 1, 0])
        swings[name] = ((float(axis[0]), 0.0, float(axis[2])), float(np.sign(np.sin(angle) + 1e-6)))
    crown = figure.bone("crown", trunk[-1], (0, height, 0), (0, height + 0.3, 0))
    figure.add(ellipsoid(np.array([0, height + 0.3, 0]), rng.uniform(0.25, 0.36, 3)), crown)

    def wave(phases: np.ndarray, amplitude: float) -> Turns:
        turns: Turns = {
            name: (axis, -0.6 * amplitude * sign * np.sin(2 * np.pi * phases)) for name, (axis, sign) in swings.items()
        }
        turns["crown"] = (Z, 0.25 * amplitude * np.sin(2 * np.pi * phases))
        return turns

    figure.verbs = {"wave": wave}
    return figure


def snake(rng: np.random.Generator) -> Figure:
    """A snake lying on the ground."""
    figure = Figure(noun=str(rng.choice(["snake", "worm"])))
    length, thick = rng.uniform(1.3, 1.8), rng.uniform(0.13, 0.2)
    points = np.array([[0, thick, length * (s - 0.5)] for s in np.linspace(0, 1, 8)])
    figure.bone("body", "root", points[0])
    spine = figure.chain("spine", "body", points)
    fine = np.array([[0, thick, length * (s - 0.5)] for s in np.linspace(0, 1, 22)])
    radii = thick * np.interp(np.linspace(0, 1, 22), [0, 0.25, 0.9, 1], [0.25, 0.9, 0.9, 1.1])
    figure.add(tube(fine, radii, sides=9), spine, softness=1.0)
    for x in (-1.0, 1.0):
        eye = points[-1] + np.array([0.55 * x, 0.6, 0.6]) * thick
        figure.add(ellipsoid(eye, np.full(3, 0.25 * thick), sides=6, rings=5), spine[-1], "black")
    if rng.random() < 0.6:
        tongue = points[-1] + np.array([[0, 0, 1.0], [0, 0.0, 2.2]]) * thick
        figure.add(limb(tongue[0], tongue[1], 0.15 * thick, rings=2, sides=5), spine[-1], "red")

    def slither(phases: np.ndarray, amplitude: float) -> Turns:
        # A wave of the heading runs along the body; a joint turns by what its segment's heading differs from the last.
        lag = 2 * np.pi * np.arange(len(spine)) / len(spine)
        heading = 0.42 * amplitude * (np.sin(2 * np.pi * phases[:, None] - lag) + np.sin(lag))
        turning = np.diff(heading, axis=1, prepend=0.0)
        return {name: (Y, turning[:, k]) for k, name in enumerate(spine)}

    figure.verbs = {"slither": slither}
    return figure


def chest(rng: np.random.Generator) -> Figure:
    """A box with a hinged lid."""
    figure = Figure(noun=str(rng.choice(["chest", "box"])))
    wide, tall, deep = rng.uniform(0.8, 1.3), rng.uniform(0.4, 0.7), rng.uniform(0.6, 0.9)
    base = figure.chain("base", "root", np.linspace([0, 0, 0], [0, tall, 0], 4))
    figure.add(box(np.array([0, 0.5 * tall, 0]), np.array([wide, tall, deep]), step=0.16), base, softness=1.0)
    lid = rng.uniform(0.15, 0.3)
    figure.bone("lid", base[-1], (0, tall, -0.5 * deep), (0, tall + lid, 0.5 * deep))
    if figure.noun == "chest":
        half = lathe([(0, -0.5), (0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (0.5, 0.5), (0, 0.5)], sides=16, step=0.4)
        lying = half.moved(turn=rotation("z", np.pi / 2))
        vertices = lying.vertices * [wide, 1, deep]
        vertices[:, 1] = tall + 0.01 + 2 * lid * np.maximum(vertices[:, 1], 0)
        figure.add(type(half)(vertices=vertices, faces=half.faces, uv=half.uv, crease=half.crease), "lid", "accent")
    else:
        figure.add(box(np.array([0, tall + 0.5 * lid, 0]), np.array([1.04 * wide, lid, 1.04 * deep])), "lid", "accent")
    figure.add(box(np.array([0, tall, 0.53 * deep]), np.array([0.14, 0.16, 0.06])), "lid", "yellow")

    def swing_open(phases: np.ndarray, amplitude: float) -> Turns:
        return {"lid": (X, -0.72 * amplitude * (1 - np.cos(2 * np.pi * phases)) / 2)}

    figure.verbs = {"open": swing_open}
    return figure


def spider(rng: np.random.Generator) -> Figure:
    """A many-legged crawler."""
    pairs = int(rng.choice([3, 4]))
    figure = Figure(noun="spider" if pairs == 4 else "beetle")
    high, size, reach = rng.uniform(0.25, 0.4), rng.uniform(0.2, 0.3), rng.uniform(0.5, 0.75)
    figure.bone("body", "root", (0, high, -size), (0, high, size))
    figure.add(ellipsoid(np.array([0, high + 0.05, -0.8 * size]), np.array([1.0, 0.85, 1.2]) * size), "body")
    figure.bone("head", "body", (0, high, 0.2 * size), (0, high, size))
    figure.add(ellipsoid(np.array([0, high, 0.6 * size]), np.array([0.7, 0.6, 0.7]) * size), "head", "light")
    for x in (-1.0, 1.0):
        eye = np.array([0.3 * size * x, high + 0.3 * size, 1.15 * size])
        figure.add(ellipsoid(eye, np.full(3, 0.14 * size), sides=6, rings=5), "head", "black")
    legs: list[tuple[str, float, int]] = []
    for number in range(pairs):
        angle = (number - (pairs - 1) / 2) * 0.5
        for side, x in (("left", 1.0), ("right", -1.0)):
            out = np.array([np.cos(angle) * x, 0, -np.sin(angle)])
            start = np.array([0, high, 0]) + 0.4 * size * out
            knee = start + 0.5 * reach * out + [0, 0.5 * high, 0]
            foot = start + reach * out
            foot[1] = 0.03
            name = figure.bone(f"{side}{number}", "body", start, knee)
            shin = figure.bone(f"{side}{number}_shin", name, knee, foot)
            path = np.concatenate([np.linspace(start, knee, 4), np.linspace(knee, foot, 4)[1:]])
            figure.add(tube(path, np.linspace(0.05, 0.025, 7), sides=5), [name, shin], "dark", softness=0.4)
            legs.append((name, x, number))

    def crawl(phases: np.ndarray, amplitude: float) -> Turns:
        turns: Turns = {}
        for name, x, number in legs:
            beat = 1 if (number + (x > 0)) % 2 else -1
            turns[name] = (Y, 0.5 * amplitude * beat * x * np.sin(2 * np.pi * phases))
            turns[f"{name}_shin"] = (Z, 0.3 * amplitude * x * np.maximum(beat * np.sin(2 * np.pi * phases), 0))
        return turns

    figure.verbs = {"crawl": crawl}
    return figure


def robot_arm(rng: np.random.Generator) -> Figure:
    """A jointed arm on a base."""
    figure = Figure(noun="crane" if rng.random() < 0.3 else "robot arm")
    low, first, second = rng.uniform(0.15, 0.3), rng.uniform(0.5, 0.75), rng.uniform(0.45, 0.7)
    thick = rng.uniform(0.08, 0.12)
    figure.bone("base", "root", (0, 0, 0), (0, low, 0))
    foot = rng.uniform(0.26, 0.38)
    figure.add(lathe([(0, 0), (foot, 0), (foot, 0), (0.8 * foot, low), (0.8 * foot, low), (0, low)]), "base", "dark")
    shoulder = np.array([0, low + 0.05, 0])
    elbow = shoulder + np.array([0, np.cos(0.3), -np.sin(0.3)]) * first
    wrist = elbow + np.array([0, np.sin(0.2), np.cos(0.2)]) * second
    figure.bone("shoulder", "base", shoulder, elbow)
    figure.bone("elbow", "shoulder", elbow, wrist)
    figure.bone("hand", "elbow", wrist, wrist + [0, -0.15, 0.1])
    figure.add(limb(shoulder, elbow, 1.1 * thick, 0.9 * thick), "shoulder")
    figure.add(limb(elbow, wrist, 0.8 * thick, 0.6 * thick), "elbow")
    for place, name in ((shoulder, "shoulder"), (elbow, "elbow"), (wrist, "hand")):
        figure.add(ellipsoid(place, np.full(3, 1.25 * thick), sides=8, rings=6), name, "accent")
    for x in (-1.0, 1.0):
        claw = np.array([wrist, wrist + [0.12 * x, -0.08, 0.08], wrist + [0.05 * x, -0.22, 0.14]])
        figure.add(tube(claw, np.array([0.045, 0.045, 0.03]), sides=6), "hand", "dark")

    def swing(phases: np.ndarray, amplitude: float) -> Turns:
        return {
            "base": (Y, 0.6 * amplitude * np.sin(2 * np.pi * phases)),
            "elbow": (X, 0.35 * amplitude * (1 - np.cos(2 * np.pi * phases)) / 2),
        }

    def nod(phases: np.ndarray, amplitude: float) -> Turns:
        dip = (1 - np.cos(2 * np.pi * phases)) / 2
        return {"shoulder": (X, 0.45 * amplitude * dip), "elbow": (X, 0.5 * amplitude * dip)}

    figure.verbs = {"swing": swing, "nod": nod}
    return figure


CREATURES: dict[str, Callable[[np.random.Generator], Figure]] = {
    "walker": walker,
    "dog": quadruped,
    "bird": bird,
    "fish": fish,
    "tree": tree,
    "snake": snake,
    "box": chest,
    "spider": spider,
    "arm": robot_arm,
}
