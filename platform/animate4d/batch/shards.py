"""A folder of animated assets to shards: one task per asset, the largest files first (see `shard_build`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from animate4d.batch.ledger import Ledger, folder_lock
from animate4d.batch.shard_build import (
    MAX_RETRIES,
    ShardBuild,
    Submit,
    Unit,
    check_settings,
    make_folder,
    part_path,
    remove_leftovers,
)
from animate4d.batch.shard_task import render_asset
from animate4d.batch.shards_config import BuildShardsConfig
from animate4d.compute.paths import durable_path, input_path
from animate4d.core.errors import ConfigError
from animate4d.core.hashing import hash_file, hash_json
from animate4d.io.progress import Progress
from animate4d.pipeline.captions import CAPTIONS_NAME, captions_for, read_captions
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.views.blender import blender_version

SUFFIXES = {".glb", ".gltf"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceAsset(Unit):
    """One file to render; its name is its path relative to the folder of assets.

    Attributes:
        path: where it is.
        captions: clip -> caption from the table.
    """

    path: Path
    captions: dict[str, str]


def build_shards(config: BuildShardsConfig) -> int:
    """Render a folder of assets into shards.

    Returns:
        0 when the folder holds at least one clip at the end, 1 when none came out.

    Raises:
        ConfigError: no assets there, an unreadable table of captions, or a folder made with other settings.
        ToolError: Blender is wanted and cannot be run.
        ClusterError: the cluster has no CPU to give.
    """
    source, out = input_path(config.assets), durable_path(config.out)
    if config.blender is not None and config.light != "own":
        blender_version(config.blender)  # or every asset would fail for the same reason
    files = find_assets(source, config.limit)
    table = captions_table(config, source)
    make_folder(out)
    with folder_lock(out), Ledger(out / "ledger.jsonl") as ledger:
        check_settings(out, clip_settings(config.clip_options()))
        remove_leftovers(out)
        root = source if source.is_dir() else source.parent
        assets = [describe_asset(path, root, out, table) for path in files]
        with Progress(len(assets), "assets") as progress:
            build = ShardBuild(
                out,
                ledger,
                progress,
                noun="assets",
                samples_per_shard=config.samples_per_shard,
                minutes=config.asset_minutes,
            )
            missing = [asset for asset in assets if not build.known(asset)]
            # The longest last would leave the other CPUs idle: a file's size tells best how long it takes.
            missing.sort(key=lambda asset: asset.path.stat().st_size, reverse=True)
            build.run(
                rendering(missing, config.clip_options()),
                cpus=config.workers,
                moved=lambda: progress.update(build.done, f"{len(build.stored)} clips"),
            )
            return build.finish()


def rendering(assets: list[SourceAsset], options: ClipOptions) -> Iterator[tuple[Unit, Submit]]:
    """Yield each asset with what starts its task."""
    if not assets:
        return
    import ray

    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(render_asset)
    for asset in assets:
        yield asset, partial(task.remote, asset.path, asset.part, options, asset.captions)


def clip_settings(options: ClipOptions) -> dict[str, object]:
    """Return what must agree among the clips of one folder; where Blender is and what only labels them may differ."""
    free = {"licence", "blender", "blender_minutes"}
    if options.light == "own":
        free |= {"light", "blender_samples"}  # as in folders made before there was a choice
    return {name: value for name, value in asdict(options).items() if name not in free}


def find_assets(source: Path, limit: int | None) -> list[Path]:
    """Return the GLB and glTF files of a folder and below it, by name, or the one file given.

    Raises:
        ConfigError: there are none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ConfigError(f"assets is {source}: there is no such file or folder")
    files = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )
    if not files:
        raise ConfigError(f"assets is {source}: holds no .glb or .gltf file")
    return files[:limit]


def captions_table(config: BuildShardsConfig, source: Path) -> dict[str, dict[str, str]]:
    """Read the table of captions that is asked for, or the one beside the assets."""
    beside = (source if source.is_dir() else source.parent) / CAPTIONS_NAME
    if config.captions is not None:
        return read_captions(input_path(config.captions))
    return read_captions(beside) if beside.is_file() else {}


def describe_asset(path: Path, root: Path, out: Path, table: dict[str, dict[str, str]]) -> SourceAsset:
    """Hash a file and look up its captions."""
    name = path.relative_to(root).as_posix()
    try:
        sha256 = hash_file(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): mend its permissions or move it away") from error
    captions = captions_for(path, table)
    return SourceAsset(
        name=name,
        sha256=sha256,
        words=hash_json(captions),
        part=part_path(out, name, sha256),
        complete=path.suffix.lower() == ".glb",  # a .gltf may have got the files it lacked
        path=path,
        captions=captions,
    )
