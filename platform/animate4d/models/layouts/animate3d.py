"""Animate3D's checkpoints: the 888 trained tensors of `animate3d_motion_modules.ckpt`, or all 1614 of a training run.

The released file leaves 726 tensors of the network to MVDream (686 + 4 of the camera embedding) and IP-Adapter (36).
"""

from __future__ import annotations

import re
from collections.abc import Collection

from animate4d.models.layouts.groups import ANIMATE_DIFF, STABLE_DIFFUSION, group_of, of_groups
from animate4d.models.layouts.layout import Layout
from animate4d.models.layouts.report import MatchReport

EXTRA = re.compile(r"\.(attn[12])\.(to_[qkv]_sp|to_out_sp|time_pos_embed|mix_factor)")
"""What we keep in the attention and they in its processor."""

IMAGE = (
    ("image_projection.", "encoder_hid_proj.image_projection_layers.0."),
    (".to_k_ip.", ".to_k_ip.0."),
    (".to_v_ip.", ".to_v_ip.0."),
)


def trained_table(names: Collection[str]) -> dict[str, str]:
    """Return `{our name: Animate3D's name}` of the tensors that are trained."""
    return {name: theirs(name) for name in of_groups(names, "mv2v", "motion", "space_time")}


def full_table(names: Collection[str]) -> dict[str, str]:
    """Return `{our name: Animate3D's name}` of the whole network."""
    return {name: theirs(name) for name in names if group_of(name) != "other"}


def theirs(name: str) -> str:
    """Return what Animate3D calls a tensor of ours."""
    for ours, other in IMAGE:
        name = name.replace(ours, other, 1)
    name = EXTRA.sub(r".\1.processor.\2", name, count=1)
    return name.replace(".processor.mix_factor", ".processor.alpha_blender.mix_factor", 1)


def advise(report: MatchReport) -> str:
    """Say what a checkpoint that does not fit looks like."""
    if any("i2v." in name for name in report.unexpected):
        return "the model has no MV2V branch where the file has one: use the paper preset"
    if any("mix_factor" in name for name in report.missing):
        return "the model blends otherwise than the released network: set blend to attention"
    return "give animate3d_motion_modules.ckpt for the paper preset"


TRAINED_KIND = (*ANIMATE_DIFF, ("blend", "attention"), ("mv2v", True), ("spatial_levels", True))

TRAINED = Layout(
    name="animate3d",
    title="Animate3D, trained tensors",
    option="animate3d",
    table=trained_table,
    signature=(r"\.processor\.to_q_sp\.", r"\.processor\.to_q_i2v\."),
    needs=TRAINED_KIND,
    advise=advise,
)
FULL = Layout(
    name="animate3d-full",
    title="Animate3D, whole network",
    option="animate3d",
    table=full_table,
    signature=(r"\.processor\.to_q_sp\.", r"^conv_in\."),
    needs=(*STABLE_DIFFUSION, *TRAINED_KIND),
    advise=advise,
)
