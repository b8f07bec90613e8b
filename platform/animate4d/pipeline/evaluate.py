"""Score a video model on held-out clips, beside the two baselines it must beat: a still, and the mean motion.

The mean motion of a verb is frame 0 plus the average change of the training clips of the same object family and verb
(of the verb alone where the family was never seen doing it). A falling loss proves nothing as long as this is better.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from animate4d.core.cameras import Rig
from animate4d.core.errors import ShardError
from animate4d.data.schema import ClipMeta, DecodedClip, decode_clip, decode_meta
from animate4d.data.store import kept_keys
from animate4d.io.atomic import write_json
from animate4d.io.images import save_png
from animate4d.io.progress import Progress
from animate4d.io.shards import iterate_shard, read_index
from animate4d.metrics.video import changed_region, masked_psnr, motion_ratio, motion_slope, psnr, retrieval
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline.evaluate_config import EvaluateConfig
from animate4d.videos.generate import generate_video

SHOWN_CLIPS = 12
Clip = tuple[ClipMeta, np.ndarray, np.ndarray]
"""Meta, video on grey `[V, T, H, W, 3]` in [0, 1] and coverage `[V, T, H, W]` in [0, 1]."""


def evaluate(config: EvaluateConfig, model: MVVDM) -> dict[str, Any]:
    """Generate every held-out clip from its frame 0 and caption, and score it.

    Returns:
        Scores by method ("model", "repeat frame 0", "mean motion") and, for the model, by verb; also in scores.json.

    Raises:
        ShardError: there are no clips, or a shard is damaged.
    """
    clips = list(islice(clips_of(config.data, model.config, config.keep_list), config.limit))
    if not clips:
        raise ShardError(f"{config.data}: holds no clips to evaluate on")
    videos: dict[str, list[np.ndarray]] = {
        "model": [],
        "repeat frame 0": [np.repeat(v[:, :1], v.shape[1], 1) for _, v, _ in clips],
    }
    if config.train_data is not None:
        scored = {meta.id for meta, _, _ in clips} if config.keep_list is not None else set()
        mean = MeanMotion(config.train_data, model.config, without=scored)
        videos["mean motion"] = [mean.animate(meta, video) for meta, video, _ in clips]
    bar = Progress(len(clips), "evaluate")
    for done, (meta, video, alpha) in enumerate(clips, start=1):
        rgba = np.concatenate([uncomposite(video[:, 0], alpha[:, 0]), alpha[:, 0, ..., None]], axis=-1)
        made = generate_video(
            model, np.round(rgba * 255).astype(np.uint8), rig_of(meta, model.config.views), meta.caption,
            seed=0, config=config.sampler,
        )  # fmt: skip
        videos["model"].append(made.rgb.astype(np.float32) / 255)
        bar.update(done, meta.caption)
    scores: dict[str, Any] = {name: score(made, clips) for name, made in videos.items()}
    by_verb = defaultdict(list)
    for index, (meta, _, _) in enumerate(clips):
        by_verb[verb_of(meta)].append(index)
    scores["by verb"] = {
        verb: {name: score([made[i] for i in rows], [clips[i] for i in rows]) for name, made in videos.items()}
        for verb, rows in sorted(by_verb.items())
    }
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(config.out / "scores.json", scores)
    shown = np.linspace(0, len(clips) - 1, min(SHOWN_CLIPS, len(clips))).astype(int)
    rows = [np.concatenate([clips[i][1][0], videos["model"][i][0]], axis=1) for i in shown]
    save_png(
        config.out / "comparison.png",
        np.round(np.concatenate([np.concatenate(list(r), 1) for r in rows]) * 255).astype(np.uint8),
    )
    return scores


def score(videos: list[np.ndarray], clips: list[Clip]) -> dict[str, float]:
    """Return the means over clips of PSNR, masked PSNR, motion and slope over frames 1.., and the retrieval rate.

    Retrieval asks whether a clip is nearest to its own truth among the true clips of the same object.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for index, (made, (meta, truth, alpha)) in enumerate(zip(videos, clips, strict=True)):
        values["psnr"].append(psnr(made[:, 1:], truth[:, 1:]))
        values["masked_psnr"].append(masked_psnr(made[:, 1:], truth[:, 1:], changed_region(alpha)[:, 1:]))
        values["motion"].append(motion_ratio(made, truth))
        values["slope"].append(motion_slope(made, truth))
        same = [i for i, (other, _, _) in enumerate(clips) if other.source_sha256 == meta.source_sha256]
        if len(same) > 1:
            values["retrieval"].append(float(same[retrieval(made, [clips[i][1] for i in same])] == index))
    return {"clips": len(clips), **{name: float(np.mean(found)) for name, found in values.items()}}


