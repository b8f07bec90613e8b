"""Blender as an external program: ray-traced pictures of our poses, and lights baked into vertex colours (paper 000).

Blender is GPL and wants another NumPy, so it stays in a process and an environment of its own, which the user names: a
`blender` program, or a Python that has `bpy`. It is given our posed vertices, materials and cameras, not the asset's
file, so its pixels show exactly the surface that our tracks and flow are about: silhouettes agree with our renderer's
to 0.02 px. Measured with bpy 5.0.1: 0.1-0.3 CPU-seconds a picture of 128 px at 16 samples, about 1 s for a bake.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from animate4d.core.errors import ToolError
from animate4d.core.mesh import Material, Mesh
from animate4d.io.images import save_png
from animate4d.views.rays import Cameras
from animate4d.views.shading import BLEND_CUTOFF, REFLECTANCE

SCRIPT = Path(__file__).with_name("blender_script.py")
START_SECONDS = 120.0
"""Longest that a program may take to say its version; a first start from a network file system is slow."""


def blender_version(program: Path) -> str:
    """Return the version of a Blender.

    Raises:
        ToolError: there is no such program, or it has no `bpy`.
    """
    with tempfile.TemporaryDirectory(prefix="animate4d-blender-") as name:
        answer = Path(name) / "version.json"
        run_blender(program, {"mode": "version", "answer": str(answer)}, Path(name), START_SECONDS)
        return str(json.loads(answer.read_text())["version"])


def render_with_blender(
    program: Path, mesh: Mesh, vertices: np.ndarray, cameras: Cameras, *, samples: int, seconds: float
) -> np.ndarray:
    """Render poses with Cycles under four lights.

    Args:
        program: a `blender`, or a Python with `bpy`.
        mesh: triangles and materials.
        vertices: `[T, N, 3]` poses.
        cameras: V cameras.
        samples: per pixel; alpha has samples + 1 levels.
        seconds: longest the program may run.

    Returns:
        `[V, T, H, W, 4]` uint8 sRGB with straight alpha; grey where alpha is 0.

    Raises:
        ToolError: the program is missing, fails, or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="animate4d-blender-") as name:
        folder = Path(name)
        arrays = {"vertices": vertices, "camera_to_world": cameras.camera_to_world, "intrinsics": cameras.intrinsics}
        job = write_job(folder, mesh, arrays) | {"mode": "render", "samples": samples, "size": cameras.size}
        run_blender(program, job | {"answer": str(folder)}, folder, seconds)
        try:
            views = [
                [np.asarray(Image.open(folder / f"{view:03d}-{frame:04d}.png")) for frame in range(len(vertices))]
                for view in range(cameras.views)
            ]
        except (OSError, SyntaxError) as error:
            raise ToolError(f"{program}: ended well but left a picture out or broken ({error})") from error
    rgba = np.array(views)
    rgba[rgba[..., 3] == 0] = (128, 128, 128, 0)
    return rgba


