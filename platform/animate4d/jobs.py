"""Jobs that join rooms which do not know each other: training with its MLflow observer, a request with a model."""

from __future__ import annotations

import csv
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from animate4d.assets.config import GenerateObjectsConfig
    from animate4d.models.import_config import ExportWeightsConfig
    from animate4d.pipeline.animate_config import AnimateConfig
    from animate4d.pipeline.evaluate_config import EvaluateConfig
    from animate4d.pipeline.probe_config import ProbeConfig
    from animate4d.training.config import TrainConfig


def generate(config: GenerateObjectsConfig) -> int:
    """Write procedural objects and rig still ones; returns 1 when a still one could not be rigged, else 0."""
    from animate4d.assets.procedural import generate_objects
    from animate4d.assets.rigging import animate_static
    from animate4d.core.errors import AssetError

    paths = generate_objects(
        config.out,
        count=config.count,
        seed=config.seed,
        families=config.families or None,
        clips_per_object=config.clips,
    )
    still = sorted(config.rig.rglob("*.glb")) if config.rig is not None else []
    failed = 0
    with open(config.out / "captions.csv", "a", newline="") as stream:
        for path in still:
            try:
                rows = animate_static(path, config.out / path.name, seed=config.seed, clips=config.clips)
            except AssetError as error:
                print(f"not rigged: {error}", file=sys.stderr)
                failed += 1
                continue
            csv.writer(stream, lineterminator="\n").writerows(rows)
    print(f"{len(paths)} generated and {len(still) - failed} rigged objects, and captions.csv, in {config.out}")
    return 1 if failed else 0


def train(config: TrainConfig, *, make_parts: Callable[..., Any] | None = None) -> int:
    """Train and register the model; returns 0 when all steps are done, 130 when stopped with a checkpoint.

    Args:
        config: the run.
        make_parts: builds what is trained (see `training.parts.make_parts`, the default).
    """
    from animate4d.runs.callback import MlflowObserver
    from animate4d.training.launch import train as launch
    from animate4d.training.progress import ProgressLine

    mlflow = MlflowObserver(config.tracking_uri, register=config.register)
    result = launch(config, [ProgressLine(), mlflow], make_parts=make_parts)
    if result.model is None:
        print(f"stopped at step {result.step}; go on with --resume", file=sys.stderr)
        return 130
    print(f"model: {result.model}")
    return 0


def animate_one(config: AnimateConfig) -> int:
    """Animate one object into a folder; returns the exit code."""
    from animate4d.core.errors import AssetError

    if not config.asset.is_file():  # before seconds of imports, and before a model is loaded and a folder made
        raise AssetError(f"{config.asset}: there is no such file")
    from animate4d.compute.device import pick_device
    from animate4d.compute.paths import durable_path
    from animate4d.io.progress import Progress
    from animate4d.models.mv_vdm import MVVDM
    from animate4d.pipeline.animate import animate
    from animate4d.pipeline.receipt import model_version
    from animate4d.runs.registry import resolve_model
    from animate4d.videos.generate import LocalModel

    request, out = config.request(), durable_path(config.out)
    place, model = pick_device(config.fit_device, "fit-device"), None
    if config.video == "generated":
        folder = resolve_model(config.model, uri=config.tracking_uri)
        model = LocalModel(MVVDM.from_pretrained(folder).to(pick_device("auto")).eval(), model_version(folder))
    bar, begun = Progress(100, "animate"), time.monotonic()
    animate(request, model, out, progress=lambda stage, share: bar.update(int(100 * share), stage), device=place)
    result = next(path for name in ("animated.glb", "motion.npz", "views.mp4") if (path := out / name).exists())
    look = next(path for name in ("viewer.html", "views.mp4") if (path := out / name).exists())
    print(f"\n{result} ({time.monotonic() - begun:.0f} s); look at {look}")
    return 0


def evaluate(config: EvaluateConfig) -> int:
    """Score a model on held-out clips and print the table; returns the exit code."""
    from animate4d.models.mv_vdm import MVVDM
    from animate4d.pipeline.evaluate import evaluate as run
    from animate4d.runs.registry import resolve_model

    folder = resolve_model(config.model, uri=config.tracking_uri)
    scores = run(config, MVVDM.from_pretrained(folder).eval())
    by_verb = scores.pop("by verb")
    names = ("clips", "psnr", "masked_psnr", "motion", "slope", "retrieval")
    print("\n" + " ".join([f"{'':<24}", *(f"{name:>11}" for name in names)]))
    rows = [*scores.items(), *((verb, table["model"]) for verb, table in by_verb.items())]
    for title, row in rows:
        print(" ".join([f"{title[:24]:<24}", *(f"{row.get(name, float('nan')):>11.2f}" for name in names)]))
    print(f"\n{config.out / 'scores.json'} and {config.out / 'comparison.png'}")
    return 0


def probe_features(config: ProbeConfig) -> int:
    """Score every layer's features at following points and print the table; returns the exit code."""
    import torch

    from animate4d.models.mv_vdm import MVVDM
    from animate4d.pipeline.probe import run_probe
    from animate4d.pipeline.probe_report import probe_table, write_report
    from animate4d.runs.registry import resolve_model

    model = MVVDM.from_pretrained(resolve_model(config.model, uri=config.tracking_uri)).eval()
    if torch.cuda.is_available():
        model = model.to("cuda")
    result = run_probe(config, model)
    write_report(config, model, result)
    print(f"\n{probe_table(result)}\n\nprobe.csv, probe.json, chart.png and points-*.png are in {config.out}")
    return 0


def export_weights(config: ExportWeightsConfig) -> int:
    """Write a model's weights in another project's layout; returns the exit code."""
    from animate4d.models.exporting import export_weights as run
    from animate4d.runs.registry import resolve_model

    return run(config, resolve_model(config.model, uri=config.tracking_uri))
