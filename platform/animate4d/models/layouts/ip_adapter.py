"""IP-Adapter for SD-1.5: the image projector and 16 numbered pairs of key and value projections.

The numbers count all attention layers of a Stable Diffusion U-Net, self- and cross-attention in turn, in the order
encoder, decoder, middle (the middle block comes last); cross-attentions have the odd ones, 1 to 31.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from animate4d.models.layouts.groups import of_groups
from animate4d.models.layouts.layout import Layout
from animate4d.models.layouts.report import MatchReport

PROJECTOR = {"image_projection.image_embeds.": "image_proj.proj.", "image_projection.norm.": "image_proj.norm."}
LAYER = re.compile(r"(.+\.attn2)\.processor\.(to_[kv]_ip)\.weight")
SIDES = ("down_blocks", "up_blocks", "mid_block")


def table(names: Collection[str]) -> dict[str, str]:
    """Return `{our name: the adapter's name}`."""
    own = of_groups(names, "image")
    layers = {match[1] for name in own if (match := LAYER.fullmatch(name))}
    number = {layer: 2 * index + 1 for index, layer in enumerate(sorted(layers, key=_place))}
    found = {}
    for name in own:
        layer = LAYER.fullmatch(name)
        if layer:
            found[name] = f"ip_adapter.{number[layer[1]]}.{layer[2]}.weight"
        for ours, theirs in PROJECTOR.items():
            if name.startswith(ours):
                found[name] = name.replace(ours, theirs, 1)
    return found


def _place(layer: str) -> tuple[int, list[int]]:
    return SIDES.index(layer.split(".")[0]), [int(part) for part in layer.split(".") if part.isdigit()]


def advise(report: MatchReport) -> str:
    """Say what an adapter that does not fit looks like."""
    if any("latents" in name or "perceiver" in name or ".proj.0." in name for name in report.unexpected):
        return "this is another kind of IP-Adapter (plus, full or face): give ip-adapter_sd15"
    if report.expected == 0:
        return "the model has no image tokens (image_tokens is 0): leave --ip-adapter out"
    if any("to_k_ip" in name and wanted[-1] != found[-1] for name, wanted, found in report.misshaped):
        return "it was made for another base than the model's: give ip-adapter_sd15, and SD-1.5 as --base"
    return "give ip-adapter_sd15"


LAYOUT = Layout(
    name="ip-adapter",
    title="IP-Adapter SD-1.5",
    option="ip-adapter",
    table=table,
    signature=(r"^image_proj\.", r"^ip_adapter\.1\.to_k_ip\."),
    advise=advise,
)
