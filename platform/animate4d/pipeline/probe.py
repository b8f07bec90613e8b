"""Which features of the denoiser follow points: noise a true clip a little, run once, match, compare with exact tracks.

Frame 0 stays clean, as in sampling. Every number is the mean over clips of a clip's mean over the visible points of
frames 1.., so that a clip with many points counts no more than another. Positions are shares of the picture.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from animate4d.core.errors import ConfigError, ShardError
from animate4d.data.schema import ClipMeta, decode_meta
from animate4d.data.store import ShardStore
from animate4d.io.progress import Progress
from animate4d.metrics.points import chance_error, nearest_cell, position_error, share_within
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline.evaluate import as_seen, shrunk
from animate4d.pipeline.probe_config import ProbeConfig
from animate4d.pipeline.probe_match import find_points, similarity

REFERENCE_PX = 256
"""Side of the picture that thresholds and pixels refer to: the papers' size, whatever the model's is."""

DECODER = "up_blocks."
COLOUR_CELLS = 32
"""Side of the map of plain colours that is matched beside the features: the finest map of a 256 px network."""

Score = dict[str, float]
"""Of one method on one clip or all: "error", "moving_error" (points that move), "within_4" and so on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeClip:
    """A true clip as the model sees it.

    Attributes:
        meta: what the sample says.
        video: `[V, T, H, W, 3]` in [0, 1] on grey.
        points: `[V, T, P, 2]` true positions.
        weight: `[V, T, P]`: visible now and in frame 0; 0 in frame 0, where nothing is to be found.
    """

    meta: ClipMeta
    video: np.ndarray
    points: np.ndarray
    weight: np.ndarray

    @property
    def motion(self) -> np.ndarray:
        """Return how far each point is from its start, `[V, T, P]`."""
        return np.linalg.norm(self.points - self.points[:, :1], axis=-1)


def run_probe(config: ProbeConfig, model: MVVDM) -> dict[str, Any]:
    """Probe a model on the clips of a folder.

    Args:
        config: what to probe.
        model: in evaluation mode, on any device.

    Returns:
        "rows": for each tap, timestep, centring and matching a dict with "tap", "timestep", "centred", "match",
        "height", "width", "channels", "floor" (error of saying the right cell's centre) and the scores;
        "baselines": name -> scores; "best": the best row of the configured matching, "tap": the row of the model's
        own training tap, likewise the best over noise levels and centring (None when it was not probed);
        "clips": key, caption, mean motion of each. JSON values.

    Raises:
        ConfigError: a tap or timestep does not exist in this network.
        ShardError: no clips, clips without exact tracks, or damaged ones.
    """
    taps = chosen_taps(config, model)
    store = ShardStore(config.data, keep=config.keep_list)
    keys = store.keys[: config.limit]
    scores: dict[tuple[Any, ...], list[Score]] = defaultdict(list)
    shapes: dict[str, tuple[int, int, int]] = {}
    clips = []
    with Progress(len(keys), "probe") as bar:
        for number in range(len(keys)):
            clip = read_clip(store, number, model)
            seen = clip.weight > 0
            clips.append(
                {
                    "key": keys[number],
                    "object": clip.meta.object,
                    "caption": clip.meta.caption,
                    "motion": float(clip.motion[seen].mean()) if seen.any() else 0.0,
                    "points": int((clip.weight[:, 1:] > 0).any(1).sum()),
                }
            )
            for key, found in follow(config, model, clip, number, taps, shapes):
                scores[key].append(score(found, clip, config))
            for name, made in baselines(clip, shapes.values()).items():
                scores[name,].append(made if isinstance(made, dict) else score(made, clip, config))
            bar.update(number + 1, clip.meta.caption)
    if not any(clip["points"] for clip in clips):
        raise ShardError(f"{config.data}: no point of frame 0 is seen again in any later frame: nothing to follow")
    rows = [
        {
            **dict(zip(("tap", "timestep", "centred", "match"), key, strict=True)),
            **dict(zip(("channels", "height", "width"), shapes[key[0]], strict=True)),
            "floor": mean_of(scores[f"floor {shapes[key[0]][1]} x {shapes[key[0]][2]}",])["error"],
            **mean_of(found),
        }
        for key, found in scores.items()
        if len(key) == 4
    ]
    shown = [row for row in rows if row["match"] == config.match]
    own = [row for row in shown if row["tap"] == model.config.tap]
    return {
        "model": {"preset": model.config.preset, "tap": model.config.tap, "head": model.config.head},
        "timesteps": list(config.timesteps),
        "match": config.match,
        "thresholds_px": list(config.thresholds),
        "moving_px": config.moving,
        "clips": clips,
        "baselines": {key[0]: mean_of(found) for key, found in scores.items() if len(key) == 1},
        "rows": rows,
        "best": min(shown, key=rank),
        "tap": min(own, key=rank) if own else None,
    }


