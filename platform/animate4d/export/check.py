"""Every file of a result read back and compared with what it was to hold, before the result is declared done.

Files are read by the common readers, in the user's frame. Tolerances are those of the format: rounding of float32,
the bound of morph targets, the steps of SPZ and of the viewer's grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from animate4d.assets.asset import Asset
from animate4d.assets.load import load_asset
from animate4d.assets.reskin import output_frame
from animate4d.assets.splat_frame import splats_to_user
from animate4d.core.errors import ExportError, UserError
from animate4d.core.mesh import Similarity
from animate4d.core.splats import SplatCloud
from animate4d.export.motion_file import motion_arrays, read_motion
from animate4d.export.moving_object import MovingObject
from animate4d.export.splats import ply_up, splat_frame
from animate4d.export.viewer.page import read_viewer
from animate4d.io.gltf import read_gltf
from animate4d.io.mp4 import quiet_opencv
from animate4d.io.ply import read_splat_ply
from animate4d.io.splat_glb import read_splat_primitive
from animate4d.io.spz import read_spz

ROUNDING = 2e-5
"""Of positions, as a share of the object's radius: float32 through two frames and a skin."""

SPZ_SIZE, SPZ_COLOR, SPZ_COLORS = 0.035, 0.014, 3.33
"""SPZ's half step of the logarithm of a size, its half step of a constant harmonic, and the largest such harmonic."""


@contextmanager
def reading_back(path: Path) -> Iterator[None]:
    """Turn what goes wrong in a check into one line that names the file.

    Raises:
        ExportError: the block found a difference, or the file cannot be read.
    """
    try:
        yield
    except ExportError as error:
        raise ExportError(f"{path.name}: read back, {error}; the result was not kept") from None
    except (UserError, ValueError, LookupError, OSError) as error:
        raise ExportError(f"{path.name}: cannot be read back ({error}); the result was not kept") from error


def check_glb(path: Path, thing: MovingObject, bound: float, fps: float | None) -> None:
    """Compare an animated GLB with the moved vertices at every frame that is a keyframe, and its materials.

    Args:
        path: the file.
        thing: what it shows.
        bound: distance in canonical units that its form may leave; frame 0 has none.
        fps: keyframes per second; None for one per frame.
    """
    assert thing.vertices is not None
    mesh = thing.asset.mesh
    assert mesh is not None
    with reading_back(path):
        read = load_asset(path)
        assert read.mesh is not None
        frame = output_frame(thing.asset)
        # Models that did not come from glTF are cut by material.
        order = np.arange(len(mesh.faces)) if thing.asset.parts else np.argsort(mesh.face_material, kind="stable")
        if len(read.mesh.faces) != len(order):
            raise ExportError(f"it has {len(read.mesh.faces)} triangles instead of {len(order)}")
        _same_materials(thing.asset, read)
        times = np.asarray(thing.motion.times) - thing.motion.times[0]
        for number, (time, pose) in enumerate(zip(times, thing.vertices, strict=True)):
            if fps is not None and abs(time * fps - round(time * fps)) > 1e-4:
                continue
            shown = read if not read.clips else read.posed(0, float(time))
            assert shown.mesh is not None
            places = frame.apply(shown.to_canonical.invert(shown.mesh.vertices.astype(np.float64)))
            allowed = ROUNDING + (bound if number else 0.0) + _far(thing, frame)
            _close(f"vertices of frame {number}", places[read.mesh.faces], pose[mesh.faces[order]], allowed)


