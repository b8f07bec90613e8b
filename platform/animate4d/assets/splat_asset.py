"""A splat file as an asset: outliers told apart, size and place normalised by what is seen of the object."""

from __future__ import annotations

import numpy as np

from animate4d.assets.asset import Asset
from animate4d.assets.normalise import CANONICAL_RADIUS, UP_ROTATIONS, Up, sphere_similarity
from animate4d.assets.splat_frame import splats_to_canonical
from animate4d.core.errors import AssetError
from animate4d.core.hashing import hash_file
from animate4d.core.splats import SplatCloud
from animate4d.io.splat_file import SplatFile

DRAWN_OPACITY = 1 / 255
"""Splats fainter than this are not drawn by 3DGS renderers, so they do not count for the size of the object."""

CORE_SHARE, STRAY = 0.99, 3.0
"""Splats farther from the middle than 3 times the radius that holds 99 % are strays of a capture: they do not count for
the size either. An antenna of 1 % of the splats may be twice as long as all the rest before it counts as one."""

MAX_EXTENT = 1000.0
"""Canonical units: splats farther away or wider than 1000 are left out, as squares of their numbers overflow."""


def splat_asset(file: SplatFile, up: Up | None) -> Asset:
    """Return a cloud in the canonical frame, by the up axis of the file unless `up` is another.

    Raises:
        AssetError: all splats lie in one place.
    """
    splats, warnings = file.cloud, list(file.warnings)
    rotation = UP_ROTATIONS[up or file.up]
    drawn = np.flatnonzero(splats.opacities > DRAWN_OPACITY)
    if not len(drawn):
        drawn = np.arange(len(splats.means))
    points = splats.means[drawn].astype(np.float64)
    distance = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    near = distance <= STRAY * np.quantile(distance, CORE_SHARE, method="lower")
    if strays := int((~near).sum()):
        warnings.append(f"{strays} splats far from all others do not count for the size of the object")
    try:
        similarity = sphere_similarity(points[near], rotation)
    except ValueError as error:
        raise AssetError(f"{file.path}: the splats have no size that could be normalised ({error})") from error
    canonical = splats_to_canonical(splats, similarity)
    if wild := int((~(kept := _bounded(canonical))).sum()):
        canonical = SplatCloud(**{name: getattr(canonical, name)[kept] for name in SplatCloud.__slots__})
        warnings.append(
            f"{wild} splats lie or reach beyond {MAX_EXTENT / CANONICAL_RADIUS:.0f} times the object: left out"
        )
    return Asset(
        path=file.path,
        splats=canonical,
        to_canonical=similarity,
        source_sha256=hash_file(file.path),
        warnings=tuple(warnings),
    )


def _bounded(splats: SplatCloud) -> np.ndarray:
    """Return `[N]` bool: splats near and small enough to be drawn safely."""
    with np.errstate(invalid="ignore"):
        return (np.abs(splats.means) < MAX_EXTENT).all(1) & (splats.scales < MAX_EXTENT).all(1)
