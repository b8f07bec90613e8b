"""What one animation is asked to be: the options a row, a command line or an HTTP request may set."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from animate4d.core.errors import ConfigError
from animate4d.export.formats import FORMAT_WORDS, Format, FormatWord, expand
from animate4d.fourd.config import PRESETS, FitPreset
from animate4d.models.sampler_config import FreeInitConfig, SamplerConfig, StepCacheConfig
from animate4d.tracks.build import EXACT, LEARNED, check_tracker

VideoSource = Literal["generated", "ground-truth"]
Tracker = Literal["auto", "none", "flow", "exact", "opencv-lk", "opencv-dis", "cotracker3", "cotracker3-official"]
Loop = Literal["auto", "none", "close", "seamless", "ping-pong"]

LEAST: FitPreset = "draft"
"""Preset of the fit with the fewest splats and the smallest pictures."""

SEED_LIMIT = 2**63
"""Seeds are 0 <= seed < 2**63: what torch, numpy and a JSON integer all hold."""

PROMPT_LIMIT = 500
"""Characters; CLIP-sized text encoders read about 77 tokens, so more is a pasted document rather than a prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimateOptions:
    """Options of one animation; every field is also a manifest column."""

    frames: int = 16
    """Frames taken from the asset's own clip when video is ground-truth; a generated video has as many as its model."""

    fit: FitPreset = "standard"
    """Effort of the motion fit: draft (quick look) or standard; paper is the papers' motion field with their schedule,
    for comparison: slow on a CPU, and in what was measured further from the true motion than standard."""

    tracker: Tracker = "auto"
    """Whose point tracks lead the fit: none, flow (the video model's own), exact (of the asset's own animation),
    opencv-lk, opencv-dis, cotracker3 or cotracker3-official; auto is flow for a generated video, else none."""

    tracker_checkpoint: Path | None = None
    """Weights of a cotracker3 tracker (CC BY-NC 4.0)."""

    clips: int = 1
    """Clips one after the other, each starting where the last one ended (1 to 16)."""

    strength: float = 1.0
    """Scales the fitted motion: 0 stands still, 1 as fitted, above 1 exaggerates (0 to 3)."""

    loop: Loop = "auto"
    """How the motion ends: as fitted (none), back at frame 0 in one more frame (close), bent to flow into it
    (seamless), or the way it came (ping-pong); auto closes generated clips and leaves an asset's own as it is."""

    fps: float | None = None
    """Keyframes per second of the GLB (1 to 240); unset: one per frame of the fit. The motion is the same."""

    formats: tuple[FormatWord, ...] = ("default",)
    """Files besides animated.glb and the videos: default (ply npz viewer turntable), all, or any of ply, npz, viewer,
    turntable, ply-frames, spz, splat-glb, morph-glb."""

    guidance: float | None = None
    """Classifier-free guidance of the video model (0 to 30); unset: what the model was made for."""

    steps: int | None = None
    """Denoising steps of the video model (1 to 200); unset: what the model was made for."""

    negative_prompt: str = ""
    """What guidance steers away from; without effect at guidance 1."""

    free_init: int = 1
    """Times the clip is sampled, each from the slow part of the one before (FreeInit, 1 to 10); 1 is plain sampling."""

    step_cache: int = 1
    """Every how many denoising steps the whole network runs (1 to 50); more is faster and coarser."""

    def __post_init__(self) -> None:
        if not 2 <= self.frames <= 64:
            raise ConfigError(f"frames is {self.frames}: give a whole number from 2 to 64")
        if self.fit not in PRESETS:
            raise ConfigError(f"fit is {self.fit!r}: give one of {', '.join(PRESETS)}")
        if self.tracker not in get_args(Tracker):
            raise ConfigError(f"tracker is {self.tracker!r}: give one of {', '.join(get_args(Tracker))}")
        if self.tracker_checkpoint is not None or self.tracker in LEARNED:
            check_tracker(self.tracker, self.tracker_checkpoint)
        if self.tracker_checkpoint is not None and not self.tracker_checkpoint.is_file():
            raise ConfigError(f"tracker_checkpoint is {self.tracker_checkpoint}: there is no such file")
        if not 1 <= self.clips <= 16:
            raise ConfigError(f"clips is {self.clips}: give a whole number from 1 to 16")
        if self.clips > 1 and PRESETS[self.fit]().body != "graph":
            raise ConfigError(
                f"clips is {self.clips}, but fit {self.fit} cannot follow another clip: give fit standard"
            )
        if not (math.isfinite(self.strength) and 0.0 <= self.strength <= 3.0):
            raise ConfigError(f"strength is {self.strength}: give a number from 0 to 3")
        if self.loop not in get_args(Loop):
            raise ConfigError(f"loop is {self.loop!r}: give {', '.join(get_args(Loop)[:-1])} or ping-pong")
        if self.fps is not None and not 1.0 <= self.fps <= 240.0:
            raise ConfigError(f"fps is {self.fps}: give a number from 1 to 240")
        if unknown := [word for word in self.formats if word not in FORMAT_WORDS]:
            raise ConfigError(f"formats has {unknown[0]!r}: give words of {', '.join(FORMAT_WORDS)}")
        if self.guidance is not None and not (math.isfinite(self.guidance) and 0.0 <= self.guidance <= 30.0):
            raise ConfigError(f"guidance is {self.guidance}: give a number from 0 to 30")
        if self.steps is not None and not 1 <= self.steps <= 200:
            raise ConfigError(f"steps is {self.steps}: give a whole number from 1 to 200")
        if (length := len(self.negative_prompt)) > PROMPT_LIMIT:
            raise ConfigError(f"negative_prompt has {length} characters: give at most {PROMPT_LIMIT}")
        if not 1 <= self.free_init <= 10:
            raise ConfigError(f"free_init is {self.free_init}: give a whole number from 1 to 10")
        if not 1 <= self.step_cache <= 50:
            raise ConfigError(f"step_cache is {self.step_cache}: give a whole number from 1 to 50")

    def wanted_formats(self) -> tuple[Format, ...]:
        """Return the formats asked for, each once."""
        return expand(self.formats)

    def sampler(self) -> SamplerConfig:
        """Return how the video model samples."""
        return SamplerConfig(
            steps=self.steps,
            guidance=self.guidance,
            negative_prompt=self.negative_prompt,
            free_init=FreeInitConfig(rounds=self.free_init),
            step_cache=StepCacheConfig(interval=self.step_cache),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One object to animate."""

    asset: Path
    """A 3D file: GLB, glTF, OBJ or PLY; or Gaussian splats as PLY, SPLAT, SPZ or GLB."""

    prompt: str
    """What it should do, for example "a fox running"; may be empty only when video is ground-truth."""

    seed: int = 0
    """Seed of the video; the same request with the same seed gives the same result."""

    video: VideoSource = "generated"
    """Where the motion comes from: generated by the model, or ground-truth (the asset's own animation)."""

    clip: str | None = None
    """With video=ground-truth: name or number of the animation in the file; unset: the first one."""

    options: AnimateOptions = AnimateOptions()
    """Options of the animation."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < SEED_LIMIT:
            raise ConfigError(f"seed is {self.seed}: give a whole number from 0 to {SEED_LIMIT - 1}")
        if self.video not in ("generated", "ground-truth"):
            raise ConfigError(f"video is {self.video!r}: give generated or ground-truth")
        if not self.prompt.strip() and self.video == "generated":
            raise ConfigError("prompt is empty: say what the object should do, for example 'a fox running'")
        if len(self.prompt) > PROMPT_LIMIT:
            raise ConfigError(f"prompt has {len(self.prompt)} characters: give at most {PROMPT_LIMIT}")
        wanted = self.options.tracker
        if wanted == EXACT and self.video == "generated":
            raise ConfigError("tracker is exact but video is generated: only an asset's own animation has exact tracks")
        if wanted == "flow" and self.video == "ground-truth":
            raise ConfigError("tracker is flow but video is ground-truth: only a video model has a flow; use exact")
        if self.clip is not None and self.video == "generated":
            raise ConfigError(f"clip is {self.clip!r} but video is generated: clip goes with video=ground-truth")

    def smaller(self) -> Request | None:
        """Return the same request with the least effort, which needs least memory; None when it asks for that now."""
        if self.options.fit == LEAST:
            return None
        return replace(self, options=replace(self.options, fit=LEAST))

    @property
    def tracker(self) -> str:
        """Whose tracks lead the fit, with auto resolved."""
        if self.options.tracker != "auto":
            return self.options.tracker
        return "flow" if self.video == "generated" else "none"
