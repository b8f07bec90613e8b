"""Who is let in, how much, and how often; and that one client does not see another's jobs (faults D48 to D50)."""

import asyncio
import json
import logging
import socket
import stat
import threading
import time

import pytest
import uvicorn

from animate4d.core.errors import ConfigError
from animate4d.serve.api import check_asset, create_app
from animate4d.serve.clients import RateLimit, Tokens
from animate4d.serve.config import ServeConfig

ALICE, BOB = ({"Authorization": f"Bearer {token}"} for token in ("secret-a", "secret-b"))


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# two people\nalice:secret-a\n\nbob:secret-b\n")
    return path


def test_every_route_but_health_and_page_asks_for_a_token(make_client, post, submitted, token_file, assert_problem):
    client = make_client(token_file=token_file)
    open_paths = {"/healthz", "/readyz", "/metrics"}
    paths = client.app.openapi()["paths"]
    assert len(paths) > 8
    walked = 0
    for path in set(paths) - open_paths:
        url = path.replace("{job_id}", "0" * 32).replace("{name}", "a")
        for method in paths[path]:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret-c"}, {"Cookie": "a=b"}):
                answer = client.request(method, url, headers=headers)
                assert_problem(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
                walked += 1
    assert walked > 30
    assert submitted == []
    assert post(client, headers=ALICE).status_code == 202
    for path in [*open_paths, "/", "/docs", "/openapi.json"]:
        assert client.get(path).status_code == 200


def test_a_job_is_seen_by_its_own_token_only(make_client, post, token_file, assert_problem):
    client = make_client(token_file=token_file)
    key = {"Idempotency-Key": "same"}
    mine, theirs = (post(client, headers=who | key).json() for who in (ALICE, BOB))
    assert mine["id"] != theirs["id"]
    for method, path in (("GET", ""), ("GET", "/events"), ("GET", "/preview"), ("GET", "/files/a"), ("DELETE", "")):
        assert_problem(client.request(method, mine["links"]["self"] + path, headers=BOB), 404, mine["id"])
    listed = client.get("/v1/animations", headers=BOB).json()["animations"]
    assert [job["id"] for job in listed] == [theirs["id"]]
    assert client.get(mine["links"]["self"], headers=ALICE).json()["id"] == mine["id"]


def test_files_of_one_name_are_kept_apart_and_from_other_users(make_client, post, store, token_file, glb):
    client = make_client(token_file=token_file)
    contents = [glb, glb + b"other"]
    ids = [post(client, content, headers=who).json()["id"] for content, who in zip(contents, (ALICE, BOB), strict=True)]
    assert [(store.folder(job) / "box.glb").read_bytes() for job in ids] == contents
    assert {stat.S_IMODE(store.folder(job).stat().st_mode) for job in ids} == {0o700}


def test_a_token_is_in_no_file_answer_or_log(make_client, post, store, token_file, caplog):
    client = make_client(token_file=token_file, app={"check": check_asset})
    with caplog.at_level(logging.DEBUG):
        answers = [post(client, headers=ALICE), post(client, headers=ALICE, content=b"no model")]
        answers.append(client.get("/v1/animations", headers={"Authorization": "Bearer secret-a-and-more"}))
        paths = ["/v1/animations", "/v1/models", "/v1/estimate", "/metrics", "/", "/docs", "/openapi.json"]
        answers += [client.get(path, headers=ALICE) for path in paths]
    assert [answer.status_code for answer in answers[:3]] == [202, 422, 401]
    assert len(caplog.records) >= len(answers)
    files = [path for path in store.root.rglob("*") if path.is_file()]
    assert len(files) >= 2
    for text in (caplog.text, *(f"{answer.headers} {answer.text}" for answer in answers)):
        assert "secret-a" not in text
    for path in files:
        assert b"secret-a" not in path.read_bytes(), path


def test_a_session_cookie_reads_and_never_writes(make_client, post, token_file, assert_problem):
    client = make_client(token_file=token_file)
    job = post(client, headers=ALICE).json()
    opened = client.post("/v1/session", headers=ALICE)
    cookie = opened.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "path=/v1/"))
    assert client.get(job["links"]["self"]).status_code == 200
    assert_problem(client.delete(job["links"]["self"]), 401)
    assert_problem(post(client), 401)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no token"),
        ("# nothing\n", "no token"),
        ("alice:\n", "line 1"),
        ("a b:secret\n", "line 1"),
        ("alice:x\nalice:y\n", "line 2"),
        ("alice:x\nbob:x\n", "line 2"),
        ("alice:s\u00e9cret\n", "line 1"),
    ],
)
def test_a_token_file_that_makes_no_sense_is_refused(tmp_path, text, words):
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(ConfigError, match=words):
        Tokens(tmp_path / "tokens")


def test_one_bare_token_will_do(tmp_path):
    (tmp_path / "tokens").write_text("secret\n")
    tokens = Tokens(tmp_path / "tokens")
    assert (tokens.name("secret"), tokens.name("other"), tokens.name("")) == ("client", None, None)
    with pytest.raises(ConfigError, match="cannot be read"):
        Tokens(tmp_path / "absent")


def test_listening_beyond_this_machine_needs_a_token():
    with pytest.raises(ConfigError, match="token-file"):
        ServeConfig(host="0.0.0.0")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""])
def test_without_tokens_other_names_for_this_machine_are_refused(client, host, assert_problem):
    assert_problem(client.get("/v1/animations", headers={"Host": host}), 403, "names of its own machine")


