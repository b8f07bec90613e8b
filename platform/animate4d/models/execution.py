"""How a model is run, as opposed to what it is: nothing here changes its weights or, beyond rounding, its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from animate4d.core.errors import ConfigError

Compiler = Literal["none", "inductor", "aot_eager", "eager"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutionConfig:
    """Speed and memory options of a model; see `MVVDM.execute`."""

    checkpoint_layers: bool = False
    """Keep only each layer's input for the backward pass and compute the rest, attention included, again: about a
    third more time for a fraction of the memory."""
    channels_last: bool = False
    """Lay feature maps out channel by channel within a pixel, as tensor cores read them."""
    temporal_chunk: int = 0
    """Sequences that attention along time takes at once (there is one per sample, view and map cell); 0 takes all."""
    codec_chunk: int = 8
    """Images the autoencoder encodes or decodes at once."""
    compiler: Compiler = "none"
    """Compiler of the network: inductor generates kernels (minutes at the first call, and again for new sizes);
    aot_eager and eager only trace, for finding faults."""
    compile_mode: str = ""
    """Mode of inductor, such as max-autotune-no-cudagraphs or reduce-overhead; empty takes its default."""

    def __post_init__(self) -> None:
        if self.compiler not in get_args(Compiler):
            raise ConfigError(
                f"execution.compiler is {self.compiler!r}: expected one of {', '.join(get_args(Compiler))}"
            )
        if self.compile_mode and self.compiler != "inductor":
            raise ConfigError(f"execution.compile_mode is {self.compile_mode!r}, but only compiler inductor has modes")
        if self.temporal_chunk < 0 or self.codec_chunk < 1:
            raise ConfigError(
                f"execution.temporal_chunk is {self.temporal_chunk} and codec_chunk {self.codec_chunk}: expected at "
                "least 0 and 1"
            )
