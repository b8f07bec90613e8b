"""MV-VDM: network, codec, text encoder and noise schedule as one model that saves to and loads from a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DDIMScheduler
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from animate4d.core.errors import ModelError
from animate4d.io.atomic import write_bytes
from animate4d.models.card import model_card
from animate4d.models.codec import KLCodec, make_codec
from animate4d.models.config import MVVDMConfig
from animate4d.models.equipment import start_from_scratch
from animate4d.models.execution import ExecutionConfig
from animate4d.models.image import make_image_encoder
from animate4d.models.text import TextStates, WordTableEncoder, make_text_encoder
from animate4d.models.unet import MultiViewUNetMotionModel
from animate4d.models.vocabulary import WORDS
from animate4d.models.warp import split_head, warp_first_frame

if TYPE_CHECKING:
    from animate4d.models.step_cache import StepCache

CONFIG_FILE, WEIGHTS_FILE, WORDS_FILE, CARD_FILE = "config.json", "model.safetensors", "words.json", "README.md"
PART_PATHS = ("codec_path", "text_path", "image_path")
FROZEN_PARTS = ("codec.", "text.model.", "image.")
"""Pretrained parts that stay in their own folders and are not copied into a model folder."""


@dataclass(frozen=True, slots=True)
class MVVDMOutput:
    """What the network says about a noisy clip.

    Attributes:
        prediction: `[B, V, T, c, h, w]`, what the scheduler's step takes: clean latents (head "warp"), noise
            ("epsilon") or velocity ("v_prediction"); the network's bare output if nothing was to be moved.
        flow: `[B, V, T, 2, h, w]` half-image units (head "warp"), else None.
        gate: `[B, V, T, 1, h, w]` logits (head "warp"), else None.
        features: `[B, V, T, C, h', w']` for each tap that was asked for.
    """

    prediction: torch.Tensor
    flow: torch.Tensor | None
    gate: torch.Tensor | None
    features: dict[str, torch.Tensor]


class MVVDM(nn.Module):
    """A multi-view video diffusion model conditioned on frame 0, cameras and a caption."""

    def __init__(self, config: MVVDMConfig, *, words: Sequence[str] = WORDS, empty: bool = False) -> None:
        """Build the model; `empty` leaves the network on the meta device, without weights, for a loader to fill."""
        super().__init__()
        self.config = config
        self.codec = make_codec(config)
        self.text = make_text_encoder(config, words)
        self.image = make_image_encoder(config)
        with torch.device("meta") if empty else nullcontext():
            self.unet = MultiViewUNetMotionModel(
                config, in_channels=config.input_channels, out_channels=config.output_channels
            )
        if config.train_adapters_only:
            self.unet.freeze_base()
        elif not empty:
            start_from_scratch(self.unet)
        self.scheduler = make_scheduler(config)

    def encode(self, video: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Turn `[B, V, T, 3, H, W]` in [-1, 1] into latents `[B, V, T, c, h, w]`; `generator` is for codec "kl"."""
        return self.codec.encode(video, generator)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Turn latents `[B, V, T, c, h, w]` into `[B, V, T, 3, H, W]` in about [-1, 1]."""
        return self.codec.decode(latents)

    def embed_text(self, captions: Sequence[str]) -> TextStates:
        """Encode captions; "" is the unconditional caption."""
        return self.text(captions)

    def embed_image(self, frames: torch.Tensor) -> torch.Tensor | None:
        """Encode frame 0 `[B, V, 3, H, W]` in [-1, 1] for the image tokens; None if the network has none."""
        return None if self.image is None else self.image(frames)

    def forward(
        self,
        latents_noisy: torch.Tensor,
        timesteps: torch.Tensor,
        *,
        camera: torch.Tensor,
        text: TextStates | Sequence[str],
        frame_index: torch.Tensor,
        first_frame: torch.Tensor,
        image_embeds: torch.Tensor | None = None,
        taps: Sequence[str] = (),
        cache: StepCache | None = None,
        moved: bool = True,
    ) -> MVVDMOutput:
        """Predict clean latents, noise or velocity.

        Args:
            latents_noisy: `[B, V, T, c, h, w]`; position 0 along T is the condition frame.
            timesteps: `[B]` int64.
            camera: `[B, V, 4, 4]` camera-to-world.
            text: encoded captions, or captions.
            frame_index: `[B, T]` int64 true frame numbers, 0 first.
            first_frame: `[B, V, c, h, w]` clean latents of frame 0.
            image_embeds: `[B, V, e]` CLIP image embeddings of frame 0, if the network has image tokens.
            taps: names out of `tap_names` whose features to return; they cost nothing but their memory.
            cache: keeps deep features between sampling steps.
            moved: whether head "warp" moves frame 0; a caller that mixes flows first moves it once, after.

        Raises:
            ConfigError: a tap is unknown.
        """
        given = self._conditions(latents_noisy, timesteps, camera, text, frame_index, first_frame, image_embeds)
        output, features = self.unet(**given, taps=taps, cache=cache)
        if self.config.head != "warp":
            return MVVDMOutput(output, None, None, features)
        flow, gate = split_head(output, self.config.flow_cells)
        if not moved:
            return MVVDMOutput(output, flow, gate, features)
        # The gate learns coverage alone: a picture loss would teach it to fade whatever the flow gets wrong.
        return MVVDMOutput(self.moved_latents(first_frame, flow, gate.detach()), flow, gate, features)

    def read_features(
        self,
        latents_noisy: torch.Tensor,
        timesteps: torch.Tensor,
        *,
        camera: torch.Tensor,
        text: TextStates | Sequence[str],
        frame_index: torch.Tensor,
        first_frame: torch.Tensor,
        taps: Sequence[str],
        image_embeds: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the features `forward` would at `taps`, without running what lies behind the last of them."""
        given = self._conditions(latents_noisy, timesteps, camera, text, frame_index, first_frame, image_embeds)
        return self.unet.read(**given, taps=taps)

    def _conditions(
        self,
        latents_noisy: torch.Tensor,
        timesteps: torch.Tensor,
        camera: torch.Tensor,
        text: TextStates | Sequence[str],
        frame_index: torch.Tensor,
        first_frame: torch.Tensor,
        image_embeds: torch.Tensor | None,
    ) -> dict[str, Any]:
        """Return the network's arguments."""
        states = text if isinstance(text, TextStates) else self.embed_text(text)
        sample = latents_noisy
        if self.config.concat_first_frame:
            sample = torch.cat((sample, first_frame[:, :, None].expand_as(sample)), dim=3)
        return {
            "sample": sample,
            "timestep": timesteps,
            "encoder_hidden_states": states.states,
            "camera": camera,
            "frame_index": frame_index,
            "pooled_text": states.pooled,
            "image_embeds": image_embeds,
        }

    def tap_names(self) -> list[str]:
        """Return every place features can be read from, in the order the network passes them."""
        return list(self.unet.tap_names)

    def execute(self, how: ExecutionConfig) -> None:
        """Set how the model runs from now on; weights keep their names and values.

        A compiled network compiles at its first call and again for new sizes, taps or a change between training and
        inference.
        """
        self.unet.checkpoint_layers = how.checkpoint_layers
        self.unet.set_temporal_chunk(how.temporal_chunk)
        self.unet.set_memory_format(torch.channels_last if how.channels_last else torch.contiguous_format)
        if isinstance(self.codec, KLCodec):
            self.codec.chunk = how.codec_chunk
        self.compile_network(how.compiler, how.compile_mode)

    def compile_network(self, backend: str = "inductor", mode: str = "") -> None:
        """Compile the network as one graph at its next call; backend "none" undoes it.

        Args:
            backend: of `torch.compile`; "inductor" needs a C++ compiler, and Triton on a GPU.
            mode: of "inductor".
        """
        self.unet._compiled_call_impl = None
        if backend != "none":
            # One graph or an error: a silent break would leave the slow parts uncompiled.
            self.unet.compile(backend=backend, mode=mode or None, fullgraph=True, dynamic=False)

    def moved_latents(self, first_frame: torch.Tensor, flow: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Return the latents that frame 0 `[B, V, c, h, w]` becomes under `[B, V, T, ...]` flow and gate logits."""
        frames = flow.shape[2]
        pictures = self.decode(first_frame)[:, :, None].expand(-1, -1, frames, -1, -1, -1).flatten(0, 2)
        moved = warp_first_frame(pictures, flow.flatten(0, 2), gate.flatten(0, 2).sigmoid())
        return self.encode(moved.unflatten(0, flow.shape[:3]))

    def save_pretrained(self, folder: Path, card: dict[str, Any], *, half: bool = True) -> None:
        """Write config, weights, vocabulary and model card into `folder`; frozen pretrained parts are left out.

        Args:
            folder: made if missing; the files of an earlier save are replaced.
            card: what the model card should say (see `models.card`).
            half: store weights as float16.
        """
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in self.state_dict().items() if not name.startswith(FROZEN_PARTS)}
        stored = {
            name: (value.half() if half and value.is_floating_point() else value).contiguous().cpu()
            for name, value in kept.items()
        }
        # Not save_file: its files are readable by their owner alone, which an MLflow server may not be.
        write_bytes(folder / WEIGHTS_FILE, save(stored, metadata={"format": "pt"}))
        if isinstance(self.text, WordTableEncoder):
            (folder / WORDS_FILE).write_text(json.dumps(self.text.words) + "\n")
        config = paths_from(self.config, folder)
        (folder / CONFIG_FILE).write_text(json.dumps(config.to_json(), indent=1) + "\n")
        (folder / CARD_FILE).write_text(model_card(self.config, card))

    @classmethod
    def from_pretrained(cls, folder: Path) -> MVVDM:
        """Load a model folder in float32, ready for inference.

        Raises:
            ModelError: a file is missing, damaged, or does not fit the configuration.
        """
        config = paths_in(MVVDMConfig.from_json(_read_json(folder / CONFIG_FILE)), folder)
        words = _read_json(folder / WORDS_FILE) if config.text == "words" else WORDS
        if not (folder / WEIGHTS_FILE).is_file():
            raise ModelError(f"model weights not found: {folder / WEIGHTS_FILE}")
        model = cls(config, words=words, empty=True)
        try:
            with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
                # One tensor at a time, so that a large model is never in memory twice; copied, not mapped, because a
                # file that is overwritten in place would take its reader with it.
                weights = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ModelError(f"model weights are damaged: {folder / WEIGHTS_FILE}: {error}") from error
        expected = {name: value for name, value in model.state_dict().items() if not name.startswith(FROZEN_PARTS)}
        wrong = sorted(
            name for name in expected.keys() | weights.keys() if _shape(expected, name) != _shape(weights, name)
        )
        if wrong:
            raise ModelError(
                f"model weights do not fit their config: {folder / WEIGHTS_FILE}: {len(wrong)} tensors differ, "
                f"first {wrong[0]}"
            )
        model.load_state_dict(weights, strict=False, assign=True)
        return model.eval()


def paths_in(config: MVVDMConfig, folder: Path) -> MVVDMConfig:
    """Return a saved configuration with the relative paths of its frozen parts resolved against the model's folder."""
    paths = {field: getattr(config, field) for field in PART_PATHS}
    return replace(config, **{field: str(folder / path) for field, path in paths.items() if path is not None})


def paths_from(config: MVVDMConfig, folder: Path) -> MVVDMConfig:
    """Undo `paths_in`: parts inside the model's folder get relative paths, so that it can be moved; others absolute."""
    absolute = {field: Path(path).absolute() for field in PART_PATHS if (path := getattr(config, field)) is not None}
    here = folder.absolute()
    inside = {field: path.relative_to(here) for field, path in absolute.items() if path.is_relative_to(here)}
    return replace(config, **{field: str(path) for field, path in (absolute | inside).items()})


def make_scheduler(config: MVVDMConfig) -> DDIMScheduler:
    """Build the noise schedule: DDIM, linear betas (AnimateDiff v2); sampling starts at the noisiest trained step."""
    return DDIMScheduler(
        num_train_timesteps=config.train_timesteps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule="linear",
        clip_sample=False,
        prediction_type="sample" if config.head == "warp" else config.head,
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing="trailing" if config.zero_terminal_snr else "leading",
        steps_offset=0 if config.zero_terminal_snr else 1,
    )


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"not a model folder, file missing: {path}")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"model file is not valid JSON: {path}: {error}") from error


def _shape(tensors: dict[str, torch.Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None
