"""The app over a real store on disk and a real GLB, without Ray."""

import asyncio
import socket
import threading

import pytest
import trimesh
import uvicorn
from fastapi.testclient import TestClient

from animate4d.serve.api import create_app
from animate4d.serve.config import ServeConfig
from animate4d.serve.job_store import JobStore

HOST = "http://127.0.0.1:8000"


@pytest.fixture(scope="session")
def glb():
    return trimesh.creation.box().export(file_type="glb")


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path / "jobs")


@pytest.fixture
def submitted():
    return []


@pytest.fixture
def make_client(store, submitted):
    """Returns a maker of test clients; settings are those of ServeConfig, `app` those of create_app."""

    def make(*, app=None, address="127.0.0.1", **settings):
        facts = {"models": lambda: [{"name": "test"}], **(app or {})}
        made = create_app(ServeConfig(**settings), store, submitted.append, **facts)
        return TestClient(made, base_url=HOST, raise_server_exceptions=False, client=(address, 5000))

    return make


@pytest.fixture
def client(make_client):
    return make_client()


@pytest.fixture
def post(glb):
    """Returns a function that submits a box."""

    def submit(client, content=glb, *, name="box.glb", prompt="a box bouncing", headers=None, **fields):
        return client.post(
            "/v1/animations", files={"asset": (name, content)}, data={"prompt": prompt, **fields}, headers=headers
        )

    return submit


@pytest.fixture
def assert_problem():
    """Returns a check that an answer is problem+json of a status and says some words."""

    def check(answer, status, *words):
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert body["status"] == status
        assert body["request_id"] == answer.headers["request-id"]
        for word in words:
            assert word in body["detail"], body["detail"]

    return check


@pytest.fixture
def serve(store):
    """Returns a function that serves the app, with middleware of a test's own, and gives its address."""
    servers = []

    def start(work=lambda _store, _job: None, wrap=lambda app: app, **settings):
        def submit(job_id):
            threading.Thread(target=work, args=(store, job_id)).start()

        app = wrap(create_app(ServeConfig(**settings), store, submit))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(20)
