"""Sources to shards over a Ray pool, whatever the source is.

A task turns one unit (an asset, an animation of a release) into a part file; the driver alone moves finished parts into
shards, in the order in which it met the units. Every step is recorded in `ledger.jsonl` after it is on disk, so a run
that was killed loses the units that were being worked on, and no more.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from animate4d import __version__
from animate4d.batch.ledger import Ledger, read_ledger
from animate4d.batch.report import safe_cell
from animate4d.batch.shard_contact import write_contact
from animate4d.compute.session import ray_session, require_resources
from animate4d.core.errors import ConfigError
from animate4d.core.hashing import hash_json
from animate4d.io.atomic import write_json, write_text
from animate4d.io.progress import Progress, clock
from animate4d.io.shards import ShardWriter, iterate_shard, read_index, write_index

PARTS_NAME = ".parts"
SETTINGS_NAME = "settings.json"
MAX_RETRIES = 2
"""How often a unit starts over after its worker process died; wrong input is never retried."""

POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What one task works on.

    Attributes:
        name: in ledger and report.
        sha256: of its bytes.
        words: hash of its captions: they label the samples, and changing them alone makes nothing anew.
        part: where its samples go first.
        complete: the same bytes and program end the same way, so a failure need not be tried again.
    """

    name: str
    sha256: str
    words: str
    part: Path
    complete: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitOutcome:
    """What became of one unit.

    Attributes:
        keys: of the samples in its part.
        skipped: (clip, reason) of those left out.
        doubtful: (clip, reason) of those that are in, but should be looked at.
        problem: why the unit failed, one line; empty otherwise.
        kind: of the failure: "bad input" for ever, others until the next run.
        seconds: CPU time it took.
    """

    keys: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    doubtful: tuple[tuple[str, str], ...] = ()
    problem: str = ""
    kind: str = "bad input"
    seconds: float = 0.0


Submit = Callable[[], Any]
"""Starts the task of a unit and returns its Ray reference."""