def rank(row: Mapping[str, Any]) -> float:
    """Order rows by error; those without a single visible point come last."""
    return math.inf if row["error"] is None else row["error"]


def chosen_taps(config: ProbeConfig, model: MVVDM) -> list[str]:
    """Return the taps to probe in the order the network passes them.

    Raises:
        ConfigError: a tap is not one of this network's, or a timestep not of its schedule.
    """
    steps = model.config.train_timesteps
    if max(config.timesteps) >= steps:
        raise ConfigError(f"timesteps are {config.timesteps}: this model's noise schedule ends at {steps - 1}")
    known = model.tap_names()
    if config.taps == ("all",):
        return known
    unknown = [tap for tap in config.taps if tap not in known]
    if unknown:
        raise ConfigError(f"taps: this network has no {unknown[0]!r}; it has all, {', '.join(known)}")
    return [tap for tap in known if (tap in config.taps if config.taps else tap.startswith(DECODER))]


def read_clip(store: ShardStore, number: int, model: MVVDM) -> ProbeClip:
    """Read one clip with its exact tracks at the model's views, frames and size.

    Raises:
        ShardError: it has no exact tracks, or is damaged.
    """
    key = store.keys[number]
    meta = decode_meta(store.read(number, ["meta.json"]))
    views, frames = len(meta.camera_to_world), len(meta.times)
    if views < model.config.views or frames < model.config.frames:
        raise ShardError(
            f"sample {key} in {store.folder} has {views} views and {frames} frames: the model needs "
            f"{model.config.views} and {model.config.frames}"
        )
    names = [f"view_{view:02d}.webp" for view in range(views)]
    clip = as_seen(store.read(number, ["meta.json", "tracks.npz", *names]), model.config)
    if clip.tracks is None or not clip.tracks.tracker.startswith("exact"):
        made = "no tracks" if clip.tracks is None else f"tracks by {clip.tracks.tracker}"
        raise ShardError(
            f"sample {key} in {store.folder} has {made}: the probe needs exact ones, which shards built from animated "
            "models have (jobs/build_shards.py)"
        )
    video, _ = shrunk(clip, model.config.image_size)
    points = clip.tracks.xy.astype(np.float64) / meta.size
    weight = clip.tracks.visible * clip.tracks.visible[:, :1]
    weight[:, 0] = 0
    return ProbeClip(meta=meta, video=video, points=points, weight=weight)


def follow(
    config: ProbeConfig,
    model: MVVDM,
    clip: ProbeClip,
    number: int,
    taps: Sequence[str],
    shapes: dict[str, tuple[int, int, int]],
) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    """Yield (tap, timestep, centred, match) and the positions found with it, `[V, T, P, 2]`; notes maps' C, h, w."""
    queries = first_points(clip, model)
    for timestep in config.timesteps:
        features = tapped(config, model, clip, number, timestep, taps)
        for tap in taps:
            channels, height, width = features[tap].shape[2:]
            shapes[tap] = (channels, height, width)
            for centred in (True, False):
                found = find_points(similarity(features[tap], queries, centred=centred))
                for match, points in found.items():
                    yield (tap, timestep, centred, match), points.double().cpu().numpy()


