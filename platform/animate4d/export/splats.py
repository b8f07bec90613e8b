"""Splats as files, in the user's units and about the user's origin: 3DGS PLY (one, or one per frame), SPZ, glTF.

Each format has an up axis that its readers take for granted: PLY is y-down, SPZ and glTF are y-up. Splats made of a
mesh are written that way, so that they stand upright in a viewer; those of a splat file keep its frame as PLY. Rows
keep their order from file to file, so identity across frames is the row number. A sequence is named `<stem>_0000.ply`,
`<stem>_0001.ply`...: a common prefix and a trailing number is what editors play on their timeline.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from animate4d.assets.asset import Asset
from animate4d.assets.normalise import UP_ROTATIONS, Up
from animate4d.assets.splat_frame import splats_to_user
from animate4d.core.mesh import Similarity
from animate4d.core.motion import SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.io.atomic import atomic_folder
from animate4d.io.ply import write_splat_ply
from animate4d.io.splat_glb import write_splat_glb
from animate4d.io.spz import write_spz


def write_splats(asset: Asset, splats: SplatCloud, out: Path) -> None:
    """Write canonical splats by the name of the file: `.ply`, `.spz` or `.glb`.

    Raises:
        ValueError: the format cannot hold sizes as large as these.
    """
    up = ply_up(asset) if out.suffix == ".ply" else "y"
    cloud = splats_to_user(splats, splat_frame(asset, up))
    if out.suffix == ".ply":
        write_splat_ply(out, cloud, up=up)
    elif out.suffix == ".spz":
        write_spz(out, cloud)
    else:
        write_splat_glb(out, cloud, asset.name)


def write_splat_sequence(
    asset: Asset, cloud: SplatCloud, motion: SplatMotion, folder: Path, *, stem: str = "frame"
) -> list[Path]:
    """Write one PLY per frame into a folder that appears when all of them are there.

    Args:
        asset: whose frame the files are in.
        cloud: canonical, at frame 0.
        motion: of the cloud.
        folder: the folder to create; replaced if it exists.
        stem: file names are `<stem>_0000.ply` and so on.

    Returns:
        The files, in order.
    """
    names = [f"{stem}_{frame:04d}.ply" for frame in range(len(motion.means))]
    with atomic_folder(folder) as work:
        for frame, name in enumerate(names):
            write_splats(asset, motion.at(frame, cloud), work / name)
    return [folder / name for name in names]


def splat_frame(asset: Asset, up: Up) -> Similarity:
    """Return the similarity from the user's frame, turned so that `up` is up, to the canonical one."""
    return replace(asset.to_canonical, rotation=np.asarray(UP_ROTATIONS[up]))


def ply_up(asset: Asset) -> Up:
    """Return the up axis of the PLY files of an asset: that of its own file for splats, else the format's."""
    if asset.mesh is not None:
        return "-y"
    return next(up for up, turn in UP_ROTATIONS.items() if np.allclose(turn, asset.to_canonical.rotation))
