"""What a piece of work costs, found out without doing it: FLOPs and memory of a run on the meta device.

Meta tensors have shapes and no content, so the paper's network is counted in seconds on any machine. Multiplications
and additions count separately (2 FLOPs per multiply-add), and only those of matrix products and convolutions count, as
is usual; the rest is bound by memory.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torch.utils.module_tracker import ModuleTracker

PARTS = {
    "multi-view self-attention, MV2V": r"attentions\.\d+\.transformer_blocks\.\d+\.attn1\b",
    "text and image attention": r"attentions\.\d+\.transformer_blocks\.\d+\.attn2\b",
    "their feed-forward": r"attentions\.\d+\.transformer_blocks\.\d+\.ff\b",
    "motion attention": r"motion_modules\.\d+\.transformer_blocks\.\d+\.attn[12]\b",
    "motion feed-forward": r"motion_modules\.\d+\.transformer_blocks\.\d+\.ff\b",
    "ResNet blocks": r"resnets\.\d+\b",
    "resampling": r"(down|up)samplers\.\d+\b",
}
"""Parts of the network by the names of the modules at work."""

REST = "projections, input, output"


def count_flops(work: Callable[[], object]) -> int:
    """Return the FLOPs of work done on meta tensors.

    On meta, attention falls apart into matrix products, which are counted; on a CPU its fused kernel would be missed.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def flops_by_part(work: Callable[[], object]) -> dict[str, int]:
    """Return the FLOPs of one forward pass of the network on meta by `PARTS` and `REST`."""
    with ModuleTracker() as tracker, FlopsByPart(tracker) as counter:
        work()
    return counter.parts


class FlopsByPart(TorchDispatchMode):
    """Adds every operation's FLOPs to the part whose modules are at work."""

    def __init__(self, tracker: ModuleTracker) -> None:
        super().__init__()
        self.tracker = tracker
        self.parts = dict.fromkeys((*PARTS, REST), 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            names = "\n".join(self.tracker.parents)
            part = next((part for part, pattern in PARTS.items() if re.search(pattern, names)), REST)
            self.parts[part] += formula(*args, **(kwargs or {}), out_val=result)
        return result


def count_bytes(work: Callable[[], object]) -> int:
    """Return the bytes of the tensors alive at once that work on meta makes; its inputs and weights are not counted."""
    with fused_attention(), LiveBytes() as live:
        work()
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Follows the bytes of tensors made inside it; a storage counts from its first appearance until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {self._key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and self._key(leaf) not in given | self._known:
                self._follow(leaf.untyped_storage())
        return result

    @staticmethod
    def _key(tensor: torch.Tensor) -> int:
        return tensor.untyped_storage()._cdata

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)

        def freed() -> None:
            self._known.discard(key)
            self.now -= size

        weakref.finalize(storage, freed)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Let attention on meta keep what a fused kernel keeps; of itself, meta would hold all scores.

    A kernel and not a function mode, because modes are off while checkpoints run forward again.
    """
    library = torch.library.Library("aten", "IMPL")
    library.impl("scaled_dot_product_attention", _fused, "AutogradMeta")
    try:
        yield
    finally:
        library._destroy()


def _fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]
