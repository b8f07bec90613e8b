"""Fit rigged models to perfect videos of their own animations, and compare the motion found with the true one."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from animate4d import __version__
from animate4d.bench.fourd_clips import MotionClip, motion_clips
from animate4d.bench.fourd_config import BenchFourDConfig
from animate4d.bench.fourd_picture import draw_fit
from animate4d.bench.fourd_table import summaries, text_table
from animate4d.bench.fourd_variants import AS_IS, Variant, choose_variants
from animate4d.bench.machine import machine_facts
from animate4d.bench.resident import reset_peak, resident_bytes, resident_peak
from animate4d.compute.device import pick_device
from animate4d.core.cameras import Rig
from animate4d.core.errors import AssetError
from animate4d.core.hashing import hash_file, hash_json
from animate4d.fourd.fit import fit_motion
from animate4d.io.atomic import write_json, write_text
from animate4d.io.images import save_png
from animate4d.models.mv_vdm import MVVDM
from animate4d.models.score import ClipScore
from animate4d.pipeline.point_features import PointFeatures
from animate4d.pipeline.target import Target, true_target
from animate4d.pipeline.truth import EVALUATION, UNSEEN, score_fit
from animate4d.runs.registry import resolve_model

VERSION = 1
"""Raised when rows of an older run must not be taken for rows of this one."""


def bench_fourd(config: BenchFourDConfig) -> int:
    """Measure, print the table, write fourd.csv, fourd.json and fourd.png; returns 0.

    Raises:
        AssetError: no animation of the assets can be fitted.
        ConfigError: a variant or tracker is unknown, or there is no such device.
        ModelError: a tracker's checkpoint is missing or does not fit.
    """
    variants = choose_variants(config)
    device = pick_device(config.device)
    torch.set_num_threads(config.threads)
    kept = config.out / "fits"
    kept.mkdir(parents=True, exist_ok=True)
    floor = resident_bytes()
    rows = []
    for number, clip in enumerate(motion_clips(config)):
        targets: dict[tuple[str, Path | None, bool], Target] = {}
        for variant in variants:
            path = kept / f"{clip.name}-{fit_key(clip, variant, config)}.json"
            if path.exists():
                row = json.loads(path.read_text())
            else:
                wanted = variant.tracker, variant.checkpoint, variant.lamps
                if wanted not in targets:
                    poses = clip.mesh, clip.vertices, clip.times
                    targets[wanted] = true_target(*poses, Rig(), *wanted[:2], lamps=variant.lamps)
                row, picture = measure(clip, variant, targets[wanted], floor, device)
                if picture is not None:
                    save_png(path.with_suffix(".png"), picture)
                write_json(path, row)
            rows.append(row | {"file": path.name})
            ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3f}"
            sys.stderr.write(f"{number + 1}/{config.limit} {clip.name}, {variant.name}: {ratio}\n")
    if not rows:
        raise AssetError(f"{config.assets}: holds no animation that can be fitted")
    write_results(config, rows)
    print(text_table(rows))
    print(f"results: {config.out}")
    return 0


def fit_key(clip: MotionClip, variant: Variant, config: BenchFourDConfig) -> str:
    """Return a hash of all that decides a fit, so that a run can go on where another stopped."""
    facts = {
        "version": [VERSION, __version__],
        "asset": clip.asset_sha256,
        "clip": clip.name,
        "times": clip.times.tolist(),
        "fit": asdict(variant.fit),
        "tracker": variant.tracker,
        "weights": "" if variant.checkpoint is None else hash_file(variant.checkpoint),
        "around": variant.around,
        "threads": config.threads,
        "device": config.device,
        "variant": variant.name,
    }
    return hash_json(facts)[:12]


def measure(
    clip: MotionClip, variant: Variant, target: Target, floor: int, device: torch.device
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Fit one clip in one way; returns its row and, of the preset as it is, a picture."""
    reset_peak()
    wall = time.perf_counter()
    features = score = None
    if variant.features or variant.distilled:
        model, caption = MVVDM.from_pretrained(resolve_model("shipped")).to(device).eval(), clip.name.replace("-", " ")
        features = PointFeatures(model, target.video, clip.mesh, caption) if variant.features else None
        score = ClipScore(model, caption) if variant.distilled else None
    fit = fit_motion(
        clip.mesh,
        target.video,
        variant.fit,
        tracks=target.tracks,
        flow=target.flow,
        flow_weight=target.flow_weight,
        around=target.around if variant.around else None,
        features=features,
        score=score,
        device=device,
    )
    wall, peak = time.perf_counter() - wall, resident_peak() - floor
    unseen = {"psnr_unseen": UNSEEN, "psnr_evaluation": EVALUATION}
    near = score_fit(clip.mesh, fit, clip.vertices, target.video, unseen, lamps=variant.lamps)
    row = {
        "clip": clip.name,
        "variant": variant.name,
        "ratio": near.ratio,
        "e_fit": near.e_fit,
        "e_static": near.e_static,
        "psnr": near.psnr,
        **near.psnr_unseen,
        "mask_iou": round(float(fit.mask_iou[1:].mean()), 4),
        "lost_frames": " ".join(map(str, fit.lost_frames)),
        "cpu_s": round(fit.seconds, 2),
        "wall_s": round(wall, 2),
        "peak_mb": round(peak / 1e6, 1),
    }
    picture = draw_fit(clip, fit, row) if variant.name == AS_IS else None
    return row, picture


def write_results(config: BenchFourDConfig, rows: list[dict[str, Any]]) -> None:
    """Write the table, the lines it is made of, and the worst clips as pictures."""
    settings = json.loads(json.dumps(asdict(config), default=str))
    facts = machine_facts(torch.device("cpu"))
    write_json(config.out / "fourd.json", {"rows": summaries(rows), "settings": settings, "machine": facts})
    stream = io.StringIO()
    writer = csv.DictWriter(
        stream, [name for name in rows[0] if name != "file"], lineterminator="\n", extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows(rows)
    write_text(config.out / "fourd.csv", stream.getvalue())
    drawn = [row for row in rows if row["variant"] == AS_IS]
    worst = sorted(drawn, key=lambda row: -(row["ratio"] or 0.0))[: config.pictures]
    if worst:
        files = [config.out / "fits" / Path(row["file"]).with_suffix(".png") for row in worst]
        save_png(config.out / "fourd.png", np.concatenate([np.asarray(Image.open(path)) for path in files]))