def first_points(clip: ProbeClip, model: MVVDM) -> torch.Tensor:
    """Return the points of frame 0 `[V, P, 2]` on the model's device."""
    return torch.from_numpy(clip.points[:, 0]).float().to(next(model.parameters()).device)


@torch.no_grad()
def tapped(
    config: ProbeConfig, model: MVVDM, clip: ProbeClip, number: int, timestep: int, taps: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return a clip's features `[V, T, C, h, w]` at a noise level, averaged over the noise draws.

    The noise depends on seed, clip and draw alone, so noise levels and models are compared under the same noise.
    """
    device = next(model.parameters()).device
    video = torch.from_numpy(clip.video.astype(np.float32) * 2 - 1).to(device).permute(0, 1, 4, 2, 3)[None]
    frames = video.shape[2]
    cameras = clip.meta.camera_to_world[:: len(clip.meta.camera_to_world) // model.config.views]
    times = torch.full((1,), timestep, device=device)
    scheduler: Any = model.scheduler  # diffusers finds its methods at run time
    sums: dict[str, torch.Tensor] = {}
    for draw in range(config.draws):
        source = int(np.random.SeedSequence((config.seed, number, draw)).generate_state(1)[0])
        generator = torch.Generator().manual_seed(source)
        clean = model.encode(video, generator)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        noisy = scheduler.add_noise(clean.flatten(1, 2), noise.flatten(1, 2), times).view_as(clean)
        noisy[:, :, 0] = clean[:, :, 0]
        output = model(
            noisy,
            times,
            camera=torch.tensor(cameras, dtype=torch.float32, device=device)[None],
            text=[clip.meta.caption],
            frame_index=torch.arange(frames, device=device)[None],
            first_frame=clean[:, :, 0],
            image_embeds=model.embed_image(video[:, :, 0]),
            taps=taps,
        )
        for tap in taps:
            feature = output.features[tap][0].float() / config.draws
            sums[tap] = sums[tap] + feature if draw else feature
    return sums


def baselines(clip: ProbeClip, shapes: Any) -> dict[str, np.ndarray | Score]:
    """Return what to compare with: points that stay, plain colours, a cell by chance, and the right cell's centre."""
    views, frames, side = clip.video.shape[:3]
    picture = torch.from_numpy(clip.video.astype(np.float32) - 0.5).permute(0, 1, 4, 2, 3)
    cells = min(COLOUR_CELLS, side)
    colours = interpolate(picture.flatten(0, 1), size=(cells, cells), mode="area").unflatten(0, (views, frames))
    queries = torch.from_numpy(clip.points[:, 0]).float()
    made: dict[str, np.ndarray | Score] = {
        "points do not move": np.repeat(clip.points[:, :1], frames, axis=1),
        "colours": find_points(similarity(colours, queries, centred=False))["nearest"].double().numpy(),
        "chance": {"error": chance_error(clip.points, clip.weight, COLOUR_CELLS, COLOUR_CELLS)},
    }
    for _, height, width in sorted(set(shapes), key=lambda shape: shape[1]):
        made[f"floor {height} x {width}"] = nearest_cell(clip.points, height, width)
    return made


def score(found: np.ndarray, clip: ProbeClip, config: ProbeConfig) -> Score:
    """Compare positions `[V, T, P, 2]` with the true ones; NaN where a clip has no visible or no moving point."""
    moving = clip.weight * (clip.motion * REFERENCE_PX > config.moving)
    values = {
        "error": position_error(found, clip.points, clip.weight),
        "moving_error": position_error(found, clip.points, moving),
    }
    for threshold in config.thresholds:
        values[f"within_{threshold:g}"] = share_within(found, clip.points, clip.weight, threshold / REFERENCE_PX)
    return values


def mean_of(scores: Sequence[Score]) -> dict[str, float | None]:
    """Return each value's mean over the clips that have it (else None), and the standard error of "error"."""
    means: dict[str, float | None] = {}
    for name in scores[0]:
        values = np.array([found[name] for found in scores])
        values = values[np.isfinite(values)]
        means[name] = float(values.mean()) if len(values) else None
        if name == "error":
            means["error_se"] = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    return means
