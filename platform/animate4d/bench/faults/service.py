"""Faults of the service (D47-D52): the real app over loopback, with a stand-in where workers would be."""

from __future__ import annotations

import asyncio
import http.client
import json
import multiprocessing
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from animate4d.bench.faults.broken_models import triangle_glb
from animate4d.bench.faults.scenario import Account, Watch, scenario, worst
from animate4d.bench.faults.workbench import Workbench
from animate4d.bench.faults.workers import PRELOAD
from animate4d.bench.http import served_address
from animate4d.runs.registry import SHIPPED
from animate4d.serve.api import create_app
from animate4d.serve.client import Client, form
from animate4d.serve.config import ServeConfig
from animate4d.serve.job_store import JobStore

PATIENCE_S = 60.0
QUEUE, OVERLOAD = 3, 2
ROUTE = "/v1/animations"

Address = tuple[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the service answered."""

    status: int
    later: bool
    facts: dict[str, Any]


def upload(content: bytes | None = None) -> tuple[bytes, str]:
    """Return body and content type of a submission; a sound model by default."""
    return form({"prompt": "a triangle turning"}, "model.glb", triangle_glb() if content is None else content)


def ask(address: Address, method: str, path: str, body: bytes = b"", kind: str = "") -> Answer:
    """Send one request on a connection of its own."""
    with closing(http.client.HTTPConnection(*address, timeout=PATIENCE_S)) as connection:
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        later = answer.headers.get("Retry-After") is not None
        return Answer(status=answer.status, later=later, facts=json.loads(answer.read()))


def until(true: Callable[[], object]) -> None:
    """Wait for something that must come."""
    give_up = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > give_up:
            raise TimeoutError("it did not happen")
        time.sleep(0.005)


@contextmanager
def service(
    bench: Workbench,
    name: str,
    work: Callable[[JobStore, str], object] = lambda _store, _job: None,
    unready: Callable[[], str] = str,
    **settings: Any,
) -> Iterator[tuple[Address, JobStore]]:
    """Serve the app on a fresh store; `work` is given each job that is accepted."""
    store = JobStore(bench.fresh_folder(name) / "jobs")

    def submit(job_id: str) -> None:
        work(store, job_id)

    app = create_app(ServeConfig(**settings), store, submit, unready=unready)
    with served_address(app) as address:
        yield address, store


def finish(store: JobStore, job_id: str) -> None:
    """Be a worker that is done at once."""
    store.finish(job_id, "done")


def refused(bench: Workbench, name: str, status: int, body: bytes, kind: str, **settings: Any) -> Account:
    """Send what must be refused with a status, then a sound submission."""
    with service(bench, name, **settings) as (address, store):
        watch = Watch()
        answer = ask(address, "POST", ROUTE, body, kind)
        if answer.status == status:
            watch.detected(answer.facts["detail"])
        left = len(list(store.root.iterdir()))
        silent = int(ask(address, "POST", ROUTE, *upload()).status != 202) + left
        watch.recovered()
        return watch.account(lost=0, silent=silent + abs(store.open_count() - 1))


@scenario(
    "D47",
    "submission without a body, with an empty file, or with the file under another name",
    then="refused with 422 and the name of the field; the next one is accepted",
    unit="jobs",
    says=("asset",),
)
def d47(bench: Workbench) -> Account:
    """Submit in three wrong ways."""
    body, kind = upload()
    ways = [(b"", ""), upload(b""), (body.replace(b'name="asset"', b'name="model"'), kind)]
    return worst([refused(bench, "d47", 422, *way) for way in ways])


@scenario(
    "D48",
    "body above the limit",
    then="refused with 413 and the limit, nothing of it is kept; the next one is accepted",
    unit="jobs",
    says=("larger than 1 MB",),
)
def d48(bench: Workbench) -> Account:
    """Send a little more than may be sent."""
    return refused(bench, "d48", 413, *upload(bytes(1_000_001)), max_upload_mb=1)


@scenario(
    "D49",
    "client that leaves after its upload",
    then="its job is worked on and found again by its key; no place stays taken",
    unit="jobs",
)
def d49(bench: Workbench) -> Account:
    """Leave while the model is read, and ask again with the same key."""
    with service(bench, "d49", finish) as (address, store):
        body, kind = upload()
        headers = {"Content-Type": kind, "Idempotency-Key": "d49"}
        with closing(http.client.HTTPConnection(*address, timeout=PATIENCE_S)) as connection:
            connection.request("POST", ROUTE, body, headers)
            until(lambda: list(store.known()))
        watch = Watch()
        until(lambda: any(job.state == "done" for job in store.known()))
        with closing(http.client.HTTPConnection(*address, timeout=PATIENCE_S)) as connection:
            connection.request("POST", ROUTE, body, headers)
            again = json.loads(connection.getresponse().read())
        watch.recovered()
        jobs = [job.id for job in store.known()]
        return watch.account(lost=0, silent=int(jobs != [again.get("id")]) + store.open_count())


@scenario(
    "D50",
    "twice as many submissions as the queue takes",
    then="the rest gets 429 with Retry-After; every accepted one ends, then there is room again",
    unit="jobs",
    says=("wait already", "try again"),
)
def d50(bench: Workbench) -> Account:
    """Submit at once from several clients; nothing is worked on before all are answered."""
    with service(bench, "d50", max_queued=QUEUE) as (address, store):
        watch = Watch()
        with ThreadPoolExecutor(OVERLOAD * QUEUE) as clients:
            tries = [clients.submit(ask, address, "POST", ROUTE, *upload()) for _ in range(OVERLOAD * QUEUE)]
            answers = [one.result() for one in tries]
        accepted = [answer.facts["id"] for answer in answers if answer.status == 202]
        turned_away = [answer for answer in answers if answer.status in (429, 503) and answer.later]
        for answer in turned_away[:1]:
            watch.detected(answer.facts["detail"])
        for job in store.open_jobs():
            finish(store, job.id)
        ended = [ask(address, "GET", f"{ROUTE}/{job}").facts.get("state") for job in accepted]
        silent = len(answers) - len(accepted) - len(turned_away) + sum(state != "done" for state in ended)
        silent += abs(len(accepted) - QUEUE) + int(ask(address, "POST", ROUTE, *upload()).status != 202)
        watch.recovered()
        return watch.account(lost=0, silent=silent)


@scenario(
    "D51",
    "SIGKILL of the process that answers, with a submission in it",
    then="the client sends it again to the next one; one job comes of it",
    unit="jobs",
)
def d51(bench: Workbench) -> Account:
    """Kill the process while it reads the model, and start another one over the same jobs."""
    folder = bench.fresh_folder("d51")
    (folder / "model.glb").write_bytes(triangle_glb())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}", patience=PATIENCE_S)
    first = start_answering(folder / "jobs", port)
    try:
        client.get("/healthz")
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(client.animate, folder / "model.glb", "a triangle turning")
            until(lambda: list((folder / "jobs").iterdir()))
            first.kill()
            watch = Watch()
            first.join()
            second = start_answering(folder / "jobs", port)
            try:
                found = asked.result()
                watch.recovered()
                jobs = [job.id for job in client.animations()]
            finally:
                second.kill()
                second.join()
    finally:
        first.kill()
    folders = [path.name for path in (folder / "jobs").iterdir()]
    return watch.account(lost=0, silent=int(jobs != [found.id]) + int(folders != jobs))


def start_answering(root: Path, port: int) -> Any:
    """Start a process that serves the jobs below a folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=answer_all, args=(root, port), daemon=True)
    process.start()
    return process


