"""`animate4d bench http`: what gate and job store add to a submission, and that overload loses nothing it accepted.

Both sides of the first part are FastAPI apps behind uvicorn on loopback that parse the same form; one is the service,
the other has its route alone. Neither reads the model that is uploaded, which would cost both the same.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from queue import Queue
from typing import Annotated, Any

import torch
from fastapi import Depends, FastAPI, File, UploadFile
from starlette.responses import JSONResponse

from animate4d.bench.clock import measure
from animate4d.bench.http_config import BenchHttpConfig
from animate4d.bench.machine import machine_facts
from animate4d.compute.paths import durable_path
from animate4d.io.atomic import write_json
from animate4d.serve.answers import describe
from animate4d.serve.api import create_app
from animate4d.serve.client import form
from animate4d.serve.config import ServeConfig
from animate4d.serve.job_store import Job, JobStore
from animate4d.serve.submission import submitted_request

OVERHEAD_MS = 10.0
"""Limit: median of the service above that of the plain app."""

MANY = 10**9
CALLERS = 4
OVERLOAD = 2


def bench_http(config: BenchHttpConfig) -> int:
    """Measure, print and write the file; returns 1 if a limit does not hold."""
    report: dict[str, Any] = {
        "bench": "http",
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()},
        "machine": machine_facts(torch.device("cpu")),
    }
    with tempfile.TemporaryDirectory(prefix="bench-http-") as name:
        report["overhead"] = measure_overhead(config, Path(name) / "overhead")
        report["overload"] = measure_overload(config, Path(name) / "overload")
    added, overload = report["overhead"]["added_ms"], report["overload"]
    report["limits"] = [
        {"limit": f"added <= {OVERHEAD_MS:g} ms", "holds": added <= OVERHEAD_MS},
        {"limit": "accepted jobs lost: 0", "holds": overload["lost"] == 0},
        {"limit": "refusals without 429 or 503 and Retry-After: 0", "holds": overload["refused_badly"] == 0},
    ]
    print(text(report))
    out = durable_path(config.out)
    write_json(out, report)
    print(f"\n{out}")
    return 0 if all(limit["holds"] for limit in report["limits"]) else 1


def measure_overhead(config: BenchHttpConfig, folder: Path) -> dict[str, Any]:
    """Submit to the service and to the plain app in turns."""
    store = JobStore(folder)
    settings = ServeConfig(max_queued=MANY, max_open_per_client=MANY, requests_per_minute=MANY)
    service = create_app(settings, store, lambda _job: None, check=lambda _store, _job: None)
    request = form({"prompt": "a box bouncing"}, "box.glb", bytes(int(config.megabytes * 1e6)))
    with served(plain_app()) as plain, served(service) as ours:
        timings = measure(
            {"plain": lambda: accepted(plain, request), "service": lambda: accepted(ours, request)},
            device=torch.device("cpu"),
            repeats=config.requests,
            warmup=config.warmup,
        )
    added = timings["service"].ms - timings["plain"].ms
    return {name: timing.to_json() for name, timing in timings.items()} | {
        "added_ms": round(added, 3),
        "ratio": round(timings["service"].ms / timings["plain"].ms, 3),
    }


def measure_overload(config: BenchHttpConfig, folder: Path) -> dict[str, Any]:
    """Submit twice as often as one stand-in worker ends jobs, and count what becomes of each submission."""
    store, work = JobStore(folder), Queue[str | None]()
    settings = ServeConfig(max_queued=config.queue, max_open_per_client=MANY, requests_per_minute=MANY)
    app = create_app(settings, store, work.put, check=lambda _store, _job: None)

    def worker() -> None:
        while (job_id := work.get()) is not None:
            time.sleep(config.job_ms / 1e3)
            store.finish(job_id, "done")

    request = form({"prompt": "a box bouncing"}, "box.glb", b"glTF")
    thread = threading.Thread(target=worker)
    thread.start()
    begun = time.perf_counter()

    def submit(number: int, connection: http.client.HTTPConnection) -> tuple[int, bool]:
        due = begun + number * config.job_ms / 1e3 / OVERLOAD
        time.sleep(max(0.0, due - time.perf_counter()))
        return post(connection, request)

    def caller(first: int) -> list[tuple[int, bool]]:
        with served_connection(address) as connection:
            return [submit(number, connection) for number in range(first, config.jobs, CALLERS)]

    with served_address(app) as address, ThreadPoolExecutor(CALLERS) as callers:
        answers = [answer for found in callers.map(caller, range(CALLERS)) for answer in found]
        work.put(None)
        thread.join()
    again = JobStore(folder)  # as a restarted service would find them
    states = Counter(job.state for job in again.known())
    counts = Counter(status for status, _ in answers)
    refused_badly = sum(status != 202 and not (status in (429, 503) and later) for status, later in answers)
    return {
        "answers": {str(status): number for status, number in sorted(counts.items())},
        "done": states["done"],
        "lost": counts[202] - states["done"],
        "refused_badly": refused_badly,
    }


def plain_app() -> FastAPI:
    """Return an app with the route of a submission and nothing around it."""
    app = FastAPI()

    @app.post("/v1/animations", status_code=202)
    async def submit(
        asset: Annotated[UploadFile, File()], wanted: Annotated[dict[str, Any], Depends(submitted_request)]
    ) -> JSONResponse:
        await asset.read()
        job = Job(id="0" * 32, request=wanted, asset="box.glb", created=0.0, updated=0.0)
        return JSONResponse(describe(job, None).model_dump(), 202)

    return app


@contextmanager
def served_address(app: FastAPI) -> Iterator[tuple[str, int]]:
    """Serve an app by uvicorn in a thread; gives its address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it, answers wait 40 ms for an ACK.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    try:
        yield listening.getsockname()
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def served_connection(address: tuple[str, int]) -> Iterator[http.client.HTTPConnection]:
    """Give a connection that is kept alive."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def served(app: FastAPI) -> Iterator[http.client.HTTPConnection]:
    """Serve an app and give a connection to it."""
    with served_address(app) as address, served_connection(address) as connection:
        yield connection


def post(connection: http.client.HTTPConnection, request: tuple[bytes, str]) -> tuple[int, bool]:
    """Submit; returns the status and whether the answer says when to come again."""
    connection.request("POST", "/v1/animations", request[0], {"Content-Type": request[1]})
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers.get("Retry-After") is not None


def accepted(connection: http.client.HTTPConnection, request: tuple[bytes, str]) -> None:
    """Submit what must be accepted."""
    status, _ = post(connection, request)
    assert status == 202, status


def text(report: dict[str, Any]) -> str:
    """Return the tables as text."""
    settings, machine, overhead, overload = (report[key] for key in ("settings", "machine", "overhead", "overload"))
    lines = [
        f"http, {settings['requests']} submissions of {settings['megabytes']:g} MB to either side in turns; "
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average']}",
        "",
        f"{'':<10} {'ms':>8} {'quartiles':>14}",
    ]
    for name in ("plain", "service"):
        row = overhead[name]
        lines.append(f"{name:<10} {row['ms']:>8.2f} {row['low']:>6.2f}-{row['high']:.2f}")
    answers = ", ".join(f"{number} times {status}" for status, number in overload["answers"].items())
    lines += [
        "",
        f"added {overhead['added_ms']:.2f} ms, ratio {overhead['ratio']:.2f}",
        f"overload {OVERLOAD}x, {settings['jobs']} submissions: {answers}; "
        f"{overload['done']} done, {overload['lost']} lost, {overload['refused_badly']} refused without Retry-After",
        *(f"{'holds' if limit['holds'] else 'BROKEN':<7} {limit['limit']}" for limit in report["limits"]),
    ]
    return "\n".join(lines)
