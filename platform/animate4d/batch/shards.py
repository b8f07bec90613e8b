"""Assets to shards over a Ray pool.

A task renders one asset into a part file; the driver alone moves finished parts into shards, in the order of the
assets. Every step is recorded in `ledger.jsonl` after it is on disk, so a run that was killed loses the assets that
were being rendered, and no more.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from animate4d import __version__
from animate4d.batch.ledger import Ledger, folder_lock, read_ledger
from animate4d.batch.report import safe_cell
from animate4d.batch.shard_contact import write_contact
from animate4d.batch.shard_task import AssetOutcome, render_asset
from animate4d.batch.shards_config import BuildShardsConfig
from animate4d.compute.paths import durable_path, input_path
from animate4d.compute.session import ray_session, require_resources
from animate4d.core.errors import ConfigError
from animate4d.core.hashing import hash_file, hash_json
from animate4d.io.atomic import write_json, write_text
from animate4d.io.progress import Progress
from animate4d.io.shards import ShardWriter, iterate_shard, read_index, write_index
from animate4d.pipeline.captions import CAPTIONS_NAME, captions_for, read_captions
from animate4d.pipeline.clip_options import ClipOptions

SUFFIXES = {".glb", ".gltf"}
PARTS_NAME = ".parts"
SETTINGS_NAME = "settings.json"
MAX_RETRIES = 2
"""How often an asset starts over after its worker process died; wrong input is never retried."""

POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceAsset:
    """One file to render.

    Attributes:
        name: path relative to the folder of assets; the asset's name in ledger and report.
        path: where it is.
        sha256: of the file.
        captions: clip -> caption from the table.
        part: where its samples go first.
    """

    name: str
    path: Path
    sha256: str
    captions: dict[str, str]
    part: Path


def build_shards(config: BuildShardsConfig) -> int:
    """Render a folder of assets into shards.

    Returns:
        0 when the folder holds at least one clip at the end, 1 when none came out.

    Raises:
        ConfigError: no assets there, an unreadable table of captions, or a folder made with other settings.
        ClusterError: the cluster has no CPU to give.
    """
    source, out = input_path(config.assets), durable_path(config.out)
    files = find_assets(source, config.limit)
    table = captions_table(config, source)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out is {out}: cannot be made ({error.strerror}): choose another --out") from error
    with folder_lock(out), Ledger(out / "ledger.jsonl") as ledger:
        check_settings(out, config.clip_options())
        remove_leftovers(out)
        root = source if source.is_dir() else source.parent
        assets = [describe_asset(path, root, out, table) for path in files]
        with Progress(len(assets), "assets") as progress:
            build = Build(config, out, assets, ledger, progress)
            build.run()
            return build.finish()


class Build:
    """One run: plans what is missing, collects results, packs parts into shards."""

    def __init__(
        self, config: BuildShardsConfig, out: Path, assets: list[SourceAsset], ledger: Ledger, progress: Progress
    ) -> None:
        self.config, self.out, self.assets, self.ledger, self.progress = config, out, assets, ledger, progress
        self.stored = {key for info in write_index(out) for key in info.keys}
        self.records = latest_records(out / "ledger.jsonl")
        self.settled: set[str] = set()
        self.packed: list[tuple[Path, tuple[str, ...]]] = []
        self.cursor = 0
        self.added = 0

    def run(self) -> None:
        """Render what is missing and pack everything."""
        missing = self.plan()
        self.progress.update(len(self.settled), f"{len(self.stored)} clips")
        with ShardWriter(self.out, self.config.samples_per_shard) as writer:
            self.pack(writer)
            if missing:
                with ray_session(cpus=self.config.workers):
                    self.render(missing, writer)
        self.drop_parts(())

    def plan(self) -> list[SourceAsset]:
        """Settle the assets that need no work and return those that do."""
        missing, stale = [], 0
        for asset in self.assets:
            record = self.records.get(asset.name)
            if record is None or record["sha256"] != asset.sha256:
                missing.append(asset)
            elif record["event"] == "asset_failed":
                # A GLB is complete in itself: the same bytes and code fail again. Others may have got what they lacked.
                hopeless = record["kind"] == "bad input" and asset.path.suffix.lower() == ".glb"
                if hopeless and record["version"] == __version__:
                    self.settled.add(asset.name)
                    self.progress.say(f"failed: {asset.name}: {record['message']}")
                else:
                    missing.append(asset)
            elif asset.part.exists() or self.stored.issuperset(record["keys"]):
                self.settled.add(asset.name)
                stale += record["captions"] != hash_json(asset.captions)
            else:
                missing.append(asset)
        if stale:
            self.progress.say(
                f"captions of {stale} assets changed; their clips keep the old ones: renew in another --out"
            )
        return missing

    def render(self, missing: list[SourceAsset], writer: ShardWriter) -> None:
        """Run one task per asset, as many at a time as there are slots."""
        import ray

        require_resources(cpus=1)
        slots = self.config.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(render_asset)
        waiting = list(reversed(missing))
        running: dict[Any, tuple[SourceAsset, float]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < slots:
                    asset = waiting.pop()
                    reference = task.remote(asset.path, asset.part, self.config.clip_options(), asset.captions)
                    running[reference] = (asset, time.monotonic())
                ready, _ = ray.wait(list(running), timeout=POLL_SECONDS)
                for reference in ready:
                    asset, _started = running.pop(reference)
                    self.settle(asset, *collect(reference))
                    self.pack(writer)
                for reference in self.overdue(running):
                    asset, _started = running.pop(reference)
                    ray.cancel(reference, force=True)
                    self.settle(asset, None, "resource", f"took longer than {self.config.asset_minutes:g} minutes")
                self.progress.update(len(self.settled), f"{len(self.stored)} clips")
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def overdue(self, running: dict[Any, tuple[SourceAsset, float]]) -> list[Any]:
        """Return the tasks that ran out of time."""
        limit = time.monotonic() - 60 * self.config.asset_minutes
        return [reference for reference, (_asset, started) in running.items() if started < limit]

    def settle(self, asset: SourceAsset, outcome: AssetOutcome | None, kind: str = "", problem: str = "") -> None:
        """Record how an asset ended; `outcome` is None when its task did not come back."""
        record: dict[str, Any] = {"asset": asset.name, "sha256": asset.sha256, "version": __version__}
        if outcome is not None and not outcome.problem:
            skipped = [list(pair) for pair in outcome.skipped]
            facts = {"keys": list(outcome.keys), "skipped": skipped, "captions": hash_json(asset.captions)}
            record = {"event": "asset_done", **record, **facts}
        else:
            message = outcome.problem if outcome is not None else problem
            record = {"event": "asset_failed", **record, "kind": kind or "bad input", "message": message}
            self.progress.say(f"failed: {asset.name}: {message}")
        self.ledger.write(record["event"], **{name: value for name, value in record.items() if name != "event"})
        self.records[asset.name] = record
        self.settled.add(asset.name)

    def pack(self, writer: ShardWriter) -> None:
        """Move finished parts into shards, in the order of the assets, as far as there is no gap."""
        while self.cursor < len(self.assets) and self.assets[self.cursor].name in self.settled:
            asset = self.assets[self.cursor]
            self.cursor += 1
            if self.records[asset.name]["event"] != "asset_done" or not asset.part.exists():
                continue
            written = []
            for key, members in iterate_shard(asset.part):
                if key not in self.stored:
                    writer.write(key, members)
                    self.stored.add(key)
                    written.append(key)
            self.added += len(written)
            self.packed.append((asset.part, tuple(written)))
            self.drop_parts(writer.unfinished)

    def drop_parts(self, unfinished: Iterable[str]) -> None:
        """Delete the parts whose samples are all in complete shards."""
        held = set(unfinished)
        for part, keys in self.packed:
            if held.isdisjoint(keys):
                part.unlink(missing_ok=True)
        self.packed = [(part, keys) for part, keys in self.packed if part.exists()]

    def finish(self) -> int:
        """Write report and contact sheet, say what there is, and return the exit code."""
        infos = read_index(self.out)
        failed = [record for record in self.records.values() if record["event"] == "asset_failed"]
        skipped = sum(len(record.get("skipped", ())) for record in self.records.values())
        write_report(self.out / "report.csv", self.records)
        clips = sum(info.samples for info in infos)
        if clips and (self.added or not (self.out / "contact.png").exists()):
            write_contact(self.out, infos)
        megabytes = sum(info.bytes for info in infos) / 1e6
        self.progress.say(
            f"{clips} clips in {len(infos)} shards ({megabytes:.1f} MB) in {self.out}; {self.added} new, "
            f"{skipped} left out, {len(failed)} assets failed (report.csv); look at contact.png"
        )
        return 0 if clips else 1


def collect(reference: Any) -> tuple[AssetOutcome | None, str, str]:
    """Return a task's outcome, or None with the kind of failure and one line about it."""
    import ray

    try:
        return ray.get(reference), "", ""
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        return None, "bug", " ".join(f"{type(cause).__name__}: {cause}".split())[:500]
    except ray.exceptions.RayError as error:
        return None, "infrastructure", f"its worker process died ({type(error).__name__})"


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
    part = out / PARTS_NAME / f"{hash_json([name, sha256])[:24]}.tar"
    return SourceAsset(name=name, path=path, sha256=sha256, captions=captions_for(path, table), part=part)


