"""`IMPORT.md` of a bundle: what each file is and how to open it, and what of that has been tried."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from animate4d.core.motion import GraphMotion
from animate4d.export.formats import FILES, FORMATS, Format
from animate4d.export.moving_object import MovingObject
from animate4d.io.atomic import write_text
from animate4d.io.pages import part

ABOUT: dict[Format, str] = {
    "ply": "Gaussian splats of frame 0, the layout of 3D Gaussian splatting, y down as its viewers expect",
    "npz": "the lossless master: trajectories of splats and vertices, the deformation graph; keys are listed below",
    "viewer": "plays everything in a browser, offline",
    "turntable": "one turn around the moving object",
    "ply-frames": "the splats of every frame, one numbered PLY each, rows in the same order",
    "spz": "the splats of frame 0 in a tenth of the bytes (SPZ version 2), y up",
    "splat-glb": "the splats of frame 0 as glTF with KHR_gaussian_splatting, y up",
    "morph-glb": "the same animation as animated.glb, as morph targets instead of a skin",
}

SKIN = (
    "Its animation is a skin: joints `graph_000`... under `deformation_graph`, which translate and rotate. Any skin of "
    "the source file is replaced, because two skins cannot move one vertex; your own rig is untouched in your own file."
)
MORPHS = (
    "Its animation is morph targets `shape_00`..., no vertex more than a thousandth of the model's radius off. A "
    "skin of the source file is replaced; your own rig is untouched in your own file."
)


def write_notes(folder: Path, thing: MovingObject, formats: Sequence[Format]) -> None:
    """Write the notes for what is in the bundle."""
    lines = [
        f"- `{FILES[name]}`: {ABOUT[name]}." for name in FORMATS if name in formats and (folder / FILES[name]).exists()
    ]
    if thing.vertices is None:
        mesh = "There is no `animated.glb`: splats have no surface that a skin could move."
    else:
        form = SKIN if isinstance(thing.motion, GraphMotion) else MORPHS
        mesh = f"`animated.glb` is your model with its own materials, in its own units and place. {form}"
    times = thing.motion.times
    seconds = float(times[-1] - times[0])
    page = Template(part("animate4d.export", "import_notes.md")).substitute(
        frames=len(times),
        seconds=f"{seconds:.2f}",
        fps=f"{(len(times) - 1) / max(seconds, 1e-3):.4g}",
        mesh=mesh,
        files="\n".join(lines),
    )
    write_text(folder / "IMPORT.md", page)