def bake_with_blender(program: Path, mesh: Mesh, vertices: np.ndarray, *, samples: int, seconds: float) -> Mesh:
    """Bake four lights, direct and indirect, into the vertex colours of a pose (paper 000 section 6).

    The result has no textures: what they hold between vertices is lost, as in the paper. Values above 1 are cut, and
    vertices that the baker leaves black (some 0.2 %, inside others) get the mean of their neighbours.

    Args:
        program: a `blender`, or a Python with `bpy`.
        mesh: triangles and materials.
        vertices: `[N, 3]` pose.
        samples: per vertex; 16 differs from 128 by 0.1 % on average.
        seconds: longest the program may run.

    Returns:
        The mesh with linear vertex colours that are light and material together; shade it with ones.

    Raises:
        ToolError: the program is missing, fails, or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="animate4d-blender-") as name:
        folder = Path(name)
        answer = folder / "light.npy"
        job = write_job(folder, mesh, {"vertices": vertices[None]}) | {"mode": "bake", "samples": samples, "size": 16}
        run_blender(program, job | {"answer": str(answer)}, folder, seconds)
        light = np.load(answer, allow_pickle=False)
    if light.shape != (len(vertices), 3) or not np.isfinite(light).all():
        raise ToolError(f"{program}: baked {light.shape} colours for {len(vertices)} vertices, or infinite ones")
    return with_vertex_light(mesh, fill_black(light, mesh.faces))


def with_vertex_light(mesh: Mesh, light: np.ndarray) -> Mesh:
    """Return a mesh that shows linear colours `[N, 3]` when shaded with ones; holes of its materials stay."""
    # The shader adds a mirrored share to whatever it is given; taken off here, it shows the very light.
    shown = np.clip((np.clip(light, 0.0, 1.0) - REFLECTANCE) / (1 - REFLECTANCE), 0.0, 1.0)
    materials = tuple(
        replace(material, base_color=(1.0, 1.0, 1.0, material.base_color[3]), texture=white_texture(material))
        for material in mesh.materials
    )
    colors = np.concatenate([shown, mesh.colors[:, 3:]], axis=1).astype(np.float32)
    return replace(mesh, colors=colors, materials=materials)


def white_texture(material: Material) -> np.ndarray | None:
    """Return what is left of a texture when the colours are in the vertices: its alpha, where that makes holes."""
    if material.texture is None or material.alpha_mode == "OPAQUE":
        return None
    texture = material.texture.copy()
    texture[..., :3] = 255
    return texture


def fill_black(light: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Give black vertices the mean of their lit neighbours."""
    black = np.all(light <= 0, axis=1)
    if not black.any() or black.all():
        return light
    total, count = np.zeros_like(light), np.zeros(len(light))
    for corner in range(3):
        for other in (faces[:, (corner + 1) % 3], faces[:, (corner + 2) % 3]):
            lit = ~black[other]
            np.add.at(total, faces[lit, corner], light[other[lit]])
            np.add.at(count, faces[lit, corner], 1)
    filled = light.copy()
    mend = black & (count > 0)
    filled[mend] = total[mend] / count[mend, None]
    return filled


def write_job(folder: Path, mesh: Mesh, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Write arrays and textures of a job; returns what they have in common in its JSON."""
    path = folder / "arrays.npz"
    own = {"faces": mesh.faces, "face_material": mesh.face_material, "uv": mesh.uv, "colors": mesh.colors}
    np.savez(path, allow_pickle=False, **own, **arrays)
    materials = []
    for number, material in enumerate(mesh.materials):
        texture = ""
        if material.texture is not None:
            texture = str(folder / f"texture{number}.png")
            save_png(Path(texture), material.texture)
        cutoff = material.alpha_cutoff if material.alpha_mode == "MASK" else BLEND_CUTOFF
        colour = [float(value) for value in material.base_color]
        materials.append(
            {"base_color": colour, "texture": texture, "alpha_mode": material.alpha_mode, "alpha_cutoff": cutoff}
        )
    return {"arrays": str(path), "materials": materials, "threads": 1}


def run_blender(program: Path, job: dict[str, Any], folder: Path, seconds: float) -> None:
    """Run our script in an external Blender and wait.

    Raises:
        ToolError: the program is missing, fails, or takes too long; the message holds the last line it wrote.
    """
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    command = [str(program), str(SCRIPT), str(path)]
    if "blender" in program.name.lower():
        flags = ["--background", "--factory-startup", "--python-exit-code", "1", "--python"]
        command = [str(program), *flags, str(SCRIPT), "--", str(path)]
    # Our own packages must not meet that interpreter: its NumPy is another one.
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    try:
        done = subprocess.run(
            command, cwd=folder, env=own, capture_output=True, text=True, timeout=seconds, check=False
        )
    except OSError as error:
        raise ToolError(
            f"{program}: cannot be started ({error.strerror}): give --blender a blender program, or a Python with bpy"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{program}: took longer than {seconds:.0f} s: give it fewer samples or more time") from error
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        last = said[-1].strip()[:300] if said else "it said nothing"
        raise ToolError(f"{program}: ended with {done.returncode} ({last}): it must be Blender 4.1 or newer")
