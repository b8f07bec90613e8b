"""What an MV-VDM is made of: one dataclass for every size, and the presets `smoke`, `small`, `paper`, `paper_sd21`.

All presets describe the same network class. `paper` has the widths of the released Animate3D weights (SD-1.5
MVDream, AnimateDiff v2, IP-Adapter); `smoke` is small enough to train on two CPU cores and moves frame 0 by a predicted
flow instead of painting pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from animate4d.core.errors import ConfigError, ModelError

HEADS = ("warp", "epsilon", "v_prediction")
CODECS = ("pixels", "kl")
TEXT_ENCODERS = ("words", "clip")
BLENDS = ("attention", "module", "fixed")


@dataclass(frozen=True, kw_only=True, slots=True)
class MVVDMConfig:
    """Architecture, noise schedule and sampling defaults of one multi-view video diffusion model."""

    preset: str
    """Name of the preset this configuration started from."""
    image_size: int
    """Side of the square video frames the network sees, pixels."""
    frames: int
    """Frames per clip T, the condition frame 0 included."""
    views: int = 4
    """Synchronised views V, evenly spread in azimuth."""

    codec: str = "pixels"
    """Latent codec: "pixels" (lossless space-to-depth, no weights) or "kl" (Stable Diffusion's autoencoder)."""
    codec_factor: int = 8
    """Image pixels per latent cell along one side."""
    latent_channels: int = 192
    """Channels of a latent cell."""
    codec_path: str | None = None
    """Local folder of the autoencoder's weights; needed by codec "kl"."""

    block_channels: tuple[int, ...] = (64, 64)
    """Channels of each resolution level, finest first; every level but the last is followed by a halving of the map."""
    attention_levels: tuple[bool, ...] = (True, True)
    """Per level: whether it has multi-view and text attention besides ResNet blocks and motion modules."""
    layers_per_block: int = 1
    """Layers per encoder level (the decoder has one more)."""
    heads: int | tuple[int, ...] = 2
    """Attention heads of spatial transformers: one number, or one per level."""
    motion_heads: int = 0
    """Attention heads of motion modules; 0 takes `heads`, which must then be one number."""
    linear_projection: bool = False
    """Whether spatial transformers enter and leave by linear layers (SD 2.1) instead of 1x1 convolutions (SD 1.5)."""
    mv2v: bool = True
    """Whether multi-view attention also asks frame 0 of all views (paper 002's MV2V adapter)."""
    norm_groups: int = 8
    """Groups of every group norm; fewer than channels, or the time and camera terms cancel."""
    ff_mult: int = 2
    """Width of the feed-forward layers of spatial transformers, in multiples of the channels."""
    motion_ff_mult: int = 1
    """Width of the feed-forward layers of motion modules, in multiples of the channels."""
    motion_attentions: int = 1
    """Spatiotemporal attentions per motion module, 1 or 2 (AnimateDiff has 2)."""
    spatial_levels: tuple[bool, ...] = (False, True)
    """Per level: whether its motion modules have the spatial branch. At the finest level it costs a third of all
    attention and repeats what multi-view attention just did."""
    blend: str = "attention"
    """Weight between spatial and temporal branch: "attention" (one learned scalar per attention, as released),
    "module" (one per motion module, as the papers can be read) or "fixed" (one half, not learned)."""
    max_frames: int = 32
    """Longest clip the temporal encodings allow."""
    io_kernel: int = 1
    """Kernel of the first and last convolution, 1 or 3."""
    resnet_scale_shift: bool = True
    """Whether conditions scale and shift ResNet activations; off, they only shift (Stable Diffusion)."""
    frame_conditions: bool = True
    """Whether frame index and pooled text join time and camera in the conditions of every ResNet block."""
    position_map: bool = True
    """Whether a learned map is added to the first feature map."""
    concat_first_frame: bool = True
    """Whether frame 0's latents are concatenated to the input of every frame."""
    text_dim: int = 64
    """Width of text states."""
    image_tokens: int = 0
    """Image-prompt tokens per view (IP-Adapter); 0 leaves that branch out."""
    image_path: str | None = None
    """Local folder of the CLIP vision model behind image tokens."""
    image_embed_dim: int = 1024
    """Width of the image encoder's embedding behind the image-prompt tokens."""
    tap: str = "up_blocks.1"
    """Where training reads tracking features: a block's output ("up_blocks.1"), one of its layers
    ("up_blocks.1.motion_modules.2"), or a branch of a motion module (the same with ".temporal" or ".spatial")."""
    train_adapters_only: bool = False
    """Train only MV2V and motion modules, as the papers do on pretrained weights; off, everything trains."""

    text: str = "words"
    """Text encoder: "words" (small trainable word table) or "clip" (frozen CLIP text model)."""
    text_path: str | None = None
    """Local folder of the CLIP text model and tokenizer; needed by text "clip"."""
    text_slots: int = 12
    """Words kept from a caption by the word table."""
    text_buckets: int = 64
    """Rows shared by words outside the vocabulary."""

    head: str = "warp"
    """Output: "warp" (backward flow and gate applied to frame 0; predicts x0), "epsilon" (the noise, as published) or
    "v_prediction" (the velocity)."""
    flow_size: int = 32
    """Side of the flow and gate maps of the warp head."""
    train_timesteps: int = 1000
    """Steps of the noise schedule."""
    beta_start: float = 0.00085
    """First beta of the linear schedule (AnimateDiff v2)."""
    beta_end: float = 0.012
    """Last beta of the linear schedule (AnimateDiff v2)."""
    zero_terminal_snr: bool = True
    """Rescale the schedule so that the last step is pure noise; impossible with epsilon prediction."""
    sample_steps: int = 4
    """Default DDIM steps."""
    guidance: float = 1.0
    """Default classifier-free guidance; 1 is none."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("head", self.head, HEADS),
            ("codec", self.codec, CODECS),
            ("text", self.text, TEXT_ENCODERS),
            ("blend", self.blend, BLENDS),
        ):
            if value not in allowed:
                raise ConfigError(f"model.{name} is {value!r}: expected one of {', '.join(allowed)}")
        if self.image_size % self.codec_factor:
            raise ConfigError(f"model.image_size is {self.image_size}: expected a multiple of {self.codec_factor}")
        levels = len(self.block_channels)
        if levels < 2 or len(self.attention_levels) != levels or len(self.spatial_levels) != levels:
            raise ConfigError(
                "model.block_channels, attention_levels and spatial_levels must have the same length, at least 2"
            )
        if isinstance(self.heads, tuple) and (len(self.heads) != levels or not self.motion_heads):
            raise ConfigError(f"model.heads is {self.heads}: expected one per level, and motion_heads beside them")
        counts = zip(self.block_channels, self.level_heads, strict=True)
        if any(channels % heads or channels % self.temporal_heads for channels, heads in counts) or any(
            channels % self.norm_groups for channels in self.block_channels
        ):
            raise ConfigError("model.block_channels must be multiples of model.heads, motion_heads and norm_groups")
        if any(channels % 4 for channels in self.block_channels):
            raise ConfigError("model.block_channels must be multiples of 4 (2D sine encoding)")
        if not 1 < self.frames <= self.max_frames:
            raise ConfigError(f"model.frames is {self.frames}: expected 2 to {self.max_frames}")
        if self.motion_attentions not in (1, 2):
            raise ConfigError(f"model.motion_attentions is {self.motion_attentions}: expected 1 or 2")
        if self.io_kernel not in (1, 3):
            raise ConfigError(f"model.io_kernel is {self.io_kernel}: expected 1 or 3")
        if self.head == "epsilon" and self.zero_terminal_snr:
            raise ConfigError(
                "model.zero_terminal_snr is on, but head epsilon cannot learn from pure noise: turn it off"
            )
        if self.head == "warp" and (self.codec != "pixels" or self.flow_size % self.latent_size):
            raise ConfigError(
                "model.head warp needs codec pixels and a flow_size that is a multiple of the latent size"
            )
        if self.codec == "pixels" and self.latent_channels != 3 * self.codec_factor**2:
            raise ConfigError(
                f"model.latent_channels is {self.latent_channels}: codec pixels gives {3 * self.codec_factor**2}"
            )

    @property
    def level_heads(self) -> tuple[int, ...]:
        """Attention heads of the spatial transformers of each level."""
        return self.heads if isinstance(self.heads, tuple) else (self.heads,) * len(self.block_channels)

    @property
    def temporal_heads(self) -> int:
        """Attention heads of every motion module."""
        return self.motion_heads or self.level_heads[0]

    @property
    def latent_size(self) -> int:
        """Side of the latent map, cells."""
        return self.image_size // self.codec_factor

    @property
    def flow_cells(self) -> int:
        """Flow samples per latent cell along one side."""
        return self.flow_size // self.latent_size

    @property
    def input_channels(self) -> int:
        """Channels of the network's input."""
        return self.latent_channels * (2 if self.concat_first_frame else 1)

    @property
    def output_channels(self) -> int:
        """Channels of the network's output."""
        return 3 * self.flow_cells**2 if self.head == "warp" else self.latent_channels

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> MVVDMConfig:
        """Read `to_json`'s object.

        Raises:
            ModelError: a field is unknown or a required one is missing.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ModelError(
                f"model config has unknown fields {', '.join(unknown)}: made by another version of animate4d?"
            )
        try:
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
            }
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"model config is incomplete: {error}") from error


def smoke() -> MVVDMConfig:
    """Return the size that trains and animates on two CPU cores."""
    return MVVDMConfig(preset="smoke", image_size=64, frames=8)


def small() -> MVVDMConfig:
    """Return a size to train from scratch on one GPU: `smoke` at 128 px with 16 frames, wider and deeper."""
    return MVVDMConfig(
        preset="small",
        image_size=128,
        frames=16,
        block_channels=(192, 256, 256),
        attention_levels=(True, True, True),
        spatial_levels=(False, True, True),
        layers_per_block=2,
        heads=8,
        norm_groups=32,
        ff_mult=4,
        motion_ff_mult=2,
        text_dim=128,
        flow_size=64,
    )


def paper() -> MVVDMConfig:
    """Return the published size (256 px, 16 frames, 25 steps, guidance 7.5), 1526.20 M parameters, 642.70 M trained."""
    return MVVDMConfig(
        preset="paper",
        image_size=256,
        frames=16,
        codec="kl",
        latent_channels=4,
        block_channels=(320, 640, 1280, 1280),
        attention_levels=(True, True, True, False),
        spatial_levels=(True, True, True, True),
        layers_per_block=2,
        heads=8,
        norm_groups=32,
        ff_mult=4,
        motion_ff_mult=4,
        motion_attentions=2,
        io_kernel=3,
        resnet_scale_shift=False,
        frame_conditions=False,
        position_map=False,
        concat_first_frame=False,
        text_dim=768,
        image_tokens=4,
        train_adapters_only=True,
        text="clip",
        text_slots=77,
        head="epsilon",
        zero_terminal_snr=False,
        sample_steps=25,
        guidance=7.5,
    )


def paper_sd21() -> MVVDMConfig:
    """Return `paper` on Stable Diffusion 2.1 base (MVDream's own default), 1540.03 M parameters, 642.70 M trained."""
    return replace(
        paper(), preset="paper_sd21", heads=(5, 10, 20, 20), motion_heads=8, linear_projection=True, text_dim=1024
    )


PRESETS = {"smoke": smoke, "small": small, "paper": paper, "paper_sd21": paper_sd21}


def model_preset(name: str) -> MVVDMConfig:
    """Return the preset called `name`.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"model preset {name!r} is unknown: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
