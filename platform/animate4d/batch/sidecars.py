"""The two jobs that compute ahead: tracks of points, latents of pictures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from animate4d.batch.sidecar_config import EncodeLatentsConfig, LabelTracksConfig
from animate4d.batch.sidecar_fill import FillPlan, FillResult, fill, look_at
from animate4d.batch.tracks_page import write_tracks_page
from animate4d.compute.paths import durable_path, input_path
from animate4d.compute.session import ray_session
from animate4d.data.labels import Labeller
from animate4d.data.store import ShardStore
from animate4d.io.progress import Progress
from animate4d.tracks.build import EXACT, LEARNED

LICENCE = "labels of CoTracker3's weights, and models trained on them, may inherit CC BY-NC 4.0"


def label_tracks(config: LabelTracksConfig) -> int:
    """Label every clip and, if asked for, draw some.

    Returns:
        0 when every clip has labels, 1 when some have none.

    Raises:
        ShardError: no index, or shards that do not agree with it.
        ConfigError: the views do not divide the stored ones, or a folder that cannot be written.
        ModelError: the tracker's checkpoint does not fit.
        ClusterError: the cluster has no room for a worker.
    """
    config = replace(
        config,
        shards=input_path(config.shards),
        checkpoint=config.checkpoint and input_path(config.checkpoint),
        keep_list=config.keep_list and input_path(config.keep_list),
        labels=durable_path(config.labels) if config.labels else input_path(config.shards) / "labels",
    )
    assert config.labels is not None
    store = ShardStore(config.shards, keep=config.keep_list)
    stored_views, stored_frames = look_at(store, config.views)
    done = FillResult()
    if config.tracker != EXACT:
        plan = FillPlan(
            shards=config.shards,
            keep=config.keep_list,
            views=config.views,
            stored_views=stored_views,
            stored_frames=stored_frames,
            make=partial(
                Labeller,
                config.tracker,
                config.grid,
                config.labels,
                config.checkpoint,
                precision=config.precision,
            ),
            gpu_share=config.gpu_share if config.tracker in LEARNED else 0.0,
        )
        done = run(plan, store, config.workers, "labels")
        if config.tracker in LEARNED:
            print(f"note: {LICENCE}")
    if config.preview:
        page = config.labels / "tracks.html"
        sound = [number for number, key in enumerate(store.keys) if key not in done.problems]
        drawn = write_tracks_page(page, store, sound, done.folder, config.views, config.preview)
        print(f"{drawn} clips with their tracks: open {page}")
    return 1 if done.problems else 0


def encode_latents(config: EncodeLatentsConfig) -> int:
    """Encode every clip.

    Returns:
        0 when every clip has latents, 1 when some have none.

    Raises:
        ShardError: no index, or shards that do not agree with it.
        ConfigError: the model's codec needs no latents ahead, the shards are too small, or do not divide.
        ModelError: the model folder is incomplete.
        ClusterError: the cluster has no room for a worker.
    """
    # Torch and diffusers load when the job really runs.
    from animate4d.pipeline.latents import LatentEncoder, read_latent_model

    shards, model = input_path(config.shards), input_path(config.model)
    network = read_latent_model(model)
    store = ShardStore(shards, keep=config.keep_list and input_path(config.keep_list))
    stored_views, stored_frames = look_at(store, network.views)
    folder = durable_path(config.latents) if config.latents else shards / "latents"
    plan = FillPlan(
        shards=shards,
        keep=config.keep_list and input_path(config.keep_list),
        views=network.views,
        stored_views=stored_views,
        stored_frames=stored_frames,
        make=partial(LatentEncoder, model, folder),
        gpu_share=config.gpu_share,
    )
    done = run(plan, store, config.workers, "latents")
    print(f"train with --latents {folder}")
    return 1 if done.problems else 0


def run(plan: FillPlan, store: ShardStore, workers: int | None, noun: str) -> FillResult:
    """Fill, saying how far it is, what failed, and what there is at the end."""
    result = FillResult()
    total = len(store.keys)
    with Progress(total, noun) as progress, ray_session(cpus=workers):
        progress.update(0)
        for number, outcome in enumerate(fill(plan, store.keys, workers), start=1):
            result.folder = outcome.folder or result.folder
            result.made += outcome.made
            result.found += outcome.found
            if outcome.problem:
                result.problems[outcome.key] = outcome.problem
                progress.say(f"failed: {outcome.key}: {outcome.problem}")
            progress.update(number, f"{result.made} made, {result.found} found")
        progress.say(
            f"{noun} of {total - len(result.problems)} of {total} clips in {result.folder}: {result.made} files made, "
            f"{result.found} found" + (f"; {len(result.problems)} clips failed" if result.problems else "")
        )
    return result