def check_splats(path: Path, thing: MovingObject, cloud: SplatCloud) -> None:
    """Compare a static splat file (`.ply`, `.spz` or `.glb`) with the cloud it was made of."""
    with reading_back(path):
        if path.suffix == ".ply":
            read, up = read_splat_ply(path), ply_up(thing.asset)
        elif path.suffix == ".spz":
            read, up = read_spz(path).cloud, "y"
        else:
            document = read_gltf(path)
            values, _ = read_splat_primitive(document, document.json["meshes"][0]["primitives"][0])
            read, up = SplatCloud(**values), "y"
        frame = splat_frame(thing.asset, up)
        wanted = splats_to_user(cloud, frame)
        coarse = path.suffix == ".spz"
        if read.sh.shape != wanted.sh.shape:
            raise ExportError(f"its harmonics are {read.sh.shape} instead of {wanted.sh.shape}")
        step = np.abs(wanted.means).max() * 2.0**-22 if coarse else 0.0
        _close("centres", frame.scale * read.means, frame.scale * wanted.means, ROUNDING + frame.scale * step)
        sizes = np.sort(read.scales, 1) / np.sort(np.maximum(wanted.scales, 4.6e-5 if coarse else 0), 1)
        _close("sizes", sizes, np.ones_like(sizes), SPZ_SIZE if coarse else 1e-4)
        _close("opacities", read.opacities, wanted.opacities, 0.51 / 255 if coarse else 1e-5)
        colors = wanted.sh[:, 0].clip(-SPZ_COLORS, SPZ_COLORS) if coarse else wanted.sh[:, 0]
        _close("colours", read.sh[:, 0], colors, SPZ_COLOR if coarse else 1e-4)


def check_splat_sequence(paths: list[Path], thing: MovingObject) -> None:
    """Compare every file of a sequence with its frame."""
    for frame, path in enumerate(paths):
        check_splats(path, thing, thing.splats.at(frame, thing.cloud))


def check_motion(path: Path, thing: MovingObject) -> None:
    """Compare the archive with the motion, to the bit."""
    with reading_back(path):
        read, wanted = read_motion(path), motion_arrays(thing)
        if set(read) != set(wanted):
            raise ExportError(f"it lacks {', '.join(sorted(set(wanted) - set(read)))}")
        for name, values in wanted.items():
            if read[name].dtype != values.dtype or not np.array_equal(read[name], values):
                raise ExportError(f"{name} is not what was written")
            if not np.isfinite(values).all():
                raise ExportError(f"{name} holds values that are no numbers")


def check_viewer(path: Path, thing: MovingObject) -> None:
    """Compare the places in the page with the motion, within half a step of its grid."""
    with reading_back(path):
        facts, arrays = read_viewer(path)
        origin, unit = np.array(facts["origin"]), facts["unit"]
        _close("splats", origin + unit * arrays["splatPlaces"], thing.splats.means, 0.51 * unit + 1e-6)
        if thing.vertices is not None:
            assert thing.asset.mesh is not None
            mesh = thing.asset.mesh
            corners = mesh.faces[np.argsort(mesh.face_material, kind="stable")].reshape(-1)
            rows = arrays["meshPlaceOfVertex"][arrays["meshFaces"]]
            _close(
                "mesh", origin + unit * arrays["meshPlaces"][:, rows], thing.vertices[:, corners], 0.51 * unit + 1e-6
            )


def check_video(path: Path, frames: int) -> None:
    """Count the frames of a video."""
    with reading_back(path), quiet_opencv():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        count = 0
        while capture.grab():
            count += 1
        capture.release()
        if count != frames:
            raise ExportError(f"it has {count} frames instead of {frames}")


def _same_materials(asset: Asset, read: Asset) -> None:
    assert asset.mesh is not None
    assert read.mesh is not None
    names = [
        sorted(mesh.materials[number].name for number in np.unique(mesh.face_material))
        for mesh in (read.mesh, asset.mesh)
    ]
    if names[0] != names[1]:
        raise ExportError(f"its materials are {names[0]} instead of {names[1]}")


def _far(thing: MovingObject, frame: Similarity) -> float:
    """Return the rounding of float32 at the object's distance from the origin of its file, in canonical units."""
    place = np.abs(frame.invert(np.zeros(3))).max()
    return float(4 * np.finfo(np.float32).eps * place * frame.scale)


def _close(what: str, found: np.ndarray, wanted: np.ndarray, allowed: float) -> None:
    if found.shape != wanted.shape:
        raise ExportError(f"{what} are {found.shape} instead of {wanted.shape}")
    error = float(np.abs(found - wanted).max(initial=0.0))
    # A NaN is not at most anything.
    if not error <= allowed:
        raise ExportError(f"{what} are off by {error:.2g}, more than the {allowed:.2g} of the format")
