"""Run every available tracker on the same clips, in turns, and score it against exact tracks."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from animate4d.bench.machine import machine_facts
from animate4d.bench.trackers_clips import TrueClip, choose_clips, find_assets, render_true_clip
from animate4d.bench.trackers_config import BenchTrackersConfig
from animate4d.bench.trackers_picture import draw_clip
from animate4d.bench.trackers_score import TrackScore, mean_score, score_tracks
from animate4d.core.errors import AssetError
from animate4d.core.tracks import Tracks
from animate4d.io.atomic import write_json, write_text
from animate4d.io.images import save_png
from animate4d.tracks.build import WEIGHTLESS, make_tracker
from animate4d.tracks.cotracker3.config import TrackingSettings
from animate4d.tracks.protocol import PointTracker


class StillTracker:
    """Says that no point ever moves."""

    id = "still"

    def track(
        self, video: np.ndarray, queries: np.ndarray, masks: np.ndarray | None, valid: np.ndarray | None = None
    ) -> Tracks:
        """Return the queries in every frame."""
        xy = np.repeat(queries[:, None], video.shape[1], axis=1).astype(np.float32)
        return Tracks(xy=xy, visible=np.ones(xy.shape[:3], np.float32), tracker=self.id)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerRun:
    """One tracker on one clip.

    Attributes:
        clip: name.
        tracker: id.
        motion_px: of the clip.
        score: against exact tracks.
        ms: wall time of the clip.
        cpu_ms: CPU time of this process.
    """

    clip: str
    tracker: str
    motion_px: float
    score: TrackScore
    ms: float
    cpu_ms: float


def bench_trackers(config: BenchTrackersConfig) -> int:
    """Score the trackers; returns 0.

    Raises:
        AssetError: no animation of the assets can be rendered.
        ModelError: a checkpoint is missing or does not fit.
        ConfigError: the official package is asked for and not installed.
    """
    trackers = make_trackers(config)
    runs: list[TrackerRun] = []
    drawn: list[tuple[float, np.ndarray]] = []
    for number, clip in enumerate(islice(true_clips(config), config.clips)):
        sys.stderr.write(f"clip {number + 1}/{config.clips}: {clip.name}, {clip.motion_px:.1f} px of motion\n")
        # In turns forwards and backwards, so that what else the machine does weighs on all alike.
        order = trackers if number % 2 == 0 else trackers[::-1]
        found = {}
        for tracker in order:
            run, found[tracker.id] = run_tracker(tracker, clip, config.size)
            runs.append(run)
        drawn.append((clip.motion_px, draw_clip(clip, {tracker.id: found[tracker.id] for tracker in trackers[1:]})))
        drawn = sorted(drawn, key=lambda entry: -entry[0])[: config.pictures]
    if not runs:
        raise AssetError(f"{config.assets}: holds no animation that moves")
    rows = table_rows(runs, [tracker.id for tracker in trackers])
    write_results(config, rows, runs, [picture for _, picture in drawn])
    print(text_table(rows))
    print(f"results: {config.out}")
    return 0


def make_trackers(config: BenchTrackersConfig) -> list[PointTracker]:
    """Build all trackers that can run here."""
    settings = TrackingSettings(precision=config.precision)
    learned = [make_tracker("cotracker3", checkpoint=path, settings=settings) for path in config.checkpoints]
    if config.official:
        learned += [make_tracker("cotracker3-official", checkpoint=path) for path in config.checkpoints]
    return [StillTracker(), *(make_tracker(name) for name in WEIGHTLESS), *learned]


def true_clips(config: BenchTrackersConfig) -> Iterator[TrueClip]:
    """Yield rendered animations that move; those that cannot be rendered are named and skipped."""
    for asset, number in choose_clips(find_assets(config.assets), config.seed):
        try:
            clip = render_true_clip(asset, number, config)
        except AssetError as error:
            sys.stderr.write(f"left out: {error}\n")
            continue
        if clip is not None:
            yield clip


def run_tracker(tracker: PointTracker, clip: TrueClip, size: int) -> tuple[TrackerRun, Tracks]:
    """Track one clip as labels are made, and score it."""
    cpu, wall = time.process_time(), time.perf_counter()
    tracks = tracker.track(clip.video, clip.queries, clip.masks, clip.valid)
    run = TrackerRun(
        clip=clip.name,
        tracker=tracker.id,
        motion_px=round(clip.motion_px, 2),
        score=score_tracks(tracks, clip.tracks, size),
        ms=1e3 * (time.perf_counter() - wall),
        cpu_ms=1e3 * (time.process_time() - cpu),
    )
    return run, tracks


def table_rows(runs: list[TrackerRun], trackers: list[str]) -> list[dict[str, Any]]:
    """Return a row per tracker: mean scores, median times per clip."""
    rows = []
    for tracker in trackers:
        own = [run for run in runs if run.tracker == tracker]
        rows.append(
            {
                "tracker": tracker,
                **{name: round(value, 4) for name, value in mean_score([run.score for run in own]).items()},
                "ms": round(float(np.median([run.ms for run in own])), 1),
                "cpu_ms": round(float(np.median([run.cpu_ms for run in own])), 1),
                "clips": len(own),
            }
        )
    return rows


def write_results(
    config: BenchTrackersConfig, rows: list[dict[str, Any]], runs: list[TrackerRun], pictures: list[np.ndarray]
) -> None:
    """Write trackers.json, trackers.csv and trackers.png."""
    settings = json.loads(json.dumps(asdict(config), default=str))
    facts = machine_facts(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    write_json(config.out / "trackers.json", {"rows": without_nan(rows), "settings": settings, "machine": facts})
    stream = io.StringIO()
    lines = [
        {"clip": run.clip, "tracker": run.tracker, "motion_px": run.motion_px, **asdict(run.score), "ms": run.ms}
        for run in runs
    ]
    writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: round(value, 4) if isinstance(value, float) else value for name, value in line.items()} for line in lines
    )
    write_text(config.out / "trackers.csv", stream.getvalue())
    if pictures:
        save_png(config.out / "trackers.png", np.concatenate(pictures))


def without_nan(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace NaN by None, which JSON knows."""
    return [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows
    ]


COLUMNS = (
    ("error_px", "error px", "{:.2f}"),
    ("within", "within %", "{:.1%}"),
    ("occlusion", "occlusion", "{:.1%}"),
    ("jaccard", "jaccard", "{:.1%}"),
    ("kept", "kept", "{:.1%}"),
    ("kept_error_px", "kept error", "{:.2f}"),
    ("false", "false", "{:.1%}"),
    ("ms", "ms/clip", "{:.0f}"),
    ("cpu_ms", "CPU ms", "{:.0f}"),
)


def text_table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as text; pixels are those of a picture of 256."""
    lines = [["tracker", *(title for _, title, _ in COLUMNS)]]
    lines += [[row["tracker"], *(form.format(row[name]) for name, _, form in COLUMNS)] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )
