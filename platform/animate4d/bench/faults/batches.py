"""Faults of a batch (D39-D46): workers, nodes and drivers that die or hang, folders that are taken or read-only."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any

from animate4d.assets.procedural import generate_objects
from animate4d.batch.config import AnimateBatchConfig
from animate4d.batch.ledger import folder_lock, read_ledger
from animate4d.batch.manifest import ManifestRow
from animate4d.batch.places import Places
from animate4d.batch.pool import Ended, Pool, PoolPlan
from animate4d.batch.run import animate_batch
from animate4d.bench.faults.saboteur import DIE, HANG, LARGE, WORK_S, Saboteur
from animate4d.bench.faults.scenario import Account, Watch, scenario
from animate4d.bench.faults.workbench import Workbench
from animate4d.bench.faults.workers import PRELOAD
from animate4d.bench.pool.config import BenchPoolConfig
from animate4d.bench.pool.run import measured_apart
from animate4d.compute.session import session_address
from animate4d.core.errors import ConfigError
from animate4d.pipeline.config import AnimateOptions, Request

ROWS, VICTIM = 6, 2
LIMIT_S, HANG_S = 120.0, 3.0
"""Time limit of a row; the short one where it is what must be noticed."""
PATIENCE_S = 240.0


def through_pool(bench: Workbench, name: str, fault: str, limit: float = LIMIT_S) -> tuple[Watch, list[Ended], Path]:
    """Work through rows of which one suffers a fault; the watch starts with it."""
    folder = bench.fresh_folder(name)
    places = Places(workers=2, cpus=0.5, gpus=0)
    plan = PoolPlan(places=places, model=None, version="", retries=2, row_seconds=limit)
    asset = Path("none.glb")
    rows = []
    for number in range(ROWS):
        prompt = fault if number == VICTIM else WORK_S
        request = Request(asset=asset, prompt=prompt)
        rows.append(ManifestRow(line=number + 2, id=f"row{number}", asset="none.glb", prompt=prompt, request=request))
    with closing(Pool(plan, folder, Saboteur)) as pool:
        ended = [event for event in pool.run(rows) if isinstance(event, Ended)]
    watch = Watch()
    watch.started_with(folder / f"row{VICTIM}.fault")
    return watch, ended, folder


def account(watch: Watch, ended: list[Ended], folder: Path) -> Account:
    """Return what became of the rows: each must have ended once, with its work done or a message."""
    failed = [event for event in ended if event.outcome["state"] != "done"]
    if failed:
        watch.detected(failed[0].outcome["message"])
    watch.recovered()
    missing = ROWS - len({event.row.id for event in ended})
    undone = sum(not (folder / f"{event.row.id}.done").exists() for event in ended) - len(failed)
    return watch.account(lost=len(failed), silent=missing + abs(len(ended) - ROWS) + abs(undone))


@scenario("D40", "worker that dies in a row", then="the row starts over in another one", unit="rows", needs_ray=True)
def d40(bench: Workbench) -> Account:
    """End a worker's process once."""
    return account(*through_pool(bench, "d40", f"{DIE} once"))


@scenario(
    "D40-always",
    "row that ends every worker",
    then="tried three times, then it fails; the others are done",
    unit="rows",
    most_lost=1,
    says=("died 3 times", "--workers"),
    needs_ray=True,
)
def d40_always(bench: Workbench) -> Account:
    """End every worker that takes the row."""
    return account(*through_pool(bench, "d40-always", DIE))


@scenario(
    "D41",
    "row that always runs out of memory",
    then="tried once more with less, then it fails; the others are done",
    unit="rows",
    most_lost=1,
    says=("out of memory",),
    needs_ray=True,
)
def d41(bench: Workbench) -> Account:
    """Run out of memory with every request."""
    return account(*through_pool(bench, "d41", LARGE))


@scenario(
    "D42",
    "row that hangs",
    then="stopped at its time limit, its place is used again; the others are done",
    unit="rows",
    most_lost=1,
    says=("took longer than", "--row-minutes"),
    needs_ray=True,
)
def d42(bench: Workbench) -> Account:
    """Never come back."""
    return account(*through_pool(bench, "d42", HANG, HANG_S))


