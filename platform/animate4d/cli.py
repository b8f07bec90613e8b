"""The `animate4d` command: one sub-command per job, generated from the jobs' config dataclasses. Nothing but wiring.

`--help` of any job imports only its config module; Ray, torch and the rest load when a job really runs.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from animate4d.core.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One sub-command: where its config dataclass and its `run(config) -> exit code` live, as "module:name"."""

    config: str
    run: str
    summary: str


COMMANDS = {
    "demo": Command(
        config="animate4d.demo.config:DemoConfig",
        run="animate4d.demo.run:run_demo",
        summary="The whole road on this machine: objects, shards, training, four animations, a gallery.",
    ),
    "animate": Command(
        config="animate4d.pipeline.animate_config:AnimateConfig",
        run="animate4d.jobs:animate_one",
        summary="Animate one 3D model from a sentence.",
    ),
    "generate-objects": Command(
        config="animate4d.assets.config:GenerateObjectsConfig",
        run="animate4d.jobs:generate",
        summary="Write procedural animated GLBs with captions.",
    ),
    "build-shards": Command(
        config="animate4d.batch.shards_config:BuildShardsConfig",
        run="animate4d.batch.shards:build_shards",
        summary="Render every clip of every asset into WebDataset shards.",
    ),
    "import-mv-video": Command(
        config="animate4d.batch.import_config:ImportMVVideoConfig",
        run="animate4d.batch.import_mv_video:import_mv_video",
        summary="Turn the MV-Video release, archives or extracted, into WebDataset shards.",
    ),
    "curate-shards": Command(
        config="animate4d.batch.curate_config:CurateShardsConfig",
        run="animate4d.batch.curate:curate_shards",
        summary="Decide which clips to train on: too still, distorted, out of the picture, twice.",
    ),
    "label-tracks": Command(
        config="animate4d.batch.sidecar_config:LabelTracksConfig",
        run="animate4d.batch.sidecars:label_tracks",
        summary="Track points on every clip ahead of training, and look at the tracks.",
    ),
    "encode-latents": Command(
        config="animate4d.batch.sidecar_config:EncodeLatentsConfig",
        run="animate4d.batch.sidecars:encode_latents",
        summary="Encode every clip's pictures ahead of training.",
    ),
    "train": Command(
        config="animate4d.training.config:TrainConfig",
        run="animate4d.jobs:train",
        summary="Train the multi-view video diffusion model with track supervision.",
    ),
    "sync-run": Command(
        config="animate4d.runs.config:SyncRunConfig",
        run="animate4d.runs.sync:sync_run",
        summary="Send MLflow what it missed of a training while it was away.",
    ),
    "animate-batch": Command(
        config="animate4d.batch.config:AnimateBatchConfig",
        run="animate4d.batch.run:animate_batch",
        summary="Animate every row of a manifest over the Ray pool.",
    ),
    "serve": Command(
        config="animate4d.serve.config:ServeConfig",
        run="animate4d.serve.run:serve",
        summary="Serve animations over HTTP on Ray Serve.",
    ),
    "import-weights": Command(
        config="animate4d.models.import_config:ImportWeightsConfig",
        run="animate4d.models.importing:import_weights",
        summary="Join published weight files into one verified model folder.",
    ),
    "export-weights": Command(
        config="animate4d.models.import_config:ExportWeightsConfig",
        run="animate4d.jobs:export_weights",
        summary="Write a model's weights in another project's layout.",
    ),
    "evaluate": Command(
        config="animate4d.pipeline.evaluate_config:EvaluateConfig",
        run="animate4d.jobs:evaluate",
        summary="Score a model on held-out clips against repeating frame 0 and the mean motion.",
    ),
    "probe-features": Command(
        config="animate4d.pipeline.probe_config:ProbeConfig",
        run="animate4d.jobs:probe_features",
        summary="Find out which layer's features follow points best, against exact tracks.",
    ),
    "bench model": Command(
        config="animate4d.bench.config:BenchModelConfig",
        run="animate4d.bench.model:bench_model",
        summary="Measure the network: FLOPs, forward, training step, sampling, memory, against a plain loop.",
    ),
    "bench training": Command(
        config="animate4d.bench.training_config:BenchTrainingConfig",
        run="animate4d.bench.training:bench_training",
        summary="Measure trainings: workers against one, a step against a plain loop, MLflow's cost, data wait.",
    ),
    "bench trackers": Command(
        config="animate4d.bench.trackers_config:BenchTrackersConfig",
        run="animate4d.bench.trackers:bench_trackers",
        summary="Score point trackers against exact tracks of real animations.",
    ),
    "bench stream": Command(
        config="animate4d.bench.stream.config:BenchStreamConfig",
        run="animate4d.bench.stream.run:bench_stream",
        summary="Measure the training stream: against webdataset's loader, with kept labels, with large samples.",
    ),
    "bench http": Command(
        config="animate4d.bench.http_config:BenchHttpConfig",
        run="animate4d.bench.http:bench_http",
        summary="Measure what the service adds to a request, and what it does when overloaded.",
    ),
    "bench fourd-kernels": Command(
        config="animate4d.bench.kernels_config:BenchKernelsConfig",
        run="animate4d.bench.kernels:bench_kernels",
        summary="Measure the C kernels of the 4D fit against their twins in plain torch.",
    ),
    "bench faults": Command(
        config="animate4d.bench.faults.config:BenchFaultsConfig",
        run="animate4d.bench.faults.run:bench_faults",
        summary="Make faults of data, training, batches and the service happen, and say what each one cost.",
    ),
    "bench pool": Command(
        config="animate4d.bench.pool.config:BenchPoolConfig",
        run="animate4d.bench.pool.run:bench_pool",
        summary="Measure how well the batch pool keeps its places filled, and break things under it.",
    ),
    "bench fourd": Command(
        config="animate4d.bench.fourd_config:BenchFourDConfig",
        run="animate4d.bench.fourd:bench_fourd",
        summary="Fit rigged models to videos of their own animations and compare with the true motion.",
    ),
}

