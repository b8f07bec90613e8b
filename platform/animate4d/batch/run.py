"""Animate every row of a manifest: plan what is missing, fan it out over the Ray pool, and report.

Every row ends in exactly one state. A result folder appears whole or not at all; what it answers to is in its receipt,
so running again does only what is missing, whatever ended the run before.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from animate4d import __version__
from animate4d.batch.config import AnimateBatchConfig
from animate4d.batch.forecast import longest_first
from animate4d.batch.gallery import write_gallery
from animate4d.batch.ledger import Ledger, folder_lock, read_ledger
from animate4d.batch.manifest import Manifest, ManifestRow, read_manifest
from animate4d.batch.places import Wanted, cluster_places, local_places
from animate4d.batch.plan import PlannedRow, plan_rows, plan_text
from animate4d.batch.pool import Ended, Event, Pool, PoolPlan, Shrunk, Started
from animate4d.batch.progress import Progress, line_of
from animate4d.batch.report import RowResult, best_of_seeds, table_row, write_records, write_results
from animate4d.batch.worst import write_worst
from animate4d.compute.paths import durable_path, input_path
from animate4d.compute.session import ray_session
from animate4d.core.errors import ConfigError
from animate4d.core.hashing import hash_file
from animate4d.io.atomic import check_writable
from animate4d.pipeline.animate import kept_beside
from animate4d.pipeline.receipt import model_version
from animate4d.runs.batch_run import BatchRun
from animate4d.runs.registry import resolve_model

INTERRUPTED = 130
REPORT_SECONDS = 20.0
"""Least time between two writes of the tables and the page while rows are coming in."""

REPORT_SHARE = 0.03
"""Share of the driver's time that such writes may take: with ten thousand rows one takes some seconds."""

LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
"""Folders and files of `io.atomic` that a killed worker or driver could not remove."""


def animate_batch(config: AnimateBatchConfig) -> int:
    """Animate a manifest.

    Returns:
        0 when every row is done, 1 when some are not, 130 when interrupted.

    Raises:
        ManifestError: the manifest as a whole is wrong.
        ConfigError: the output folder cannot be written, or another batch holds it; or GPUs are to be shared by fits
            that cannot use them.
        ModelError: the model is missing or wrong and some row needs it.
        ClusterError: the cluster cannot hold a worker.
    """
    manifest = read_manifest(input_path(config.manifest), config.options)
    if config.fit_share and not any(row.request and row.request.options.fit == "paper" for row in manifest.rows):
        raise ConfigError("fit_share is given, but no row has fit=paper; other fits run on the CPU: leave it out")
    out = durable_path(config.out)
    if config.plan:
        return show_plan(config, manifest, out)
    check_writable(out)
    with folder_lock(out), Ledger(out / "ledger.jsonl") as ledger:
        return _Batch(config, manifest, out, ledger).run()


def show_plan(config: AnimateBatchConfig, manifest: Manifest, out: Path) -> int:
    """Print what a batch would do and cost; nothing is written. Returns 1 if a row is wrong, like the batch would."""
    _, version = _model(config, manifest)
    planned = plan_rows(manifest, out, version, _shrunk(out))
    places = local_places(_wanted(config, [one.row for one in planned if one.forecast is not None]))
    for line in (*manifest.warnings, *plan_text(planned, places)):
        print(line_of(line))
    return 1 if any(one.need == "wrong" for one in planned) else 0


def _wanted(config: AnimateBatchConfig, rows: Sequence[ManifestRow]) -> Wanted:
    """Return what the work on some rows asks of machines."""
    return Wanted(
        rows=len(rows),
        model=any(row.request is not None and row.request.video == "generated" for row in rows),
        at_once=config.workers,
        gpu_share=config.gpu_share,
        fit_share=config.fit_share,
    )


def _model(config: AnimateBatchConfig, manifest: Manifest) -> tuple[Path | None, str]:
    """Return the folder and version of the model; None and "" where no row needs one."""
    if not any(row.request and row.request.video == "generated" for row in manifest.rows):
        return None, ""
    folder = resolve_model(config.model, uri=config.tracking_uri)
    return folder, model_version(folder)


