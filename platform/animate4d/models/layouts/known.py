"""Every layout we know, and which one a file has."""

from __future__ import annotations

from animate4d.core.errors import ModelError
from animate4d.models.layouts import animate3d, animatediff, ip_adapter, mvdream
from animate4d.models.layouts.checkpoint import Checkpoint
from animate4d.models.layouts.layout import Layout

NETWORK_LAYOUTS = (
    animate3d.FULL,
    animate3d.TRAINED,
    animatediff.ORIGINAL,
    animatediff.DIFFUSERS,
    ip_adapter.LAYOUT,
    mvdream.LDM,
    mvdream.BARE_LDM,
    mvdream.WRAPPED_LDM,
    mvdream.CAMERA_APART,
    mvdream.DIFFUSERS,
)
"""Those of the denoiser, the more particular before the more general."""


def layout_named(name: str) -> Layout:
    """Return the layout of that name."""
    return next(layout for layout in NETWORK_LAYOUTS if layout.name == name)


def layout_of(checkpoint: Checkpoint, option: str) -> Layout:
    """Return the layout of a file given as `--option`.

    Raises:
        ModelError: the file has none of the option's layouts.
    """
    names = list(checkpoint.tensors)
    found = next((layout for layout in NETWORK_LAYOUTS if layout.signs(names)), None)
    if found is None:
        wanted = " or ".join(layout.title for layout in NETWORK_LAYOUTS if layout.option == option)
        raise ModelError(
            f"{checkpoint.path}: not recognised: expected {wanted}; its {len(names)} tensors begin with {names[0]}"
        )
    if found.option != option:
        raise ModelError(f"{checkpoint.path}: this is {found.title}: give it as --{found.option}, not as --{option}")
    return found
