"""Which published part a tensor of `MultiViewUNetMotionModel` comes from, told by its name.

At the papers' size: base 686, camera 4, image 36, mv2v 48, motion 546, space_time 294; 1614 together.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Literal

Group = Literal["base", "camera", "image", "mv2v", "motion", "space_time", "other"]

BASE = re.compile(
    r"(conv_in|conv_out|conv_norm_out|time_embedding|down_blocks|mid_block|up_blocks)\.|"
    r"(down_blocks|up_blocks)\.\d+\.(resnets|attentions|downsamplers|upsamplers)\."
)
SPACE_TIME = re.compile(r"\.(to_[qkv]_sp|to_out_sp|time_pos_embed|mix_factor)(\.|$)")


def group_of(name: str) -> Group:
    """Return the part a tensor belongs to; "other" are tensors only our own smaller presets have."""
    if name.startswith("camera_embedding."):
        return "camera"
    if name.startswith("image_projection.") or ".to_k_ip." in name or ".to_v_ip." in name:
        return "image"
    if "i2v." in name:
        return "mv2v"
    if ".motion_modules." in name:
        return "space_time" if SPACE_TIME.search(name) else "motion"
    return "base" if BASE.match(name) else "other"


def of_groups(names: Collection[str], *groups: Group) -> list[str]:
    """Return the names that belong to one of the groups, in their order."""
    return [name for name in names if group_of(name) in groups]


STABLE_DIFFUSION: tuple[tuple[str, Any], ...] = (
    ("io_kernel", 3),
    ("resnet_scale_shift", False),
    ("frame_conditions", False),
    ("position_map", False),
    ("concat_first_frame", False),
    ("ff_mult", 4),
)
"""What a configuration says of a network with Stable Diffusion's tensors."""

ANIMATE_DIFF: tuple[tuple[str, Any], ...] = (("motion_attentions", 2), ("motion_ff_mult", 4))
"""The same for motion modules with AnimateDiff's tensors."""