class MeanMotion:
    """The average change from frame 0 per (family, verb), from training shards."""

    def __init__(self, shards: Path, model: Any, *, without: Container[str]) -> None:
        self.sums: dict[tuple[str, str], np.ndarray] = {}
        self.counts: dict[tuple[str, str], int] = defaultdict(int)
        for meta, video, _ in clips_of(shards, model, without=without):
            change = video - video[:, :1]
            for key in ((family_of(meta), verb_of(meta)), ("", verb_of(meta))):
                self.sums[key] = self.sums.get(key, 0.0) + change
                self.counts[key] += 1

    def animate(self, meta: ClipMeta, video: np.ndarray) -> np.ndarray:
        """Return frame 0 of a clip plus the mean change of its family and verb."""
        still = np.repeat(video[:, :1], video.shape[1], axis=1)
        for key in ((family_of(meta), verb_of(meta)), ("", verb_of(meta))):
            if self.counts[key]:
                return np.clip(still + self.sums[key] / self.counts[key], 0, 1)
        return still


def clips_of(shards: Path, model: Any, keep: Path | None = None, *, without: Container[str] = ()) -> Iterator[Clip]:
    """Yield the clips of a folder as the model sees them: its views, frames and image size.

    Args:
        shards: the folder.
        model: config of the model.
        keep: list of the clips to yield, see `store.read_keep_list`; None yields all.
        without: keys to leave out.
    """
    infos = read_index(shards)
    wanted = frozenset(kept_keys([key for info in infos for key in info.keys], shards, keep, None))
    for info in infos:
        if wanted.isdisjoint(info.keys):
            continue
        for key, members in iterate_shard(shards / info.name, info):
            if key in wanted and key not in without:
                clip = as_seen(members, model)
                yield clip.meta, *shrunk(clip, model.image_size)


def as_seen(members: Mapping[str, bytes], model: Any) -> DecodedClip:
    """Decode the evenly spread views and frames that a model of this config works on."""
    meta = decode_meta(members)
    views = [view * len(meta.camera_to_world) // model.views for view in range(model.views)]
    frames = [frame * len(meta.times) // model.frames for frame in range(model.frames)]
    return decode_clip(members, views=views, frames=frames)


def shrunk(clip: DecodedClip, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return video on grey and coverage, averaged down to `size` pixels."""
    factor = clip.meta.size // size
    if factor * size != clip.meta.size:
        raise ShardError(f"sample {clip.meta.id} has {clip.meta.size} px: the model needs a multiple of {size}")
    video, alpha = clip.video.on_grey(), clip.video.alpha.astype(np.float32) / 255
    views, frames = alpha.shape[:2]
    small = video.reshape(views, frames, size, factor, size, factor, 3).mean((3, 5))
    return small, alpha.reshape(views, frames, size, factor, size, factor).mean((3, 5))


def uncomposite(video: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return straight colours of a video that lies on grey 0.5."""
    cover = alpha[..., None]
    return np.clip((video - 0.5 * (1 - cover)) / np.maximum(cover, 1e-3), 0, 1)


def rig_of(meta: ClipMeta, views: int) -> Rig:
    """Return the orbit rig of every `len / views`-th camera of a sample."""
    cameras = meta.camera_to_world[:: len(meta.camera_to_world) // views]
    place = cameras[:, :3, 3]
    azimuths = np.degrees(np.arctan2(place[:, 1], place[:, 0])) % 360
    elevation = np.degrees(np.arcsin(place[0, 2] / np.linalg.norm(place[0])))
    return Rig(azimuths_deg=tuple(azimuths.tolist()), elevation_deg=float(elevation))


def verb_of(meta: ClipMeta) -> str:
    """Return an animation's verb: its name without the strength words and numbers."""
    words = [word for word in meta.animation.lower().replace("_", " ").split() if word not in ("gently", "wildly")]
    return " ".join(words)


def family_of(meta: ClipMeta) -> str:
    """Return what comes before the first '-' or '__' of an object's name: its kind, for generated ones and packs."""
    return meta.object.split("__")[0].split("-")[0].lower()
