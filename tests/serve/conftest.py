"""The app over a real store on disk and a real GLB, a tiny model, and deployment handles; all without Ray."""

import asyncio
import pickle
import socket
import threading
from dataclasses import replace

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
    """Returns a maker of test clients; settings are those of ServeConfig, `app` those of create_app.

    Uploads are not read, which takes a process each, unless a test gives the real `check_asset`.
    """

    def make(*, app=None, address="127.0.0.1", **settings):
        facts = {"models": lambda: [{"name": "test"}], "check": lambda _store, _job: None, **(app or {})}
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


@pytest.fixture(scope="session")
def save_model():
    """Returns a function that saves a tiny random model with motion in it, another one for each seed."""
    import torch

    from animate4d.models.config import smoke
    from animate4d.models.mv_vdm import MVVDM

    tiny = replace(
        smoke(), image_size=16, frames=3, views=2, codec_factor=4, latent_channels=48, block_channels=(16, 16),
        heads=2, norm_groups=4, text_dim=16, flow_size=8,
    )  # fmt: skip

    def save(folder, seed=0):
        torch.manual_seed(seed)
        made = MVVDM(tiny).eval()
        torch.nn.init.normal_(made.unet.conv_out.weight, std=0.3)
        torch.nn.init.normal_(made.text.table.weight)
        made.save_pretrained(folder, {})
        return folder

    return save


class Response:
    """A call that has been made: what `DeploymentResponse` does."""

    def __init__(self, future):
        self._future, self.cancel = future, future.cancel

    def result(self, timeout_s=None):
        return through_object_store(self._future.result(timeout_s))


class Method:
    def __init__(self, loop, method):
        self._loop, self._method = loop, method

    def remote(self, *args):
        args = through_object_store(args)
        return Response(asyncio.run_coroutine_threadsafe(self._method(*args), self._loop))


class Handle:
    """A deployment handle without Ray: methods run in the event loop of another thread, arrays arrive read-only."""

    def __init__(self, loop, replica):
        self._loop, self._replica = loop, replica

    def __getattr__(self, name):
        return Method(self._loop, getattr(self._replica, name))


def through_object_store(value):
    buffers = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


@pytest.fixture
def handle():
    """Returns a function that makes the handle of a replica."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda replica: Handle(loop, replica)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()
