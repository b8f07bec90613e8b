"""`animate4d bench training`: what more workers gain; what platform, MLflow and data cost a training step."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from animate4d.assets.procedural import generate_objects
from animate4d.batch.sidecar_config import LabelTracksConfig
from animate4d.batch.sidecars import label_tracks
from animate4d.bench.clock import Timing, summary
from animate4d.bench.loops import TrainingPlan, compare_loops
from animate4d.bench.machine import machine_facts
from animate4d.bench.training_config import BenchTrainingConfig
from animate4d.bench.training_report import show
from animate4d.bench.training_runs import Run, TimedObserver, run_side_by_side, run_training
from animate4d.compute.paths import durable_path, input_path
from animate4d.compute.session import ray_session
from animate4d.io.atomic import write_json
from animate4d.io.shards import ShardWriter
from animate4d.models.config import model_preset
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples
from animate4d.runs.callback import MlflowObserver
from animate4d.training.config import TrainConfig
from animate4d.training.recipe import RECIPES

OBJECTS, CLIPS_PER_OBJECT = 4, 2
"""Of the generated shards: 32 items, so that every epoch has several steps."""

TRACKER = "opencv-lk"
"""Whose labels are kept ahead; which tracker made them costs a reader nothing."""

LOOP_BLOCKS, LOOP_STEPS = 10, 3
"""Turns of each loop after the first, which warms up, and steps per turn."""

SAME = 1e-4
"""Largest relative difference of the first losses of our loop and the plain one."""

NEVER = 10**9


@dataclass(kw_only=True, slots=True)
class Kind:
    """One way to train, run once per round.

    Attributes:
        name: for the table.
        run: trains and returns (wall, CPU) milliseconds of every step, and the share of time waited for data.
        spans: of all rounds so far.
        medians: wall milliseconds of a step, one per round; they show how far the machine drifted.
        waits: one per round.
    """

    name: str
    run: Callable[[], tuple[list[tuple[float, float]], float | None]]
    spans: list[tuple[float, float]] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def once(self) -> None:
        """Train once and keep the times."""
        spans, wait = self.run()
        self.spans += spans
        self.medians.append(round(summary(spans, on_cpu=True).ms, 1))
        if wait is not None:
            self.waits.append(wait)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What was measured of one kind of training: time of a step, and the share of it waited for data."""

    name: str
    timing: Timing
    data_wait: float | None = None
    rounds_ms: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One comparison.

    Attributes:
        name: what is compared.
        value: the ratio or share.
        low: least value that is good enough, or None.
        high: largest value that is good enough, or None.
        note: what else there is to know.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def good(self) -> bool:
        """Whether the value is good enough."""
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)


@dataclass(kw_only=True, slots=True)
class TrainingReport:
    """All results, see `training_report.show`."""

    settings: dict[str, Any]
    machine: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)