class ShardBuild:
    """One run: knows what earlier runs did, collects results, packs parts into shards, reports."""

    def __init__(
        self, out: Path, ledger: Ledger, progress: Progress, *, noun: str, samples_per_shard: int, minutes: float
    ) -> None:
        """Look at what the folder holds.

        Args:
            out: folder of the shards.
            ledger: of that folder, open.
            progress: where lines for people go.
            noun: what a unit is called in them.
            samples_per_shard: clips per shard file.
            minutes: a unit that takes longer is stopped and counts as failed.
        """
        self.out, self.ledger, self.progress = out, ledger, progress
        self.noun, self.samples_per_shard, self.minutes = noun, samples_per_shard, minutes
        self.stored = {key for info in write_index(out) for key in info.keys}
        self.records = latest_records(out / "ledger.jsonl")
        self.waiting: deque[Unit] = deque()
        self.settled: set[str] = set()
        self.packed: list[tuple[Path, tuple[str, ...]]] = []
        self.added = self.done = self.stale = 0
        self.seconds = 0.0

    def settled_before(self, unit: Unit) -> bool:
        """Return whether an earlier run has settled a unit and no work is needed."""
        record = self.records.get(unit.name)
        if record is None or record["sha256"] != unit.sha256:
            return False
        if record["event"] == "asset_failed":
            # The same bytes and code fail again; others may have got what they lacked.
            same = record["version"] == __version__ and record.get("captions") == unit.words
            return unit.complete and record["kind"] == "bad input" and same
        return unit.part.exists() or self.stored.issuperset(record["keys"])

    def known(self, unit: Unit) -> bool:
        """Queue a unit for packing; returns whether it needs no work."""
        self.waiting.append(unit)
        if not self.settled_before(unit):
            return False
        record = self.records[unit.name]
        if record["event"] == "asset_failed":
            self.progress.say(f"failed: {unit.name}: {record['message']}")
        else:
            self.stale += record["captions"] != unit.words
        self.settled.add(unit.name)
        self.done += 1
        return True

    def run(self, work: Iterator[tuple[Unit, Submit]], *, cpus: int | None, moved: Callable[[], None]) -> None:
        """Do the work, as many units at a time as there are slots, and pack everything.

        Args:
            work: units that are not known yet; taken one by one when a slot is free.
            cpus: slots; None for one per CPU of the cluster.
            moved: called whenever something may have changed, to show progress.
        """
        with ShardWriter(self.out, self.samples_per_shard) as writer:
            first = next(work, None)
            self.pack(writer)
            moved()
            if first is not None:
                with ray_session(cpus=cpus):
                    self._spread(itertools.chain([first], work), writer, cpus, moved)
            self.pack(writer)
        self.drop_parts(())
        if self.stale:
            self.progress.say(
                f"captions of {self.stale} {self.noun} changed; their clips keep the old ones: renew in another --out"
            )

    def _spread(
        self, work: Iterator[tuple[Unit, Submit]], writer: ShardWriter, cpus: int | None, moved: Callable[[], None]
    ) -> None:
        import ray

        require_resources(cpus=1)
        slots = cpus or max(1, int(ray.cluster_resources().get("CPU", 1)))
        running: dict[Any, tuple[Unit, float]] = {}
        try:
            while True:
                for unit, submit in itertools.islice(work, slots - len(running)):
                    running[submit()] = (unit, time.monotonic())
                if not running:
                    return
                ready, _ = ray.wait(list(running), timeout=POLL_SECONDS)
                for reference in ready:
                    unit, _started = running.pop(reference)
                    self.settle(unit, *collect(reference))
                for reference in self._overdue(running):
                    unit, _started = running.pop(reference)
                    ray.cancel(reference, force=True)
                    self.settle(unit, None, "resource", f"took longer than {self.minutes:g} minutes")
                self.pack(writer)
                moved()
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _overdue(self, running: dict[Any, tuple[Unit, float]]) -> list[Any]:
        limit = time.monotonic() - 60 * self.minutes
        return [reference for reference, (_unit, started) in running.items() if started < limit]

    def settle(self, unit: Unit, outcome: UnitOutcome | None, kind: str = "", problem: str = "") -> None:
        """Record how a unit ended; `outcome` is None when its task did not come back."""
        record: dict[str, Any] = {"asset": unit.name, "sha256": unit.sha256, "version": __version__}
        record["captions"] = unit.words
        if outcome is not None:
            record["seconds"] = round(outcome.seconds, 2)
            self.seconds += outcome.seconds
        if outcome is not None and not outcome.problem:
            event = "asset_done"
            record["keys"] = list(outcome.keys)
            record |= {name: [list(pair) for pair in getattr(outcome, name)] for name in ("skipped", "doubtful")}
        else:
            event = "asset_failed"
            kind, message = (kind or "bad input", problem) if outcome is None else (outcome.kind, outcome.problem)
            record |= {"kind": kind, "message": message}
            self.progress.say(f"failed: {unit.name}: {message}")
        self.ledger.write(event, **record)
        self.records[unit.name] = {"event": event, **record}
        self.settled.add(unit.name)
        self.done += 1

    def pack(self, writer: ShardWriter) -> None:
        """Move finished parts into shards, in the order the units were met, as far as there is no gap."""
        while self.waiting and self.waiting[0].name in self.settled:
            unit = self.waiting.popleft()
            self.settled.remove(unit.name)
            if self.records[unit.name]["event"] != "asset_done" or not unit.part.exists():
                continue
            written = []
            for key, members in iterate_shard(unit.part):
                if key not in self.stored:
                    writer.write(key, members)
                    self.stored.add(key)
                    written.append(key)
            self.added += len(written)
            self.packed.append((unit.part, tuple(written)))
            self.drop_parts(writer.unfinished)

    def drop_parts(self, unfinished: Iterable[str]) -> None:
        """Delete the parts whose samples are all in complete shards."""
        held = set(unfinished)
        for part, keys in self.packed:
            if held.isdisjoint(keys):
                part.unlink(missing_ok=True)
        self.packed = [(part, keys) for part, keys in self.packed if part.exists()]

    def finish(self) -> int:
        """Write report and contact sheet, say what there is; returns 0 when the folder holds a clip, else 1."""
        infos = read_index(self.out)
        failed = sum(record["event"] == "asset_failed" for record in self.records.values())
        skipped, doubtful = (
            sum(len(record.get(name, ())) for record in self.records.values()) for name in ("skipped", "doubtful")
        )
        write_report(self.out / "report.csv", self.records)
        clips = sum(info.samples for info in infos)
        if clips and (self.added or not (self.out / "contact.png").exists()):
            write_contact(self.out, infos)
        megabytes = sum(info.bytes for info in infos) / 1e6
        doubts = f"{doubtful} to look at, " if doubtful else ""
        spent = f" in {clock(self.seconds)} of CPU time" if self.seconds else ""
        self.progress.say(
            f"{clips} clips in {len(infos)} shards ({megabytes:.1f} MB) in {self.out}; {self.added} new{spent}, "
            f"{skipped} left out, {doubts}{failed} {self.noun} failed (report.csv); look at contact.png"
        )
        return 0 if clips else 1


