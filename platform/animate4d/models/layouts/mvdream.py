"""MVDream's U-Net in the layouts it is passed around in: LDM (`sd-v1.5-4view.pt`), diffusers, and in between.

All hold the same 686 tensors of a Stable Diffusion U-Net plus 4 of the camera embedding. The text widths tell the two
bases apart: 768 is SD-1.5, 1024 is SD-2.1 base.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from animate4d.models.layouts.groups import STABLE_DIFFUSION, of_groups
from animate4d.models.layouts.layout import Layout
from animate4d.models.layouts.report import MatchReport

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "camera_embedding.linear_1": "camera_embed.0",
    "camera_embedding.linear_2": "camera_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
LAYER = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")

SCHEDULE = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
"""Buffers of MVDream's noise schedule."""


def ldm_name(name: str, layers: int, attended: Collection[str]) -> str:
    """Return LDM's name of a U-Net tensor of ours.

    Args:
        name: of a base or camera tensor.
        layers: ResNet blocks per encoder level.
        attended: decoder blocks with attention ("up_blocks.1"), whose upsampler is their third member.
    """
    stem, _, kind = name.rpartition(".")
    if stem in ENDS:
        return f"{ENDS[stem]}.{kind}"
    middle = MIDDLE.fullmatch(name)
    if middle:
        what, index, rest = middle[1], int(middle[2]), middle[3]
        return f"middle_block.{2 * index + (what == 'attentions')}.{_inside(what, rest)}"
    layer = LAYER.fullmatch(name)
    if layer is None:
        raise ValueError(f"no tensor of a Stable Diffusion U-Net: {name}")
    side, block, what, index, rest = layer[1], int(layer[2]), layer[3], int(layer[4]), layer[5]
    if what == "downsamplers":
        return f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
    if what == "upsamplers":
        member = 2 if f"up_blocks.{block}" in attended else 1
        return f"output_blocks.{block * (layers + 1) + layers}.{member}.{rest}"
    place = f"input_blocks.{1 + block * (layers + 1) + index}"
    if side == "up":
        place = f"output_blocks.{block * (layers + 1) + index}"
    return f"{place}.{int(what == 'attentions')}.{_inside(what, rest)}"


def _inside(what: str, rest: str) -> str:
    if what == "attentions":
        return rest
    part, _, kind = rest.partition(".")
    return f"{RESNET[part]}.{kind}"


def ldm_table(names: Collection[str], prefix: str = "model.diffusion_model.") -> dict[str, str]:
    """Return `{our name: LDM's name}`."""
    own = of_groups(names, "base", "camera")
    layers = len({name.split(".")[3] for name in own if name.startswith("down_blocks.0.resnets.")})
    attended = {".".join(name.split(".")[:2]) for name in own if name.startswith("up_blocks.") and "attentions" in name}
    return {name: prefix + ldm_name(name, layers, attended) for name in own}


def same_names(names: Collection[str]) -> dict[str, str]:
    """Return the table of diffusers' layout, whose names are ours."""
    return {name: name for name in of_groups(names, "base", "camera")}


def separate_camera(names: Collection[str]) -> dict[str, str]:
    """Return the table of a pipeline folder whose camera embedding is a part of its own, `camera_proj`."""
    return {name: name.replace("camera_embedding.", "camera_proj.", 1) for name in same_names(names)}


def advise(report: MatchReport) -> str:
    """Say what a base that does not fit looks like."""
    widths = [
        (wanted[1], found[1])
        for name, wanted, found in report.misshaped
        if name.endswith("attn2.to_k.weight") and len(wanted) == len(found) == 2
    ]
    if widths and widths[0][0] != widths[0][1]:
        kinds = {768: "768 (SD-1.5)", 1024: "1024 (SD-2.1 base)"}
        wanted, found = (kinds.get(width, str(width)) for width in widths[0])
        return f"its text width is {found}, the model's is {wanted}: give the other file or another --preset"
    camera = [name for name in report.missing if "camera" in name]
    if camera and len(camera) == len(report.missing):
        return "it has no camera embedding: this is a plain Stable Diffusion, give MVDream's weights"
    return "give MVDream's weights for the chosen --preset"


PARTS = (
    (r"^first_stage_model\.", "of the autoencoder (a part of its own)"),
    (r"^cond_stage_model\.", "of the text encoder (a part of its own)"),
    (rf"^({'|'.join(SCHEDULE)})$", "of the noise schedule (Animate3D uses AnimateDiff's linear betas, not MVDream's)"),
    (r"^model_ema\.", "averaged copies of the weights (EMA)"),
)

LDM = Layout(
    name="mvdream-ldm",
    title="MVDream, LDM layout",
    option="base",
    table=ldm_table,
    signature=(r"^model\.diffusion_model\.input_blocks\.0\.0\.",),
    ignored=PARTS,
    needs=STABLE_DIFFUSION,
    advise=advise,
)
BARE_LDM = Layout(
    name="mvdream-bare-ldm",
    title="MVDream, LDM names in a diffusers folder",
    option="base",
    table=lambda names: ldm_table(names, ""),
    signature=(r"^input_blocks\.0\.0\.",),
    needs=STABLE_DIFFUSION,
    advise=advise,
)
WRAPPED_LDM = Layout(
    name="mvdream-wrapped-ldm",
    title="MVDream, LDM names in a wrapper",
    option="base",
    table=lambda names: ldm_table(names, "unet."),
    signature=(r"^unet\.input_blocks\.0\.0\.",),
    needs=STABLE_DIFFUSION,
    advise=advise,
)
DIFFUSERS = Layout(
    name="mvdream-diffusers",
    title="MVDream, diffusers layout",
    option="base",
    table=same_names,
    signature=(r"^conv_in\.", r"^down_blocks\.0\.resnets\."),
    needs=STABLE_DIFFUSION,
    advise=advise,
)
CAMERA_APART = Layout(
    name="mvdream-camera-apart",
    title="MVDream, diffusers layout with camera_proj apart",
    option="base",
    table=separate_camera,
    signature=(r"^conv_in\.", r"^camera_proj\."),
    needs=STABLE_DIFFUSION,
    advise=advise,
)