def bench_training(config: BenchTrainingConfig) -> int:
    """Run the bench, print its tables and write its file; returns 1 if the plain loop trained something else."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = json.loads(json.dumps(asdict(config), default=str))
    report = TrainingReport(settings=settings, machine=machine_facts(device))
    same = True
    if "loop" in config.parts:
        same = compare_with_plain(config, device, report)
    if {"scaling", "mlflow", "data"} & set(config.parts):
        with tempfile.TemporaryDirectory(prefix="animate4d-bench-") as folder, ray_session():
            Trainings(config, Path(folder)).measure(report)
    report.machine["load_average_at_end"] = round(os.getloadavg()[0], 2)
    print(show(report))
    out = durable_path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, to_json(report))
    print(f"\n{out}")
    return 0 if same else 1


def compare_with_plain(config: BenchTrainingConfig, device: torch.device, report: TrainingReport) -> bool:
    """Measure our loop and a plain one in turns, one worker, batches in memory; returns whether both trained alike."""
    say("our loop and a plain one in turns")
    recipe = RECIPES[config.preset]()
    plan = TrainingPlan(
        config=model_preset(config.preset),
        recipe=recipe,
        clips=recipe.optimizer.batch_size,
        device=device,
        seed=config.seed,
    )
    result = compare_loops(plan, blocks=1 + LOOP_BLOCKS, steps=LOOP_STEPS)
    same = result.difference <= SAME
    report.rows += [Row(name="plain loop", timing=result.plain), Row(name="platform's loop", timing=result.ours)]
    report.verdicts.append(
        Verdict(
            name="platform's step to a plain loop's",
            value=result.ours.ms / result.plain.ms,
            high=1.03,
            note="" if same else f"NOT COMPARED: their losses differ by {result.difference:.2g}",
        )
    )
    return same


class Trainings:
    """The kinds of real training, and what their times say."""

    def __init__(self, config: BenchTrainingConfig, folder: Path) -> None:
        """Prepare shards; `folder` takes everything that is written."""
        self.config, self.folder = config, folder
        self.data = input_path(config.data) if config.data else make_shards(folder, config.seed)
        self.batch = RECIPES[config.preset]().optimizer.batch_size
        self.observers: list[TimedObserver] = []
        self.started = 0

    def measure(self, report: TrainingReport) -> None:
        """Run every kind in turns, and add rows and verdicts."""
        kinds = self.kinds()
        for number in range(self.config.rounds):
            for kind in list(kinds.values())[:: 1 if number % 2 == 0 else -1]:
                say(f"round {number + 1} of {self.config.rounds}: {kind.name}")
                kind.once()
        on_cpu = not torch.cuda.is_available()
        rows = {
            key: Row(
                name=kind.name,
                timing=summary(kind.spans, on_cpu=on_cpu),
                data_wait=max(kind.waits, default=None),
                rounds_ms=tuple(kind.medians),
            )
            for key, kind in kinds.items()
        }
        report.rows += rows.values()
        report.verdicts += self.verdicts(rows)

    def kinds(self) -> dict[str, Kind]:
        """Return what the parts asked for need."""
        workers, parts = self.config.workers, self.config.parts
        kinds = {"one": Kind(name="1 worker", run=lambda: told(self.run(self.settings())))}
        if "scaling" in parts:
            kinds["many"] = Kind(name=f"{workers} workers", run=lambda: told(self.run(self.settings(workers=workers))))
            full = {"workers": workers, "batch_size": workers * self.batch}
            kinds["each"] = Kind(
                name=f"{workers} workers, full batch each", run=lambda: told(self.run(self.settings(**full)))
            )
            kinds["apart"] = Kind(name=f"{workers} apart, 1/{workers} batch each", run=self.run_apart)
        if "mlflow" in parts:
            kinds["mlflow"] = Kind(name="1 worker, MLflow", run=self.run_observed)
        if "data" in parts:
            labels = self.folder / "labels"
            label_tracks(LabelTracksConfig(shards=self.data, tracker=TRACKER, labels=labels))
            kinds["kept"] = Kind(
                name="1 worker, labels kept ahead",
                run=lambda: told(self.run(self.settings(tracker=TRACKER, labels=labels))),
            )
        return kinds

    def settings(self, **changes: Any) -> TrainConfig:
        """Return a training in a folder of its own: one worker, nothing drawn or validated, a checkpoint at its end."""
        self.started += 1
        common = TrainConfig(
            data=self.data,
            out=self.folder / f"run-{self.started}",
            preset=self.config.preset,
            steps=self.config.warmup + self.config.steps + 1,
            seed=self.config.seed,
            held_out=0.0,
            checkpoint_every=NEVER,
            sample_every=0,
            validate_every=0,
        )
        return replace(common, **changes)

    def run(self, settings: TrainConfig, *observers: TimedObserver) -> Run:
        """Train once."""
        return run_training(settings, self.config.warmup, observers)

    def run_apart(self) -> tuple[list[tuple[float, float]], None]:
        """Train as many models at once as there are workers, each on its share of the batch: nothing is exchanged."""
        share = self.batch // self.config.workers
        settings = [self.settings(batch_size=share) for _ in range(self.config.workers)]
        return run_side_by_side(settings, self.config.warmup), None

    def run_observed(self) -> tuple[list[tuple[float, float]], float]:
        """Train with the MLflow observer and a new SQLite store."""
        settings = self.settings()
        store = f"sqlite:///{self.folder / f'mlflow-{self.started}.db'}"
        self.observers.append(TimedObserver(MlflowObserver(store, register=False)))
        return told(self.run(settings, self.observers[-1]))

    def verdicts(self, rows: dict[str, Row]) -> list[Verdict]:
        """Return the comparisons."""
        found, step = [], rows["one"].timing.ms
        if "many" in rows:
            most = step / rows["apart"].timing.ms
            found.append(
                Verdict(
                    name=f"{self.config.workers} workers to one, steps per second",
                    value=step / rows["many"].timing.ms,
                    low=0.8 * self.config.workers,
                    note=f"the same batch shared; this machine gives {most:.2f} to trainings that exchange nothing",
                )
            )
        if "each" in rows:
            found.append(
                Verdict(
                    name=f"{self.config.workers} workers to one, samples per second",
                    value=self.config.workers * step / rows["each"].timing.ms,
                    low=0.8 * self.config.workers,
                    note="a full batch each",
                )
            )
        if "mlflow" in rows:
            spent = [observer.share for observer in self.observers]
            opened = sum(observer.seconds["started"][0] for observer in self.observers) / len(self.observers)
            closed = sum(observer.seconds["ended"][0] for observer in self.observers) / len(self.observers)
            found.append(
                Verdict(
                    name="MLflow's share of the time, in the driver",
                    value=sum(spent) / len(spent),
                    high=0.01,
                    note=f"once per run {opened:.1f} s beside the workers' start, {closed:.1f} s at the end",
                )
            )
            found.append(Verdict(name="step with MLflow to a step without", value=rows["mlflow"].timing.ms / step))
        waits = {key: row.data_wait for key, row in rows.items() if row.data_wait is not None}
        if "data" in self.config.parts:
            found.append(
                Verdict(name="data wait, labels in the shards", value=waits["one"], high=0.02),
            )
            found.append(Verdict(name="data wait, labels kept ahead", value=waits["kept"], high=0.02))
        return found


def told(run: Run) -> tuple[list[tuple[float, float]], float]:
    """Return a run's times and its data wait."""
    return run.steps(), run.data_wait


def make_shards(folder: Path, seed: int) -> Path:
    """Render a few generated objects as they would be for training."""
    say("rendering a few clips to train on")
    with ShardWriter(folder / "shards") as writer:
        for path in generate_objects(folder / "objects", count=OBJECTS, seed=seed, clips_per_object=CLIPS_PER_OBJECT):
            for clip in clip_samples(path, ClipOptions()):
                if clip.members is not None:
                    writer.write(clip.key, clip.members)
    return folder / "shards"


def to_json(report: TrainingReport) -> dict[str, Any]:
    """Return the report as JSON values."""
    return {
        "bench": "training",
        "settings": report.settings,
        "machine": report.machine,
        "rows": [asdict(row) | {"timing": row.timing.to_json()} for row in report.rows],
        "verdicts": [asdict(verdict) | {"good": verdict.good} for verdict in report.verdicts],
    }


def say(text: str) -> None:
    """Tell what takes time, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