def test_pages_of_other_sites_cannot_write(client, post, submitted, assert_problem):
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9000"):
        assert_problem(post(client, headers={"Origin": origin}), 403)
    assert submitted == []
    assert post(client, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 202


def test_full_queue_asks_to_come_back(make_client, post, store, assert_problem):
    client = make_client(max_queued=1)
    first = post(client)
    assert first.status_code == 202
    answer = post(client)
    assert_problem(answer, 429, "wait already")
    assert int(answer.headers["retry-after"]) > 0
    store.finish(first.json()["id"], "done")
    assert post(client).status_code == 202


def test_one_client_cannot_take_the_whole_queue(make_client, post, assert_problem):
    one, other = (make_client(max_open_per_client=2, address=address) for address in ("10.0.0.1", "10.0.0.2"))
    assert [post(one).status_code for _ in range(3)] == [202, 202, 429]
    assert post(other).status_code == 202


def test_results_beyond_the_quota_must_be_deleted_before_more_is_made(make_client, post, store, assert_problem):
    one, other = (make_client(max_kept_mb_per_client=1, address=address) for address in ("10.0.0.1", "10.0.0.2"))
    job = post(one).json()
    (store.folder(job["id"]) / "result").mkdir()
    (store.folder(job["id"]) / "result" / "large.mp4").write_bytes(bytes(1_000_000))
    assert post(one).status_code == 202
    store.finish(job["id"], "done")
    refused = post(one)
    assert_problem(refused, 429, "1 MB of the 1 MB", "delete some")
    assert refused.headers["retry-after"]
    assert post(other).status_code == 202
    assert one.delete(job["links"]["self"]).status_code == 202
    assert post(one).status_code == 202


def test_a_service_that_is_not_ready_says_why(make_client, post, store, assert_problem):
    client = make_client(app={"unready": lambda: "the model is being loaded"})
    for answer in (post(client), client.get("/readyz")):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
    assert client.get("/readyz").json() == {"status": "not ready", "reason": "the model is being loaded"}
    assert client.get("/healthz").status_code == 200
    assert list(store.known()) == []


def test_a_full_disk_takes_no_jobs(make_client, post, assert_problem):
    answer = post(make_client(min_free_mb=10**9))
    assert_problem(answer, 503, "disk")
    assert int(answer.headers["retry-after"]) > 0


def test_rates_are_bursts_that_refill():
    now = [0.0]
    limit = RateLimit(60, clock=lambda: now[0])  # one a second, six at once
    assert [limit.wait("a") for _ in range(6)] == [0.0] * 6
    assert limit.wait("a") == pytest.approx(1.0)
    assert limit.wait("b") == 0.0
    now[0] = 1.0
    assert [limit.wait("a") for _ in range(2)] == [0.0, pytest.approx(1.0)]


def test_a_flood_is_answered_429(make_client, assert_problem):
    client = make_client(requests_per_minute=10)
    answers = [client.get("/v1/models") for _ in range(2)]
    assert answers[0].status_code == 200
    assert_problem(answers[1], 429, "too many requests")
    assert int(answers[1].headers["retry-after"]) > 0
    assert client.get("/healthz").status_code == 200


def test_body_over_the_limit_is_refused_with_and_without_a_length(make_client, post, store, assert_problem):
    client = make_client(max_upload_mb=1)
    assert_problem(post(client, b"x" * 1_000_001), 413)

    def chunks():
        yield b'--b\r\nContent-Disposition: form-data; name="asset"; filename="a.glb"\r\n\r\n'
        for _ in range(20):
            yield b"x" * 100_000

    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert_problem(client.post("/v1/animations", content=chunks(), headers=kind), 413)
    for length, status in (("-1", 400), ("1e3", 400), ("9" * 30, 413)):
        answer = client.post("/v1/animations", content=b"x", headers=kind | {"content-length": length})
        assert_problem(answer, status)
    assert list(store.root.iterdir()) == []


def test_each_request_is_one_line_in_the_log(client, caplog):
    caplog.set_level(logging.INFO, "animate4d.serve.gate")
    answer = client.get('/v1/x%0a{"request": "forged"}%1b[2J')
    lines = [record.getMessage() for record in caplog.records if record.name == "animate4d.serve.gate"]
    assert len(lines) == 1
    facts = json.loads(lines[0])
    assert (facts["request"], facts["status"]) == (answer.headers["request-id"], 404)
    assert lines[0].isprintable()


@pytest.fixture
def served(store, submitted):
    """The app behind a real server on loopback; returns a maker of connections."""
    app = create_app(ServeConfig(upload_seconds=1), store, submitted.append)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    yield lambda: socket.create_connection(listening.getsockname(), timeout=20)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


HEAD = (
    b"POST /v1/animations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: 100000\r\nConnection: close\r\n\r\n--b\r\n"
)


def test_a_body_that_trickles_in_is_ended(served, store):
    with served() as connection:
        connection.sendall(HEAD)
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert list(store.root.iterdir()) == []


def test_a_client_that_leaves_while_it_uploads_leaves_nothing(served, store, submitted, glb):
    for _ in range(5):
        with served() as connection:
            connection.sendall(HEAD + b'Content-Disposition: form-data; name="asset"; filename="a.glb"\r\n\r\n' + glb)
    time.sleep(0.5)
    assert list(store.known()) == list(store.root.iterdir()) == submitted == []
    with served() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
