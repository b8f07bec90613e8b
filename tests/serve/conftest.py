"""The app over a real store on disk and a real GLB, without Ray."""

import pytest
import trimesh
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
