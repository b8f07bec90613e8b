"""The MV-Video release to shards: the driver streams the archives, one task converts one animation (see `shard_build`).

Gunzipping is some hundred animations a second and converting one takes seconds, so one reader feeds any number of
workers; what waits is the few animations in flight, 0.4 MB each. An archive whose animations are all settled is not
opened again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2

from animate4d.batch.import_config import ImportMVVideoConfig
from animate4d.batch.ledger import Ledger, folder_lock, read_ledger
from animate4d.batch.shard_build import (
    MAX_RETRIES,
    ShardBuild,
    Submit,
    Unit,
    UnitOutcome,
    check_settings,
    cpu_seconds,
    make_folder,
    part_path,
    remove_leftovers,
)
from animate4d.compute.paths import durable_path, input_path
from animate4d.core.errors import SourceError, UserError
from animate4d.core.hashing import hash_json
from animate4d.data.mv_video import (
    GOOD_NAME,
    Release,
    Shot,
    SourceAnimation,
    open_release,
    read_archive,
    read_folder,
)
from animate4d.io.progress import Progress
from animate4d.io.shards import write_samples
from animate4d.pipeline.release_clips import release_samples
from animate4d.pipeline.release_options import ReleaseOptions

LABELS = ("licence", "doubtful_below")
"""Options that may differ among the clips of one folder."""


def import_mv_video(config: ImportMVVideoConfig) -> int:
    """Turn a release into shards.

    Returns:
        0 when the folder holds at least one clip at the end, 1 when none came out.

    Raises:
        SourceError: no release there, or a list that cannot be read.
        ConfigError: a folder made with other settings.
        ClusterError: the cluster has no CPU to give.
    """
    folder, out = input_path(config.release), durable_path(config.out)
    only = folder / GOOD_NAME if config.high_quality else config.only and input_path(config.only)
    release = open_release(folder, info=config.info and input_path(config.info), only=only)
    make_folder(out)
    settings = {name: value for name, value in asdict(config.release_options()).items() if name not in LABELS}
    with folder_lock(out), Ledger(out / "ledger.jsonl") as ledger:
        check_settings(out, json.loads(json.dumps(settings)))
        remove_leftovers(out)
        megabytes = sum(path.stat().st_size for path in release.archives) // 10**6
        total = max(1, megabytes) if release.archives else release.expected_animations()
        with Progress(total, "MB read" if release.archives else "animations") as progress:
            build = ShardBuild(
                out,
                ledger,
                progress,
                noun="animations",
                samples_per_shard=config.samples_per_shard,
                minutes=config.animation_minutes,
            )
            reading = Reading(config, release, build, total)
            build.run(reading.work(), cpus=config.workers, moved=reading.show)
            progress.update(total, f"{build.done} animations, {len(build.stored)} clips")
            return build.finish()


class Reading:
    """Walks through the release once and offers what is not done yet."""

    def __init__(self, config: ImportMVVideoConfig, release: Release, build: ShardBuild, total: int) -> None:
        self.config, self.release, self.build, self.total = config, release, build, total
        self.options = config.release_options()
        self.position = 0
        self.met: dict[str, None] = {}
        self.read = {
            event["archive"]: event
            for event in read_ledger(build.out / "ledger.jsonl")
            if event.get("event") == "archive_read"
        }

    def show(self) -> None:
        """Show how far the archives have been read, or how many animations are done."""
        done = self.position // 10**6 if self.release.archives else self.build.done
        # The last animations are still being worked on when the last byte has been read.
        done = min(done, self.total - 1)
        self.build.progress.update(done, f"{self.build.done} animations, {len(self.build.stored)} clips")

    def work(self) -> Iterator[tuple[Unit, Submit]]:
        """Yield the animations that need work, with what starts their tasks."""
        if not self.release.archives:
            yield from self._offer(read_folder(self.release.folder, self.release.wants))
        before = 0
        for path in self.release.archives:
            if not self._full() and not self._settled(path):
                yield from self._archive(path, before)
            before += path.stat().st_size
            self.position = before

    def _archive(self, path: Path, before: int) -> Iterator[tuple[Unit, Submit]]:
        def moved(count: int) -> None:
            self.position = before + count

        first = len(self.met)
        whole = Unit(name=path.name, sha256="", words="", part=part_path(self.build.out, path.name, ""), complete=False)
        try:
            yield from self._offer(read_archive(path, self.release.wants, moved))
        except SourceError as error:
            self.build.waiting.append(whole)
            self.build.settle(whole, None, "bad input", str(error))
            return
        if path.name in self.build.records:  # it was damaged in an earlier run
            self.build.waiting.append(whole)
            self.build.settle(whole, UnitOutcome())
        if not self._full():
            names = list(itertools.islice(self.met, first, None))
            self.build.ledger.write("archive_read", archive=path.name, stamp=self._stamp(path), animations=names)

    def _offer(self, animations: Iterator[SourceAnimation]) -> Iterator[tuple[Unit, Submit]]:
        import ray

        task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(convert_animation)
        for animation in animations:
            if self._full():
                return
            if animation.name in self.met:
                self.build.progress.say(f"passed over: {animation.name} comes twice, or its files not side by side")
                continue
            self.met[animation.name] = None
            shot, problem = self._shot(animation)
            unit = self._unit(animation.name, animation.sha256(), shot)
            if self.build.known(unit):
                continue
            if shot is None:
                self.build.settle(unit, None, "bad input", problem)
            else:
                yield unit, partial(task.remote, animation, shot, unit.part, self.options)

    def _shot(self, animation: SourceAnimation) -> tuple[Shot | None, str]:
        try:
            return self.release.shot(animation.uid, animation.animation), ""
        except SourceError as error:
            return None, str(error)

    def _unit(self, name: str, sha256: str, shot: Shot | None) -> Unit:
        # Without an entry in the table it is the table that may get better.
        words = "" if shot is None else hash_json(shot.caption)
        part = part_path(self.build.out, name, sha256)
        return Unit(name=name, sha256=sha256, words=words, part=part, complete=shot is not None)

    def _settled(self, path: Path) -> bool:
        """Return whether an earlier run has read this very archive and settled all it holds; then queues those."""
        event = self.read.get(path.name)
        if event is None or event["stamp"] != self._stamp(path):
            return False
        units = []
        for name in event["animations"]:
            record = self.build.records.get(name)
            if record is None:
                return False
            shot, _problem = self._shot(SourceAnimation(uid=name.split("/")[0], animation=name.split("/")[1], views={}))
            units.append(self._unit(name, record["sha256"], shot))
        if not all(self.build.settled_before(unit) for unit in units):
            return False
        for unit in units:
            self.met[unit.name] = None
            self.build.known(unit)
        return True

    def _stamp(self, path: Path) -> list[int | str]:
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns, hash_json(sorted(self.release.only or ()))]

    def _full(self) -> bool:
        return self.config.limit is not None and len(self.met) >= self.config.limit


def convert_animation(animation: SourceAnimation, shot: Shot, part: Path, options: ReleaseOptions) -> UnitOutcome:
    """Convert one animation into `part`; a fault of the videos is an outcome, not an exception."""
    cv2.setNumThreads(1)  # the other cores belong to other tasks
    skipped: list[tuple[str, str]] = []
    doubtful: list[tuple[str, str]] = []
    begun = cpu_seconds()

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for outcome in release_samples(animation, shot, options):
            if outcome.members is None:
                skipped.append((outcome.animation, outcome.reason))
                continue
            if outcome.doubt:
                doubtful.append((outcome.animation, outcome.doubt))
            yield outcome.key, outcome.members

    try:
        keys = write_samples(part, samples())
    except UserError as error:
        return UnitOutcome(problem=" ".join(str(error).split()), seconds=cpu_seconds() - begun)
    return UnitOutcome(
        keys=tuple(keys), skipped=tuple(skipped), doubtful=tuple(doubtful), seconds=cpu_seconds() - begun
    )
