"""The files of a result: each is written, read back and compared before the next; one that fails ends the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from animate4d.core.errors import ExportError
from animate4d.core.motion import GraphMotion
from animate4d.export import check
from animate4d.export.formats import FILES, Format
from animate4d.export.glb import MORPH_BOUND, write_animated_glb, write_morph_glb
from animate4d.export.motion_file import write_motion
from animate4d.export.moving_object import MovingObject
from animate4d.export.notes import write_notes
from animate4d.export.splats import write_splat_sequence, write_splats
from animate4d.export.turntable import FPS, SECONDS, write_turntable
from animate4d.export.viewer.page import write_viewer
from animate4d.export.viewer.scene import ViewerScene


def write_bundle(
    folder: Path,
    thing: MovingObject,
    formats: Sequence[Format],
    *,
    fps: float | None = None,
    tick: Callable[[float], None] = lambda _share: None,
) -> None:
    """Write `animated.glb`, the formats asked for and `IMPORT.md` into a folder.

    Args:
        folder: of the bundle; what is there already is left alone.
        thing: the moving object.
        formats: see `formats.FORMATS`; what needs a mesh is left out where there is none.
        fps: keyframes per second of the GLBs; None for one per frame.
        tick: told the share done.

    Raises:
        ExportError: a file could not be written as its format demands, or is not what it should be when read back.
    """
    jobs: list[Callable[[], None]] = []
    if thing.vertices is not None:
        jobs.append(lambda: _animated(folder / "animated.glb", thing, fps))
    for name in formats:
        if name != "morph-glb" or thing.vertices is not None:
            jobs.append(lambda name=name: _WRITERS[name](folder / FILES[name], thing, fps))  # type: ignore[misc]
    for number, job in enumerate(jobs):
        try:
            job()
        except ValueError as error:
            raise ExportError(f"the result cannot be written: {error}") from error
        tick((number + 1) / len(jobs))
    write_notes(folder, thing, formats)


def _animated(path: Path, thing: MovingObject, fps: float | None) -> None:
    write_animated_glb(thing.asset, thing.motion, path, name=thing.title, fps=fps)
    check.check_glb(path, thing, 0.0 if isinstance(thing.motion, GraphMotion) else MORPH_BOUND, fps)


def _morphs(path: Path, thing: MovingObject, fps: float | None) -> None:
    write_morph_glb(thing.asset, thing.motion, path, name=thing.title, fps=fps)
    check.check_glb(path, thing, MORPH_BOUND, fps)


def _static(path: Path, thing: MovingObject, fps: float | None) -> None:
    write_splats(thing.asset, thing.cloud, path)
    check.check_splats(path, thing, thing.cloud)


def _sequence(path: Path, thing: MovingObject, fps: float | None) -> None:
    check.check_splat_sequence(write_splat_sequence(thing.asset, thing.cloud, thing.splats, path), thing)


def _npz(path: Path, thing: MovingObject, fps: float | None) -> None:
    write_motion(path, thing)
    check.check_motion(path, thing)


def _turntable(path: Path, thing: MovingObject, fps: float | None) -> None:
    write_turntable(path, thing)
    check.check_video(path, round(SECONDS * FPS))


def _viewer(path: Path, thing: MovingObject, fps: float | None) -> None:
    scene = ViewerScene(
        title=thing.title,
        origin=thing.asset.path.name,
        times=thing.motion.times,
        rig=thing.rig,
        video=thing.video,
        video_frames=thing.video_frames,
        video_name=thing.video_name,
        cloud=thing.cloud,
        splats=thing.splats,
        mesh=thing.asset.mesh,
        vertices=thing.vertices,
    )
    write_viewer(path, scene)
    check.check_viewer(path, thing)


_WRITERS: dict[Format, Callable[[Path, MovingObject, float | None], None]] = {
    "ply": _static,
    "npz": _npz,
    "viewer": _viewer,
    "turntable": _turntable,
    "ply-frames": _sequence,
    "spz": _static,
    "splat-glb": _static,
    "morph-glb": _morphs,
}
