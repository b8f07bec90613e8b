"""Animate every row of a manifest: plan what is missing, fan it out over the Ray pool, and report.

Every row ends in exactly one state. A result folder appears whole or not at all; what it answers to is in its receipt,
so running again does only what is missing, whatever ended the run before.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from animate4d import __version__
from animate4d.assets.sniff import detect_format
from animate4d.batch.config import AnimateBatchConfig
from animate4d.batch.gallery import write_gallery
from animate4d.batch.ledger import Ledger, folder_lock
from animate4d.batch.manifest import Manifest, ManifestRow, read_manifest
from animate4d.batch.pool import Ended, Pool, PoolPlan, Started, Waiting, pool_size
from animate4d.batch.progress import Progress
from animate4d.batch.report import RowResult, table_row, write_results
from animate4d.compute.paths import durable_path, input_path
from animate4d.compute.session import ray_session
from animate4d.core.errors import AssetError, ConfigError
from animate4d.core.hashing import hash_file
from animate4d.pipeline.receipt import matching_receipt, model_version
from animate4d.runs.batch_run import BatchRun
from animate4d.runs.registry import resolve_model

INTERRUPTED = 130
REPORT_SECONDS = 20.0
"""Least time between two writes of the table and the page while rows are coming in."""

LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
"""Folders of `io.atomic` that a killed worker could not remove."""


def animate_batch(config: AnimateBatchConfig) -> int:
    """Animate a manifest.

    Returns:
        0 when every row is done, 1 when some are not, 130 when interrupted.

    Raises:
        ManifestError: the manifest as a whole is wrong.
        ConfigError: the output folder cannot be written, or another batch holds it.
        ModelError: the model is missing or wrong and some row needs it.
        ClusterError: the cluster cannot hold a worker.
    """
    manifest = read_manifest(input_path(config.manifest), config.options)
    out = durable_path(config.out)
    _check_writable(out)
    with folder_lock(out), Ledger(out / "ledger.jsonl") as ledger:
        return _Batch(config, manifest, out, ledger).run()


class _Batch:
    """One run of one batch; holds how each row ended so far."""

    def __init__(self, config: AnimateBatchConfig, manifest: Manifest, out: Path, ledger: Ledger) -> None:
        self.config, self.manifest, self.out, self.ledger = config, manifest, out, ledger
        self.results: dict[str, RowResult] = {}
        self.progress = Progress(len(manifest.rows))
        self.model: Path | None = None
        self.version = ""
        self._reported = 0.0

    def run(self) -> int:
        self._remove_leftovers()
        if any(row.request and row.request.video == "generated" for row in self.manifest.rows):
            self.model = resolve_model(self.config.model, uri=self.config.tracking_uri)
            self.version = model_version(self.model)
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
            self._remove_leftovers()
            self._report()
        seconds = time.monotonic() - start
        counts = self._counts()
        self.ledger.write("batch_interrupted" if interrupted else "batch_finished", seconds=round(seconds, 1), **counts)
        if self.config.record and not interrupted:
            self._record(seconds)
        self._say_end(counts, seconds)
        if interrupted:
            return INTERRUPTED
        return 0 if counts["done"] == len(self.manifest.rows) else 1

    def _remove_leftovers(self) -> None:
        for folder in self.out.iterdir():
            if LEFTOVER.fullmatch(folder.name):
                shutil.rmtree(folder)

    def _plan(self) -> list[ManifestRow]:
        """Settle what needs no work and return the rows that do."""
        missing, done = [], 0
        for row in self.manifest.rows:
            receipt = None
            try:
                _check_asset(row)
                if row.request is not None:
                    receipt = matching_receipt(self.out / row.id, row.request, self.version)
            except AssetError as error:
                self._settle(RowResult(row=row, state="failed", kind="bad input", message=f"line {row.line}: {error}"))
                continue
            if row.request is None:
                self._settle(RowResult(row=row, state="failed", kind="bad input", message=row.problem))
            elif receipt is not None:
                self.results[row.id] = RowResult(row=row, state="done", receipt=receipt)
                self.ledger.write("row_kept", id=row.id, line=row.line, key=receipt["key"])
                done += 1
            else:
                missing.append(row)
        self.progress.skip_done(done)
        return missing

    def _work(self, rows: list[ManifestRow]) -> None:
        if not rows:
            return
        # The signal handler comes second, because Ray puts in its own, which aborts.
        with ray_session(), _sigterm_interrupts():
            workers, cpus, gpus = pool_size(self.config.workers, len(rows))
            needed = any(row.request and row.request.video == "generated" for row in rows)
            plan = PoolPlan(
                workers=workers,
                cpus=cpus,
                gpus=gpus,
                model=self.model if needed else None,
                version=self.version,
                retries=self.config.retries,
                row_seconds=self.config.row_minutes * 60,
            )
            self.progress.workers = workers
            self.progress.say(f"animating {len(rows)} objects, {workers} at once")
            with contextlib.closing(Pool(plan, self.out)) as pool:
                for event in pool.run(rows):
                    self._note(event, pool)

    def _note(self, event: Started | Ended | Waiting, pool: Pool) -> None:
        if isinstance(event, Started):
            self.ledger.write("row_started", id=event.row.id, line=event.row.line, attempt=event.attempt)
        elif isinstance(event, Ended):
            self._settle(_result(event))
            if time.monotonic() - self._reported > REPORT_SECONDS:
                self._report()
        elif self.progress.silent():
            self.progress.alive(event.running, {row: pool.stage(row) for row in list(event.running)[:4]})

    def _settle(self, result: RowResult) -> None:
        self.results[result.row.id] = result
        row = result.row
        facts: dict[str, Any] = {"id": row.id, "line": row.line, "attempts": result.attempts}
        if result.state == "done":
            self.ledger.write("row_done", **facts, prompt=row.prompt, key=result.receipt["key"])
        else:
            told = {"kind": result.kind, "column": result.column, "message": result.message, "trace": result.trace}
            self.ledger.write(f"row_{result.state}", **facts, asset=row.asset, prompt=row.prompt, **told)
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
        results = self._all_results()
        write_results(self.out / "results.csv", self.manifest, results)
        write_gallery(self.out / "index.html", self.manifest, results)
        self._reported = time.monotonic()

    def _record(self, seconds: float) -> None:
        results = self._all_results()
        truths = [result.receipt["truth"] for result in results if result.state == "done" and result.receipt["truth"]]
        metrics = {**self._counts(), "rows": len(results), "seconds": seconds}
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
            run.log_rows([table_row(result) for result in results])
            for name in ("results.csv", "index.html"):
                run.log_file(self.out / name)

    def _say_end(self, counts: dict[str, int], seconds: float) -> None:
        parts = ", ".join(f"{count} {state}" for state, count in counts.items() if count or state == "done")
        self.progress.say(f"{parts} in {seconds:.0f} s")
        self.progress.say(f"gallery: {self.out / 'index.html'}")
        self.progress.say(f"table:   {self.out / 'results.csv'}")


def _result(event: Ended) -> RowResult:
    outcome = event.outcome
    if outcome["state"] == "done":
        return RowResult(row=event.row, state="done", attempts=event.attempt, receipt=outcome["receipt"])
    return RowResult(
        row=event.row,
        state="failed",
        kind=outcome["kind"],
        message=f"line {event.row.line}: {outcome['message']}",
        attempts=event.attempt,
        trace=outcome["trace"],
    )


def _check_asset(row: ManifestRow) -> None:
    """Tell a missing file, or one that is no 3D model at all, before a worker is spent on it."""
    if row.request is None:
        return
    path = row.request.asset
    if path.is_dir():
        raise AssetError(f"{row.asset} is a folder: give the path of one 3D file")
    if not path.is_file():
        raise AssetError(f"{row.asset}: there is no such file in {path.parent}: mend the path or remove the row")
    detect_format(path)


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{out}: cannot write there ({error.strerror}): choose another --out") from None


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
