"""AnimateDiff's motion modules: the diffusers adapter and the original `mm_sd_v15_v2.ckpt`.

Only version 2 fits: versions 1, 1-5 and 3 have no motion module in the middle block, which Animate3D trains.
"""

from __future__ import annotations

from collections.abc import Collection

from animate4d.models.layouts.groups import ANIMATE_DIFF, of_groups
from animate4d.models.layouts.layout import Layout
from animate4d.models.layouts.report import MatchReport

TIME_ENCODING = "time_pos_embed.pe"


def diffusers_table(names: Collection[str]) -> dict[str, str]:
    """Return `{our name: the adapter's name}`; the adapter has one time encoding per block, we one per attention."""
    table = {name: name for name in of_groups(names, "motion")}
    for name in of_groups(names, "space_time"):
        if name.endswith(TIME_ENCODING):
            block, _, _ = name.rpartition(".attn")
            table[name] = f"{block}.pos_embed.pe"
    return table


def original_table(names: Collection[str]) -> dict[str, str]:
    """Return `{our name: the name in mm_sd_v15_v2.ckpt}`."""
    return {name: original_name(name) for name in diffusers_table(names)}


def original_name(name: str) -> str:
    """Return what the original checkpoint calls a tensor of a motion module."""
    place, index, inside = _split(name)
    for ours, theirs in (
        (f".attn1.{TIME_ENCODING}", ".attention_blocks.0.pos_encoder.pe"),
        (f".attn2.{TIME_ENCODING}", ".attention_blocks.1.pos_encoder.pe"),
        (".attn1.", ".attention_blocks.0."),
        (".attn2.", ".attention_blocks.1."),
        (".norm1.", ".norms.0."),
        (".norm2.", ".norms.1."),
        (".norm3.", ".ff_norm."),
    ):
        if ours in f".{inside}":
            inside = f".{inside}".replace(ours, theirs, 1).removeprefix(".")
            break
    return f"{place}.motion_modules.{index}.temporal_transformer.{inside}"


def _split(name: str) -> tuple[str, str, str]:
    place, _, rest = name.partition(".motion_modules.")
    index, _, inside = rest.partition(".")
    return place, index, inside


def advise(report: MatchReport) -> str:
    """Say what an adapter that does not fit looks like."""
    if report.missing and all(name.startswith("mid_block.") for name in report.missing):
        return "it has no motion module in the middle block: this is AnimateDiff v1 or v3, give v2 (mm_sd_v15_v2)"
    if report.unexpected and all("lora" in name for name in report.unexpected):
        return "this is a motion LoRA, give the motion modules of v2 (mm_sd_v15_v2)"
    return "give the motion modules of AnimateDiff v2 for SD-1.5 (mm_sd_v15_v2)"


DIFFUSERS = Layout(
    name="animatediff",
    title="AnimateDiff v2, diffusers adapter",
    option="motion",
    table=diffusers_table,
    signature=(r"^down_blocks\.0\.motion_modules\.0\.proj_in\.",),
    computed=r"\.time_pos_embed\.pe$",
    needs=ANIMATE_DIFF,
    advise=advise,
)
ORIGINAL = Layout(
    name="animatediff-original",
    title="AnimateDiff v2, original checkpoint",
    option="motion",
    table=original_table,
    signature=(r"\.temporal_transformer\.",),
    computed=r"\.time_pos_embed\.pe$",
    needs=ANIMATE_DIFF,
    advise=advise,
)