GROUPS = {"bench": "Measure how fast, how good and how robust a part is on this machine."}
"""First words of two-word commands, and what they have in common."""


def main() -> None:
    """Entry point of the `animate4d` command."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-V", "--version"):
        from animate4d import __version__

        print(__version__)
        sys.exit(0)
    for words in (2, 1):  # a group's command has two words: `bench model`
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            sys.exit(run_job(name, arguments[words:], program=f"animate4d {name}"))
    group = arguments[0] if arguments and arguments[0] in GROUPS else None
    rest = arguments[1:] if group else arguments
    asked = not rest or rest[0] in ("-h", "--help")
    if not asked:
        print(f"animate4d: there is no command '{' '.join(arguments[: 2 if group else 1])}'", file=sys.stderr)
    print(overview(group), file=sys.stdout if asked else sys.stderr)
    sys.exit(0 if asked else 2)


def overview(group: str | None = None) -> str:
    """Return the list of all commands, or of those of one group."""
    if group is None:
        listed = {name: command.summary for name, command in COMMANDS.items() if " " not in name} | GROUPS
    else:
        listed = {name: command.summary for name, command in COMMANDS.items() if name.startswith(f"{group} ")}
    width = max(map(len, listed))
    purpose = GROUPS[group] if group else "Animate any static 3D model from a sentence."
    head = [f"usage: animate4d {f'{group} ' if group else ''}COMMAND [OPTIONS]", "", purpose, ""]
    lines = [f"  {name:<{width}}  {summary}" for name, summary in listed.items()]
    return "\n".join([*head, *lines, "", "`animate4d COMMAND --help` explains a command."])


def run_job(name: str, arguments: list[str] | None = None, *, program: str | None = None) -> int:
    """Parse a job's options and run it.

    Args:
        name: a key of `COMMANDS`, e.g. "train" or "bench model".
        arguments: command-line words; default those of this process.
        program: how the job was called, for its help text.

    Returns:
        The exit code: 0 done, 1 done with failed parts, 2 a user's mistake (one line on stderr), 130 interrupted.
        Set ANIMATE4D_DEBUG=1 to see the traceback of a mistake too.
    """
    import tyro

    command = COMMANDS[name]
    try:
        config = tyro.cli(load(command.config), args=arguments, prog=program, description=command.summary)
        return load(command.run)(config)
    except UserError as error:
        if os.environ.get("ANIMATE4D_DEBUG"):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def load(target: str) -> Any:
    """Import "module:name" and return the named object."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)
