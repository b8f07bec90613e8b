"""The HTTP contract against a real store on disk and real GLBs, without Ray: who answers what, and to whom."""

import json

import pytest
import trimesh
from fastapi.testclient import TestClient

from animate4d.serve.api import create_app, safe_name
from animate4d.serve.config import ServeConfig
from animate4d.serve.job_store import JobStore


@pytest.fixture(scope="module")
def glb():
    return trimesh.creation.box().export(file_type="glb")


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path / "jobs")


@pytest.fixture
def submitted():
    return []


def client_of(store, submitted, **settings):
    app = create_app(ServeConfig(**settings), store, submitted.append, model={"name": "test"})
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def client(store, submitted):
    return client_of(store, submitted)


def post(client, glb, name="box.glb", prompt="a box bouncing", headers=None, **fields):
    return client.post(
        "/v1/animations", files={"asset": (name, glb)}, data={"prompt": prompt, **fields}, headers=headers
    )


def assert_problem(answer, status, *words):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["request_id"] == answer.headers["request-id"]
    for word in words:
        assert word in body["detail"], body["detail"]


def test_submit_answers_202_with_a_location_to_poll(client, glb, submitted):
    answer = post(client, glb, seed="3")
    assert answer.status_code == 202
    job = client.get(answer.headers["location"]).json()
    assert job["id"] == submitted[0]
    assert (job["state"], job["request"]["prompt"], job["request"]["seed"]) == ("queued", "a box bouncing", 3)


def test_same_idempotency_key_makes_one_job(client, glb, submitted):
    first, second = (post(client, glb, headers={"Idempotency-Key": "k1"}).json() for _ in range(2))
    assert first["id"] == second["id"]
    assert submitted == [first["id"]]


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b"just some text, no model", "text"), (b"glTF\x02\x00\x00\x00", "asset")]
)
def test_unreadable_asset_is_refused_and_leaves_nothing(client, store, submitted, content, word):
    assert_problem(post(client, content), 422, word)
    assert store.all() == []
    assert submitted == []


def test_wrong_fields_are_named(client, glb):
    assert_problem(client.post("/v1/animations", data={"prompt": "x"}), 422, "asset")
    assert_problem(client.post("/v1/animations", files={"asset": ("a.glb", glb)}), 422, "prompt")
    assert_problem(post(client, glb, prompt="   "), 422, "prompt")
    assert_problem(post(client, glb, seed="-1"), 422, "seed")
    assert_problem(post(client, glb, strength="9"), 422, "strength")
    assert_problem(post(client, glb, prompt="x" * 501), 422, "prompt")


def test_full_queue_asks_to_come_back(store, submitted, glb):
    client = client_of(store, submitted, max_queued=1)
    assert post(client, glb).status_code == 202
    answer = post(client, glb)
    assert_problem(answer, 429)
    assert int(answer.headers["retry-after"]) > 0


def test_body_over_the_limit_is_refused_with_and_without_a_length(store, submitted):
    client = client_of(store, submitted, max_upload_mb=1)
    assert_problem(post(client, b"x" * 1_000_001), 413)

    def chunks():
        yield b'--b\r\nContent-Disposition: form-data; name="asset"; filename="a.glb"\r\n\r\n'
        for _ in range(20):
            yield b"x" * 100_000

    answer = client.post(
        "/v1/animations", content=chunks(), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert_problem(answer, 413)
    assert store.all() == []


def test_token_guards_every_v1_route(store, submitted, glb, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    client = client_of(store, submitted, token_file=tmp_path / "token")
    paths = [
        (path, list(methods)) for path, methods in client.app.openapi()["paths"].items() if path.startswith("/v1/")
    ]
    assert len(paths) >= 4
    for path, methods in paths:
        for method in methods:
            url = path.replace("{job_id}", "0" * 32).replace("{name}", "a")
            assert_problem(client.request(method, url), 401)
            assert_problem(client.request(method, url, headers={"Authorization": "Bearer wrong"}), 401)
    assert submitted == []
    assert post(client, glb, headers={"Authorization": "Bearer secret"}).status_code == 202
    assert client.get("/healthz").status_code == 200


def test_listening_beyond_this_machine_needs_a_token():
    from animate4d.core.errors import ConfigError

    with pytest.raises(ConfigError, match="token-file"):
        ServeConfig(host="0.0.0.0")


@pytest.mark.parametrize("job_id", ["0" * 32, "..", "%2e%2e", "a/../b", "x" * 300])
def test_unknown_job_is_404(client, job_id):
    assert_problem(client.get(f"/v1/animations/{job_id}"), 404)


def test_files_of_a_done_job_and_nothing_else(client, store, glb):
    job = post(client, glb).json()
    result = store.folder(job["id"]) / "result"
    (result / "splats").mkdir(parents=True)
    (result / "animated.glb").write_bytes(glb)
    (result / "splats" / "static.ply").write_bytes(b"ply")
    store.update(job["id"], state="done", progress=1.0)
    links = client.get(job["links"]["self"]).json()["links"]["files"]
    assert set(links) == {"animated.glb", "splats-static.ply"}
    answer = client.get(links["animated.glb"])
    assert answer.content == glb
    assert "attachment" in answer.headers["content-disposition"]
    for name in ("../state.json", "..%2fstate.json", "state.json"):
        assert client.get(f"{job['links']['self']}/files/{name}").status_code == 404


def test_cancel_and_remove(client, store, glb):
    job = post(client, glb).json()
    assert client.delete(job["links"]["self"]).json()["state"] == "cancelling"
    assert store.is_cancelled(job["id"])
    store.update(job["id"], state="cancelled")
    assert client.delete(job["links"]["self"]).json()["state"] == "removed"
    assert not store.folder(job["id"]).exists()


def test_events_end_with_the_job(client, store, glb):
    job = post(client, glb).json()
    store.update(job["id"], state="failed", error="no such luck")
    text = client.get(job["links"]["events"]).text
    assert text.startswith("event: failed\n")
    assert json.loads(text.split("data: ")[1])["error"] == "no such luck"


def test_service_pages(client, glb):
    post(client, glb)
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.get("/v1/models").json()["models"] == [{"name": "test"}]
    assert 'animate4d_jobs{state="queued"} 1' in client.get("/metrics").text
    assert "<form" in client.get("/").text
    assert client.get("/docs").status_code == 200


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Fox 1.GLB", "fox-1.glb"),
        ("../../etc/passwd", "passwd"),
        ("..\\x.obj", "x.obj"),
        ("", "unnamed"),
        ("a\0b.glb", "a-b.glb"),
    ],
)
def test_uploaded_names_are_made_harmless(given, kept):
    assert safe_name(given) == kept