def collect(reference: Any) -> tuple[Any, str, str]:
    """Return a task's outcome, or None with the kind of failure and one line about it."""
    import ray

    try:
        return ray.get(reference), "", ""
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        return None, "bug", " ".join(f"{type(cause).__name__}: {cause}".split())[:500]
    except ray.exceptions.RayError as error:
        return None, "infrastructure", f"its worker process died ({type(error).__name__})"


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the programs that it has run."""
    return sum(os.times()[:4])


def make_folder(out: Path) -> None:
    """Make the folder of the shards.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out is {out}: cannot be made ({error.strerror}): choose another --out") from error


def check_settings(out: Path, wanted: dict[str, Any]) -> None:
    """Keep clips of different shapes out of one folder.

    Args:
        out: folder of the shards.
        wanted: what decides a clip's pictures and cameras, as JSON values.

    Raises:
        ConfigError: the folder was made with other settings, or holds shards of unknown make.
    """
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
    for name in [*wanted, *found]:
        if found.get(name) != wanted.get(name):
            raise ConfigError(
                f"{out}: holds clips with {name} {found.get(name)}, not {wanted.get(name)}: choose another --out"
            )


def remove_leftovers(out: Path) -> None:
    """Delete the unfinished files of a run that was killed."""
    for folder in (out, out / PARTS_NAME):
        for path in folder.glob(".*.tmp"):
            path.unlink()


def part_path(out: Path, name: str, sha256: str) -> Path:
    """Return where a unit's samples go first."""
    return out / PARTS_NAME / f"{hash_json([name, sha256])[:24]}.tar"


def latest_records(ledger: Path) -> dict[str, dict[str, Any]]:
    """Return the last word of a ledger on every unit."""
    records = {}
    for event in read_ledger(ledger):
        if event.get("event") in ("asset_done", "asset_failed"):
            records[event["asset"]] = event
    return records


def write_report(path: Path, records: dict[str, dict[str, Any]]) -> None:
    """Write one line per failed unit, clip left out and clip to look at (file, clip, state, kind, message)."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("file", "clip", "state", "kind", "message"))
    for name, record in sorted(records.items()):
        if record["event"] == "asset_failed":
            writer.writerow(map(safe_cell, (name, "", "failed", record["kind"], record["message"])))
        for state, field in (("left out", "skipped"), ("doubtful", "doubtful")):
            for clip, reason in record.get(field, ()):
                writer.writerow(map(safe_cell, (name, clip, state, "", reason)))
    write_text(path, stream.getvalue())
