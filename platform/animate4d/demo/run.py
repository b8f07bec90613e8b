"""The demo: every job of the platform once, on this machine, each through the function its job calls."""

from __future__ import annotations

import csv
import io
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from animate4d.assets.load import load_asset
from animate4d.batch.config import AnimateBatchConfig
from animate4d.batch.run import animate_batch
from animate4d.batch.shards import build_shards
from animate4d.batch.shards_config import BuildShardsConfig
from animate4d.compute.session import ray_session
from animate4d.core.errors import AssetError
from animate4d.demo.config import DemoConfig
from animate4d.io.atomic import write_text
from animate4d.jobs import train
from animate4d.pipeline.config import AnimateOptions
from animate4d.training.config import TrainConfig

Value = TypeVar("Value")

STAGES = 4
HELD_OUT_SEED = 990_000
"""Objects of these seeds are in no training set: neither the demo's nor that of the shipped weights."""

PROMPTS = (
    ("barrel", "a {} bouncing"),
    ("tree", "a {} swaying"),
    ("lamp", "a {} bending"),
    ("mushroom", "a {} stretching wildly"),
)
"""Family and sentence of the four generated objects that are animated."""

STILL_PROMPTS = ("a {} bouncing", "a {} swaying", "a {} bending", "a {} stretching")
"""Sentences for the user's own still models."""


def run_demo(config: DemoConfig) -> int:
    """Run the demo and print where everything is; returns the exit code of the worst stage."""
    begun, out = time.monotonic(), config.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    store = f"sqlite:///{out / 'mlflow.db'}"
    seconds: dict[str, float] = {}

    def stage(title: str, work: Callable[[], Value]) -> Value:
        print(f"\n[{len(seconds) + 1}/{STAGES}] {title}", flush=True)
        start = time.monotonic()
        value = work()
        seconds[title] = time.monotonic() - start
        return value

    with ray_session():
        moving, manifest = stage("objects", lambda: gather(config, out))
        shards = BuildShardsConfig(assets=moving, out=out / "shards", limit=config.objects)
        failed = stage("shards: every clip seen from 16 sides", lambda: build_shards(shards))
        run = out / "training"
        training = TrainConfig(
            data=out / "shards",
            out=run,
            steps=config.steps,
            seed=config.seed,
            resume=(run / "checkpoints").is_dir(),
            tracking_uri=store,
            run_name="demo",
        )
        failed = max(failed, stage(f"training: {config.steps} steps", lambda: train(training)))
        batch = AnimateBatchConfig(
            manifest=manifest,
            out=out / "batch",
            model=str(run / "model") if config.weights == "fresh" else "shipped",
            tracking_uri=store,
            options=AnimateOptions(fit="draft"),
        )
        failed = max(failed, stage("animating four still models", lambda: animate_batch(batch)))

    print("\nDone.\n")
    for title, spent in seconds.items():
        print(f"  {spent:6.0f} s  {title}")
    print(f"  {time.monotonic() - begun:6.0f} s  together\n")
    print(f"  gallery      {out / 'batch' / 'index.html'}")
    print(f"  models       {out / 'batch'}/*/animated.glb")
    print(f"  clips        {out / 'shards' / 'contact.png'}")
    print(
        f"  MLflow       .venv/bin/mlflow server --backend-store-uri {store} --host 127.0.0.1 --port 5000 --workers 1"
    )
    if config.weights == "shipped":
        print("\n  The animations come from the shipped weights; --weights fresh uses those trained just now.")
    return failed


def gather(config: DemoConfig, out: Path) -> tuple[Path, Path]:
    """Return the folder of moving models to train on and the manifest of still ones to animate."""
    if config.assets is None:
        from animate4d.assets.procedural import generate_objects

        generate_objects(out / "objects", count=config.objects, seed=config.seed, clips_per_object=3)
        rows = []
        for family, sentence in PROMPTS:
            path = generate_objects(out / "still" / family, count=1, seed=HELD_OUT_SEED, families=(family,))[0]
            rows.append((path, sentence.format(" ".join(path.stem.split("-")[3:]))))
        print(f"{config.objects} moving objects generated in {out / 'objects'}, and four others to animate")
        return out / "objects", write_manifest(out / "manifest.csv", rows)
    moving, still = sort_assets(config.assets)
    if not moving:
        raise AssetError(f"{config.assets}: none of its GLBs is animated, so there is nothing to train on")
    folder = out / "objects"
    folder.mkdir(exist_ok=True)
    for path in moving[: config.objects]:
        shutil.copyfile(path, folder / path.name)
    chosen = (still or moving)[: len(STILL_PROMPTS)]
    names = [path.stem.split("__")[-1].replace("_", " ").lower() for path in chosen]
    rows = [(path, STILL_PROMPTS[index].format(names[index])) for index, path in enumerate(chosen)]
    print(f"{len(moving)} moving and {len(still)} still models found in {config.assets}")
    return folder, write_manifest(out / "manifest.csv", rows)


def sort_assets(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the readable GLBs below a folder that move, and those that do not."""
    moving: list[Path] = []
    still: list[Path] = []
    for path in sorted(folder.rglob("*.glb")):
        try:
            (moving if load_asset(path).clips else still).append(path)
        except AssetError as error:
            print(f"skipped: {error}")
    return moving, still


def write_manifest(path: Path, rows: list[tuple[Path, str]]) -> Path:
    """Write the manifest of the demo's batch and return its path."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["asset", "prompt", "seed"])
    writer.writerows([str(asset), prompt, "0"] for asset, prompt in rows)
    write_text(path, table.getvalue())
    return path