def _shrunk(out: Path) -> set[str]:
    """Return the ids of rows that ran out of memory in an earlier run and were done with less."""
    path = out / "ledger.jsonl"
    events = read_ledger(path) if path.is_file() else []
    return {event["id"] for event in events if event.get("event") == "row_shrunk"}


class _Batch:
    """One run of one batch; holds how each row ended so far."""

    def __init__(self, config: AnimateBatchConfig, manifest: Manifest, out: Path, ledger: Ledger) -> None:
        self.config, self.manifest, self.out, self.ledger = config, manifest, out, ledger
        self.results: dict[str, RowResult] = {}
        self.asked = {row.id: row.request for row in manifest.rows}
        self.progress = Progress(len(manifest.rows))
        self.model: Path | None = None
        self.version = ""
        self._reported = self._report_took = 0.0

    def run(self) -> int:
        self._remove_leftovers()
        self.model, self.version = _model(self.config, self.manifest)
        self.ledger.write(
            "batch_started",
            manifest=str(self.manifest.path),
            manifest_sha256=hash_file(self.manifest.path),
            rows=len(self.manifest.rows),
            model=self.config.model,
            model_version=self.version,
            animate4d=__version__,
        )
        start = time.monotonic()
        for warning in self.manifest.warnings:
            self.progress.say(warning)
        interrupted = False
        try:
            self._work(self._plan())
        except KeyboardInterrupt:
            interrupted = True
            self.progress.say("interrupted: run the same command again to go on")
        finally:
            # Also when the pool gave up: what was done until then is worth a page.
            self.progress.close()
            self._remove_leftovers()
            self._report()
        seconds = time.monotonic() - start
        counts = self._counts()
        self.ledger.write("batch_interrupted" if interrupted else "batch_finished", seconds=round(seconds, 1), **counts)
        if not interrupted:
            for result in self._all_results():
                shutil.rmtree(kept_beside(self.out / result.row.id), ignore_errors=True)
        if self.config.record and not interrupted:
            self._record(seconds)
        self._say_end(counts, seconds)
        if interrupted:
            return INTERRUPTED
        return 0 if counts["done"] == len(self.manifest.rows) else 1

    def _remove_leftovers(self) -> None:
        for path in self.out.iterdir():
            if LEFTOVER.fullmatch(path.name):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def _plan(self) -> list[PlannedRow]:
        """Settle what needs no work and return the rows that do, longest first."""
        planned = plan_rows(self.manifest, self.out, self.version, _shrunk(self.out))
        kept = [one for one in planned if one.receipt is not None]
        settled = [
            RowResult(row=one.row, state="failed", kind="bad input", message=one.problem)
            for one in planned
            if one.need == "wrong"
        ]
        for one in kept:
            self.results[one.row.id] = RowResult(
                row=one.row, state="done", receipt=one.receipt or {}, shrunk=one.shrunk
            )
        self.ledger.write_all(
            {"event": "row_kept", "id": one.row.id, "line": one.row.line, "key": one.receipt["key"]}
            for one in kept
            if one.receipt
        )
        self._settle(*settled)
        self.progress.skip_done(sum(one.need == "kept" for one in planned))
        missing = [one for one in planned if one.forecast is not None]
        return [missing[place] for place in longest_first([one.forecast.seconds for one in missing if one.forecast])]

    def _work(self, planned: list[PlannedRow]) -> None:
        if not planned:
            return
        rows = [one.row for one in planned]
        # The signal handler comes second, because Ray puts in its own, which aborts.
        with ray_session(), _sigterm_interrupts():
            wanted = _wanted(self.config, rows)
            places = cluster_places(wanted)
            plan = PoolPlan(
                places=places,
                model=self.model if wanted.model else None,
                version=self.version,
                retries=self.config.retries,
                row_seconds=self.config.row_minutes * 60,
            )
            self.progress.workers = places.at_once
            self.progress.say(f"animating {len(rows)} objects, {places.at_once} at once")
            with contextlib.closing(Pool(plan, self.out)) as pool:
                for event in pool.run(rows):
                    self._note(event, pool)

    def _note(self, event: Event, pool: Pool) -> None:
        if isinstance(event, Started):
            facts = {"line": event.row.line, "attempt": event.attempt, "step": event.step}
            self.ledger.write("row_started", id=event.row.id, **facts)
        elif isinstance(event, Shrunk):
            self.ledger.write("row_shrunk", id=event.row.id, line=event.row.line)
            self.progress.say(f"{event.row.id}: ran out of memory, starts over with fit=draft")
        elif isinstance(event, Ended):
            self._settle(_result(event, shrunk=event.row.request != self.asked[event.row.id]))
            if time.monotonic() - self._reported > max(REPORT_SECONDS, self._report_took / REPORT_SHARE):
                self._report()
        else:
            self.progress.at_work(event.running, pool.stages())

    def _settle(self, *results: RowResult) -> None:
        self.ledger.write_all(map(_ended, results))
        for result in results:
            self.results[result.row.id] = result
            self.progress.row(result)

    def _all_results(self) -> list[RowResult]:
        """Return every row in manifest order; those nothing happened to are skipped."""
        waiting = "not worked on yet: run the same command again"
        return [
            self.results.get(row.id) or RowResult(row=row, state="skipped", kind="interrupted", message=waiting)
            for row in self.manifest.rows
        ]

    def _counts(self) -> dict[str, int]:
        states = [result.state for result in self._all_results()]
        return {state: states.count(state) for state in ("done", "failed", "skipped")}

    def _report(self) -> None:
        began = time.monotonic()
        results = self._all_results()
        write_results(self.out / "results.csv", self.manifest, results)
        write_records(self.out / "results.jsonl", results)
        write_gallery(self.out / "index.html", self.manifest, results)
        self._reported = time.monotonic()
        self._report_took = self._reported - began

    def _record(self, seconds: float) -> None:
        results = self._all_results()
        truths = [result.receipt["truth"] for result in results if result.state == "done" and result.receipt["truth"]]
        worked = sum(
            sum(result.receipt["seconds"].values()) for result in results if result.attempts and result.receipt
        )
        metrics = {
            **self._counts(),
            "rows": len(results),
            "seconds": seconds,
            "worker_seconds": worked,
            "utilisation": worked / (seconds * self.progress.workers),
        }
        ratios = [truth["ratio"] for truth in truths if truth["ratio"] is not None]
        if ratios:
            metrics["ratio_mean"] = sum(ratios) / len(ratios)
        with BatchRun(self.manifest.path.stem, uri=self.config.tracking_uri, where=str(self.out)) as run:
            run.log_params(
                {
                    "manifest": str(self.manifest.path),
                    "out": str(self.out),
                    "model": self.config.model,
                    "model_version": self.version,
                    "options": asdict(self.config.options),
                }
            )
            run.log_metrics(metrics)
            best = best_of_seeds(results)
            run.log_rows([table_row(result, best) for result in results])
            for name in ("results.csv", "results.jsonl", "index.html"):
                run.log_file(self.out / name)
            with tempfile.TemporaryDirectory() as name:
                for picture in write_worst(Path(name), self.out, results):
                    run.log_file(picture, "worst")

    def _say_end(self, counts: dict[str, int], seconds: float) -> None:
        parts = ", ".join(f"{count} {state}" for state, count in counts.items() if count or state == "done")
        self.progress.say(f"{parts} in {seconds:.0f} s")
        self.progress.say(f"gallery: {self.out / 'index.html'}")
        self.progress.say(f"table:   {self.out / 'results.csv'}")


def _ended(result: RowResult) -> dict[str, Any]:
    """Return the ledger's event of a row's end."""
    row = result.row
    facts: dict[str, Any] = {
        "event": f"row_{result.state}",
        "id": row.id,
        "line": row.line,
        "attempts": result.attempts,
    }
    if result.state == "done":
        return facts | {"prompt": row.prompt, "key": result.receipt["key"]}
    told = {"kind": result.kind, "column": result.column, "message": result.message, "trace": result.trace}
    return facts | {"asset": row.asset, "prompt": row.prompt, **told}


def _result(event: Ended, *, shrunk: bool) -> RowResult:
    outcome = event.outcome
    if outcome["state"] == "done":
        return RowResult(row=event.row, state="done", attempts=event.attempt, receipt=outcome["receipt"], shrunk=shrunk)
    return RowResult(
        row=event.row,
        state="failed",
        kind=outcome["kind"],
        message=f"line {event.row.line}: {outcome['message']}",
        attempts=event.attempt,
        trace=outcome["trace"],
    )


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let `ray job stop` and schedulers end a batch the way Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