@scenario(
    "D43",
    "node lost while its rows run, and a quarter of all answers",
    then="their rows start over elsewhere, and say at once where they were done; every row ends once",
    unit="rows",
    needs_ray=True,
)
def d43(_bench: Workbench) -> Account:
    """Run rows on a cluster of its own, as `animate4d bench pool` does (D44 is in it)."""
    watch = Watch()
    found = measured_apart(BenchPoolConfig(fault_rows=24, nodes=2, gpus=4, mean_seconds=0.3), "faults")
    watch.recovered()
    return watch.account(lost=found["failed"], silent=found["rows"] - found["ended_once"])


@scenario(
    "D39",
    "SIGKILL of the driver in the middle of a batch",
    then="the same command does the rest; the table has every row once",
    unit="rows",
    most_lost=1,
    needs_ray=True,
)
def d39(bench: Workbench) -> Account:
    """Kill the driver when its second row is at work, which is lost."""
    folder = bench.fresh_folder("d39")
    generate_objects(folder, count=1, seed=5, families=("barrel",))[0].rename(folder / "barrel.glb")
    lines = [f"r{number},barrel.glb,,ground-truth,{number}" for number in range(3)]
    (folder / "manifest.csv").write_text("\n".join(["id,asset,prompt,video,seed", *lines]) + "\n")
    config = AnimateBatchConfig(
        manifest=folder / "manifest.csv",
        out=folder / "out",
        workers=1,
        record=False,
        options=AnimateOptions(fit="draft", frames=2, formats=("npz",)),
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    environment = dict(os.environ) | {"RAY_ADDRESS": session_address()}
    driver: Any = context.Process(target=drive_elsewhere, args=(config, environment), daemon=True)
    driver.start()
    give_up = time.monotonic() + PATIENCE_S
    while len(events(config.out, "row_started")) < 2:
        if not driver.is_alive() or time.monotonic() > give_up:
            raise TimeoutError("the second row was not begun")
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.join()
    watch = Watch()
    done = {event["id"] for event in events(config.out, "row_done")}
    started = {event["id"] for event in events(config.out, "row_started")}
    drive(config)
    watch.recovered()
    rows = [json.loads(line) for line in (config.out / "results.jsonl").read_text().splitlines()]
    again = [event["id"] for event in events(config.out, "row_done")]
    silent = sum(row["state"] != "done" for row in rows) + abs(len(rows) - 3) + len(again) - len(set(again))
    return watch.account(lost=len(started - done), silent=silent)


def drive_elsewhere(config: AnimateBatchConfig, environment: dict[str, str]) -> None:
    """Be the driver of a batch in a process of its own, which takes on an environment."""
    os.environ |= environment
    drive(config)


def drive(config: AnimateBatchConfig) -> None:
    """Be the driver of a batch."""
    with open(config.out.parent / "driver.log", "a") as log, redirect_stdout(log):
        animate_batch(config)


def events(out: Path, name: str) -> list[dict[str, Any]]:
    """Return a batch's events of one kind so far."""
    path = out / "ledger.jsonl"
    return [event for event in read_ledger(path) if event["event"] == name] if path.exists() else []


@scenario(
    "D45",
    "second driver on one output folder",
    then="refused, naming the first; a lock left by a dead one does not matter",
    unit="rows",
    says=("another batch is writing here", "process", "--out"),
)
def d45(bench: Workbench) -> Account:
    """Hold the folder, try to take it, let go, and take it."""
    folder = bench.fresh_folder("d45")
    watch = Watch()
    with folder_lock(folder), watch.expecting(ConfigError), folder_lock(folder):
        pass
    with folder_lock(folder):
        watch.recovered()
    return watch.account(lost=0, silent=0)


@scenario(
    "D46",
    "output folder that cannot be written",
    then="refused before any work",
    unit="rows",
    says=("cannot write there", "--out"),
)
def d46(bench: Workbench) -> Account:
    """Put the output below a file, where not even root can make a folder."""
    folder = bench.fresh_folder("d46")
    (folder / "file").write_text("")
    (folder / "model.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    manifest = folder / "manifest.csv"
    manifest.write_text("asset,prompt,video\nmodel.obj,moves,ground-truth\n")
    watch = Watch()
    with watch.expecting(ConfigError):
        animate_batch(AnimateBatchConfig(manifest=manifest, out=folder / "file" / "out", record=False))
    watch.recovered()
    return watch.account(lost=0, silent=0)


SCENARIOS = (d39, d40, d40_always, d41, d42, d43, d45, d46)