def check_settings(out: Path, options: ClipOptions) -> None:
    """Keep clips of different shapes out of one folder; what only labels them may differ.

    Raises:
        ConfigError: the folder was made with other settings, or holds shards of unknown make.
    """
    wanted = {name: value for name, value in asdict(options).items() if name != "licence"}
    path = out / SETTINGS_NAME
    if not path.exists():
        if any(out.glob("shard-*.tar")):
            raise ConfigError(f"{out}: holds shards but no {SETTINGS_NAME}: choose another --out")
        write_json(path, wanted)
        return
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON ({error}): choose another --out") from error
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ConfigError(f"{out}: holds clips with {name} {found.get(name)}, not {value}: choose another --out")


def remove_leftovers(out: Path) -> None:
    """Delete the unfinished files of a run that was killed."""
    for folder in (out, out / PARTS_NAME):
        for path in folder.glob(".*.tmp"):
            path.unlink()


def latest_records(ledger: Path) -> dict[str, dict[str, Any]]:
    """Return the last word of a ledger on every asset."""
    records = {}
    for event in read_ledger(ledger):
        if event.get("event") in ("asset_done", "asset_failed"):
            records[event["asset"]] = event
    return records


def write_report(path: Path, records: dict[str, dict[str, Any]]) -> None:
    """Write one line per failed asset and per clip left out (file, clip, state, kind, message)."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("file", "clip", "state", "kind", "message"))
    for name, record in sorted(records.items()):
        if record["event"] == "asset_failed":
            writer.writerow(map(safe_cell, (name, "", "failed", record["kind"], record["message"])))
        for clip, reason in record.get("skipped", ()):
            writer.writerow(map(safe_cell, (name, clip, "left out", "", reason)))
    write_text(path, stream.getvalue())
