"""Start a training from a driver: check, place Ray Train workers, follow their metrics, stop them in good order.

The workers write into the run folder, the driver only reads it; so a driver that is slow, or an observer whose server
is away, never holds the training up.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from animate4d.compute.paths import durable_path, input_path
from animate4d.compute.session import ray_session
from animate4d.core.errors import ClusterError, ConfigError, ShardError, TrainingError
from animate4d.core.hashing import hash_file, hash_json
from animate4d.data.placement import share_gpus
from animate4d.data.split import Split
from animate4d.data.store import kept_keys
from animate4d.io.atomic import write_json, write_text
from animate4d.io.shards import read_index
from animate4d.tracks.build import LEARNED
from animate4d.training.checkpoint import STOP_FILE, check_same_run, list_checkpoints, newest_sound, step_of
from animate4d.training.config import HELD_OUT, TrainConfig
from animate4d.training.metrics_log import NAME as METRICS
from animate4d.training.metrics_log import MetricsTail, read_rows
from animate4d.training.observers import TrainObserver, TrainResult, TrainStart
from animate4d.training.worker import OUTCOME, Assignment, read_outcome, train_worker

POLL_SECONDS = 0.3
RAY_LOADER_CPUS = 0.5
"""CPUs asked per worker when Ray Data tasks must fit beside it; a full CPU each would starve them on two cores."""


def train(
    config: TrainConfig, observers: Sequence[TrainObserver] = (), *, make_parts: Callable[..., Any] | None = None
) -> TrainResult:
    """Train, or go on training, and return when the workers have ended.

    SIGINT or SIGTERM in the main thread asks for a checkpoint and an orderly end; a second one ends at once.

    Args:
        config: the run; relative paths as in `compute.paths`.
        observers: told about start, rows, pictures and end, in this order, on this thread.
        make_parts: builds what is trained (see `parts.make_parts`, the default).

    Raises:
        ConfigError: the run folder holds another run, or a setting differs from the checkpoint's.
        ShardError: the data folder has no index.
        ClusterError: the cluster cannot hold the workers.
        TrainingError: the loss is not finite, data or disk fail, or every checkpoint is damaged.
    """
    config = replace(
        config,
        data=input_path(config.data),
        keep_list=config.keep_list and input_path(config.keep_list),
        out=durable_path(config.out),
        init=config.init and input_path(config.init),
        tracker_checkpoint=config.tracker_checkpoint and input_path(config.tracker_checkpoint),
        labels=config.labels and durable_path(config.labels),
        latents=config.latents and input_path(config.latents),
    )
    resolved = resolve(config)
    step = open_run(config, resolved)
    if step >= config.total_steps and (config.out / "model").is_dir():
        sys.stderr.write(f"all {step} steps are done already; model in {config.out / 'model'}\n")
        return ended_run(config.out, "finished", step)
    with ray_session():
        on_gpu = placed_on_gpu(config)
        start = TrainStart(
            out=config.out,
            name=config.run_name or config.out.name,
            resolved=resolved,
            step=step,
            steps=config.total_steps,
            workers=config.workers,
            on_gpu=on_gpu,
        )
        told: list[TrainObserver] = []
        try:
            result = follow(config, resolved, make_parts, start, observers, told)
        except BaseException as error:
            for observer in told:
                observer.ended(None, error)
            raise
        for observer in observers:
            observer.ended(result, None)
    return result


def resolve(config: TrainConfig) -> dict[str, Any]:
    """Return everything that decides a run's result, as JSON values; under "job" what does not.

    Raises:
        ShardError: the data folder has no index.
    """
    infos = read_index(config.data)
    job: dict[str, Any] = {"data": str(config.data), "out": str(config.out), "init": config.init and str(config.init)}
    job["tracker_checkpoint"] = config.tracker_checkpoint and str(config.tracker_checkpoint)
    job["execution"] = asdict(config.execution)
    job["latents"] = config.latents and str(config.latents)
    rhythm = ["threads", "checkpoint_every", "keep", "sample_every", "validate_every", "validate_clips", "log_every"]
    rhythm += ["max_failures", "run_name", "zero"]
    return {
        "preset": config.preset,
        "model": config.network().to_json(),
        "recipe": asdict(config.recipe()),
        "steps": config.total_steps,
        "workers": config.workers,
        "loader": config.loader,
        "tracker": tracker_text(config),
        # Latents kept are drawn from other random numbers than latents encoded on the way.
        **({} if config.latents is None else {"latents": "kept"}),
        "seed": config.seed,
        "data": {
            "clips": sum(info.samples for info in infos),
            "shards": len(infos),
            "sha256": hash_json([info.sha256 for info in infos]),
            "held_out": config.held_out,
            **({} if config.keep_list is None else {"keep_list": kept_hash(config.keep_list)}),
        },
        "job": job | {name: getattr(config, name) for name in rhythm},
    }


def tracker_text(config: TrainConfig) -> str:
    """Return the tracker's name, with the hash of its weights and its precision where it has some.

    Raises:
        ConfigError: there is no such file.
    """
    path = config.tracker_checkpoint
    if path is None:
        return config.tracker
    if not path.is_file():
        raise ConfigError(f"tracker_checkpoint: {path}: there is no such file")
    half = " bf16" if config.tracker_precision == "bf16" else ""
    return f"{config.tracker} {hash_file(path)[:12]}{half}"


def kept_hash(path: Path) -> str:
    """Return the sha256 of a list of clips.

    Raises:
        ShardError: the list cannot be read.
    """
    try:
        return hash_file(path)
    except OSError as error:
        raise ShardError(f"keep_list: {path} cannot be read ({error.strerror})") from error


def open_run(config: TrainConfig, resolved: dict[str, Any]) -> int:
    """Make or reopen the run folder; returns the optimiser steps already done.

    Raises:
        ConfigError: it holds a run and resume is off, or the settings differ.
        TrainingError: it has checkpoints, but none is sound.
    """
    out = config.out
    existing = list_checkpoints(out)
    step = 0
    if existing and not config.resume:
        raise ConfigError(
            f"out: {out} holds a run with {len(existing)} checkpoints: "
            "add --resume to go on with it, or give another --out"
        )
    if existing:
        found = newest_sound(out)
        if found.folder is None:
            raise TrainingError(
                f"no checkpoint in {out} is whole: {'; '.join(found.damaged)}: start with another --out"
            )
        for sentence in found.damaged:
            sys.stderr.write(f"warning: {sentence}; going on from {found.folder.name}\n")
        check_same_run(found.folder, resolved)
        step = step_of(found.folder)
        wrote = json.loads((found.folder / "config.json").read_text())["workers"]
        if wrote != config.workers:
            sys.stderr.write(f"{found.folder.name} is of {wrote} workers: its state is dealt out to {config.workers}\n")
    elif config.resume:
        sys.stderr.write(f"nothing to resume in {out}: starting at step 0\n")
    out.mkdir(parents=True, exist_ok=True)
    for name in (STOP_FILE, OUTCOME):
        (out / name).unlink(missing_ok=True)
    hold_out(config)
    write_json(out / "config.json", resolved)
    return step


def hold_out(config: TrainConfig) -> None:
    """List the clips that training leaves out in the run folder, or say that there are too few objects for any.

    Raises:
        ShardError: keep list and shards do not fit.
    """
    stored = [key for info in read_index(config.data) for key in info.keys]
    keys = kept_keys(stored, config.data, config.keep_list, None)
    away = Split(share=config.held_out, part="held_out").choose(keys)
    if away:
        write_text(config.out / HELD_OUT, "".join(f"{key}\n" for key in away))
        return
    (config.out / HELD_OUT).unlink(missing_ok=True)
    if config.held_out and config.validate_every:
        sys.stderr.write(f"too few objects to hold out {config.held_out:.0%} of them: no validation loss\n")


def placed_on_gpu(config: TrainConfig) -> bool:
    """Return whether the workers get GPUs, from what the cluster has rather than from this machine.

    Raises:
        ClusterError: the cluster is too small for the workers, for which Ray would wait for ever.
    """
    import ray

    have = ray.cluster_resources()
    cpus, gpus = have.get("CPU", 0.0), have.get("GPU", 0.0)
    if 0 < gpus < config.workers:
        raise ClusterError(
            f"--workers {config.workers} need a GPU each, but the cluster has {gpus:g}: give fewer workers"
        )
    if cpus < config.workers * worker_cpus(config):
        raise ClusterError(
            f"--workers {config.workers} need {config.workers * worker_cpus(config):g} CPUs, "
            f"but the cluster has {cpus:g}: give fewer workers or start more nodes"
        )
    return worker_gpus(config) > 0


def worker_gpus(config: TrainConfig) -> float:
    """Return the share of a GPU asked from Ray per worker: less than one where labellers must share it.

    Raises:
        ClusterError: the labellers would leave too little.
    """
    import ray

    gpus = ray.cluster_resources().get("GPU", 0.0)
    # The stream makes one labeller per worker.
    labellers = 1 if config.loader == "ray" and config.tracker in LEARNED else 0
    return share_gpus(gpus=gpus, workers=config.workers, labellers=labellers, asked=config.labeller_gpus).trainer


def worker_cpus(config: TrainConfig) -> float:
    """Return the CPUs asked from Ray per worker."""
    return RAY_LOADER_CPUS if config.loader == "ray" else 1.0


def follow(
    config: TrainConfig,
    resolved: dict[str, Any],
    make_parts: Callable[..., Any] | None,
    start: TrainStart,
    observers: Sequence[TrainObserver],
    told: list[TrainObserver],
) -> TrainResult:
    """Run the workers in a thread and pass on what they write until they end; `told` gets who heard of the start."""
    from animate4d.training.restarts import Restarts

    out = config.out
    restarts = Restarts(out, config.max_failures)
    tail, pictures = MetricsTail(out, start.step), set(drawn(out))
    fit = Fit(config, resolved, make_parts, start.on_gpu)
    # A daemon: when an observer raises or the user insists, the process ends and Ray takes the workers down with it.
    run = threading.Thread(target=fit.run, name="ray-train", daemon=True)
    with stop_on_signal(out):
        run.start()
        for observer in observers:
            observer.started(start)
            told.append(observer)
        alive = True
        while alive:
            run.join(POLL_SECONDS)
            alive = run.is_alive()
            restarts.tell()
            rows = tail.new_rows()
            fresh = [image for image in drawn(out) if image not in pictures]
            pictures.update(fresh)
            for observer in observers:
                if rows:
                    observer.progressed(rows)
                for image in fresh:
                    observer.drew(image, int(image.stem.removeprefix("step-")))
    outcome = read_outcome(out)
    if outcome is None:
        restarts.give_up(fit.error)
        raise fit.error or TrainingError(f"the workers ended without a word: see Ray's logs, then --resume {out}")
    if outcome["state"] == "failed":
        if outcome["traceback"]:
            write_text(out / "error.txt", outcome["traceback"])
            raise TrainingError(f"training failed: {outcome['message']} (traceback in {out / 'error.txt'})")
        raise TrainingError(outcome["message"])
    return ended_run(out, outcome["state"], outcome["step"])


def ended_run(out: Path, state: Literal["finished", "stopped"], step: int) -> TrainResult:
    """Return the result of a run folder whose training has ended well."""
    rows = read_rows(out / METRICS)
    return TrainResult(
        out=out,
        model=out / "model" if state == "finished" else None,
        step=step,
        state=state,
        metrics=rows[-1] if rows else {},
    )


class Fit:
    """Ray Train's blocking call, made to run in a thread."""

    def __init__(
        self, config: TrainConfig, resolved: dict[str, Any], make_parts: Callable[..., Any] | None, on_gpu: bool
    ) -> None:
        self._config, self._resolved, self._make_parts, self._on_gpu = config, resolved, make_parts, on_gpu
        self.error: BaseException | None = None

    def run(self) -> None:
        """Start the workers and wait; keeps the error instead of raising it."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        from animate4d.training.parts import make_parts
        from animate4d.training.restarts import RestartNote

        config = self._config
        storage = config.out / ".ray"
        assignment = Assignment(config=config, resolved=self._resolved, make_parts=self._make_parts or make_parts)
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"assignment": assignment},
            torch_config=TorchConfig(backend="nccl" if self._on_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.workers,
                use_gpu=self._on_gpu,
                resources_per_worker={"CPU": worker_cpus(config)}
                | ({"GPU": worker_gpus(config)} if self._on_gpu else {}),
            ),
            run_config=RunConfig(
                # A name of its own per start: Ray would otherwise restore its own idea of the run from the folder.
                name=uuid.uuid4().hex[:12],
                storage_path=str(storage),
                failure_config=FailureConfig(max_failures=config.max_failures),
                callbacks=[RestartNote(config.out)],
            ),
        )
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self.error = error
        shutil.rmtree(storage, ignore_errors=True)


def drawn(out: Path) -> list[Path]:
    """Return the sample grids of a run, oldest first."""
    return sorted((out / "samples").glob("step-*.png"))


@contextmanager
def stop_on_signal(out: Path) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a request to save and stop, the second into KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        if (out / STOP_FILE).exists():
            raise KeyboardInterrupt
        (out / STOP_FILE).touch()
        sys.stderr.write("\nstopping after a checkpoint; once more to stop at once\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        (out / STOP_FILE).unlink(missing_ok=True)
