"""`animate4d bench pool`: how well the pool keeps its places filled, and that every row ends once whatever breaks."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from animate4d.batch.forecast import makespan_bound
from animate4d.batch.manifest import ManifestRow
from animate4d.batch.places import Wanted, places_of
from animate4d.batch.pool import Ended, Pool, PoolPlan, Started
from animate4d.bench.pool.config import BenchPoolConfig, Part
from animate4d.bench.pool.sleeper import Sleeper
from animate4d.compute.local_nodes import LocalNodes
from animate4d.compute.paths import durable_path
from animate4d.compute.session import ray_session
from animate4d.core.errors import ClusterError
from animate4d.io.atomic import write_json
from animate4d.pipeline.config import Request

SPREAD = 0.8
"""Sigma of the logarithm of a row's time: the longest of a thousand takes some nine times the mean."""

SHARE, PER_ROW_S = 1.05, 0.002
"""The limit: 5 % above the least possible time, and 2 ms for each row."""

FAULTS = "RAY_testing_rpc_failure"
"""Where Ray looks for faults to inject."""

LOSSY_CALL = "CoreWorkerService.grpc_client.PushTask"
"""The driver's call of a worker, as Ray's fault injection names it."""

KILL_AT = 0.5
"""Share of the rows that have ended when a node is killed."""


def bench_pool(config: BenchPoolConfig) -> int:
    """Measure, print and write the file; returns 1 if a limit does not hold."""
    import torch

    from animate4d.bench.machine import machine_facts

    report: dict[str, Any] = {
        "bench": "pool",
        "settings": asdict(config) | {"out": str(config.out)},
        "machine": machine_facts(torch.device("cpu")),
        "parts": {},
    }
    for part in config.parts:
        count = config.rows if part == "makespan" else config.fault_rows
        print(f"{part}: {count} rows on {config.nodes} nodes with {config.gpus} GPUs", flush=True)
        report["parts"][part] = found = measured_apart(config, part)
        print(told(part, found), flush=True)
    out = durable_path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, report)
    print(f"\n{out}")
    return 0 if all(found["holds"] for found in report["parts"].values()) else 1


def measured_apart(config: BenchPoolConfig, part: Part) -> dict[str, Any]:
    """Measure in a process of its own: Ray reads which answers to lose once per process.

    Raises:
        ClusterError: the process died.
    """
    with tempfile.TemporaryDirectory(prefix="bench-pool-") as name:
        child = multiprocessing.get_context("spawn").Process(target=measure, args=(config, part, Path(name)))
        child.start()
        child.join()
        answer = Path(name) / "answer.json"
        if not answer.exists():
            raise ClusterError(f"the part {part!r} ended with exit code {child.exitcode} and no answer")
        return json.loads(answer.read_bytes())


def measure(config: BenchPoolConfig, part: Part, folder: Path) -> None:
    """Run all rows on a cluster of this process and write `answer.json`."""
    if part == "faults":
        loss = {"num_failures": -1, "req_failure_prob": 0, "resp_failure_prob": config.lost_replies}
        os.environ[FAULTS] = json.dumps({LOSSY_CALL: loss})
    shares = [config.gpus // config.nodes + (node < config.gpus % config.nodes) for node in range(config.nodes)]
    # Ray tells what dies on the standard output of its driver, state dumps and all.
    with open(folder / "ray.log", "w") as log, redirect_stdout(log), LocalNodes(cpus=0) as nodes:
        for share in shares:
            nodes.join(cpus=share, gpus=share)
        os.environ["RAY_ADDRESS"] = nodes.address
        with ray_session():
            answer = run_rows(config, part, folder, kill=nodes.lose)
    (folder / "answer.json").write_text(json.dumps(answer))


def run_rows(config: BenchPoolConfig, part: Part, folder: Path, kill: Callable[[], None]) -> dict[str, Any]:
    """Let the pool work through the rows; in the part "faults" `kill` is called in the middle."""
    rows = sleeping_rows(config, config.rows if part == "makespan" else config.fault_rows)
    places = places_of(config.gpus, config.gpus, Wanted(rows=len(rows), model=True))
    plan = PoolPlan(places=places, model=None, version="", retries=10, row_seconds=3600.0)
    ended: dict[str, int] = dict.fromkeys((row.id for row in rows), 0)
    starts, failed, slept = 0, 0, sum(float(row.prompt) for row in rows)
    with closing(Pool(plan, folder, Sleeper)) as pool:
        pool.warm_up()
        began = time.monotonic()
        for event in pool.run(rows):
            if isinstance(event, Started):
                starts += 1
            if isinstance(event, Ended):
                ended[event.row.id] += 1
                failed += event.outcome["state"] != "done"
                if part == "faults" and sum(ended.values()) == math.ceil(KILL_AT * len(rows)):
                    kill()
        seconds = time.monotonic() - began
    marks = [folder / f"{row.id}.starts" for row in rows]
    worked = sum(len(mark.read_text()) for mark in marks if mark.exists())
    least = makespan_bound([float(row.prompt) for row in rows], config.gpus)
    limit = SHARE * least + PER_ROW_S * len(rows)
    once = all(count == 1 for count in ended.values()) and not failed
    return {
        "rows": len(rows),
        "seconds": round(seconds, 3),
        "least_seconds": round(least, 3),
        "limit_seconds": round(limit, 3),
        "ratio": round(seconds / least, 4),
        "utilisation": round(slept / (seconds * config.gpus), 4),
        "ended_once": sum(count == 1 for count in ended.values()),
        "failed": failed,
        "starts": starts,
        "worked_again": worked - len(rows),
        "holds": once and (part == "faults" or seconds <= limit),
    }


def sleeping_rows(config: BenchPoolConfig, count: int) -> list[ManifestRow]:
    """Draw the times of so many rows and return the rows longest first, as a batch orders them."""
    rng = random.Random(config.seed)
    centre = math.log(config.mean_seconds) - SPREAD**2 / 2
    times = sorted((rng.lognormvariate(centre, SPREAD) for _ in range(count)), reverse=True)
    asset = Path("none.glb")
    return [
        ManifestRow(
            line=number + 2,
            id=f"row-{number:05d}",
            asset=asset.name,
            prompt=f"{seconds:.4f}",
            request=Request(asset=asset, prompt=f"{seconds:.4f}"),
        )
        for number, seconds in enumerate(times)
    ]


def told(part: Part, found: dict[str, Any]) -> str:
    """Return what was found as lines of text."""
    verdict = "holds" if found["holds"] else "DOES NOT HOLD"
    lines = [
        f"  every row ended once: {found['ended_once']} of {found['rows']}, {found['failed']} failed; "
        f"{found['worked_again']} worked on again",
        f"  {found['seconds']:.1f} s, least possible {found['least_seconds']:.1f} s (ratio {found['ratio']:.3f}), "
        f"utilisation {found['utilisation']:.1%}",
    ]
    if part == "makespan":
        lines.append(
            f"  limit {SHARE} x least + {PER_ROW_S * 1000:g} ms a row = {found['limit_seconds']:.1f} s: {verdict}"
        )
    else:
        lines.append(f"  a node killed in the middle, answers lost: {verdict}")
    return "\n".join(lines)