def answer_all(root: Path, port: int) -> None:
    """Be a process of the service: begin as `serve.app.Api` does."""
    import uvicorn

    store = JobStore(root)
    store.remove_halves()
    uvicorn.run(create_app(ServeConfig(), store, lambda _job: None), host="127.0.0.1", port=port, log_level="error")


@scenario(
    "D52",
    "model that is missing when the service starts",
    then="/readyz and submissions answer 503 with the reason; ready as soon as the model is there",
    unit="jobs",
    says=("no model folder", "give"),
)
def d52(bench: Workbench) -> Account:
    """Start without a model, ask, and put it there."""
    from animate4d.serve.generator import Generator

    folder = bench.fresh_folder("d52") / "model"
    generator = Generator(str(folder), None, threads=1, batch=1)

    seen: dict[str, str] = {}

    def look() -> None:
        """Ask the generator, as `serve.app.Api` does every few seconds."""
        seen["reason"] = asyncio.run(generator.status()).get("reason", "")

    look()
    with service(bench, "d52", finish, unready=lambda: seen["reason"]) as (address, store):
        watch = Watch()
        answers = [ask(address, "GET", "/readyz"), ask(address, "POST", ROUTE, *upload())]
        silent = sum(answer.status != 503 or not answer.later for answer in answers) + len(list(store.root.iterdir()))
        watch.detected(answers[0].facts["reason"])
        shutil.copytree(SHIPPED, folder)
        look()
        silent += int(ask(address, "GET", "/readyz").status != 200)
        silent += int(ask(address, "POST", ROUTE, *upload()).status != 202)
        watch.recovered()
        return watch.account(lost=0, silent=silent)


SCENARIOS = (d47, d48, d49, d50, d51, d52)
