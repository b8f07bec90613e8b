"""Webhooks against a real server on loopback: which addresses are called, what is signed, and what is repeated."""

import asyncio
import hashlib
import hmac
import http.server
import json
import threading

import pytest

from animate4d.core.errors import ConfigError
from animate4d.serve import webhooks
from animate4d.serve.webhooks import Webhooks

SECRET = b"0123456789abcdef"
BAD = [
    "http://example.org/hook",
    "https://",
    "https:///hook",
    "https://user:password@example.org/",
    "https://example.org\\@127.0.0.1/",
    "https://example.org/#fragment",
    "https://exa mple.org/",
    "https://[::1]/",
    "https://example.org:0/",
    "https://example.org/" + "x" * 500,
    "file:///etc/passwd",
    "gopher://example.org/",
    "pipe:touch canary",
    "//example.org/",
]
PRIVATE = ["127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1", "2130706433", "0177.0.0.1", "0x7f.1"]


@pytest.fixture
def hook():
    """A server that notes what it is sent and answers 500, a redirect, then 200."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, dict(self.headers), body))
            status = [500, 307, 200][min(len(got), 3) - 1]
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    got = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("url", BAD)
def test_addresses_that_could_be_read_in_two_ways_are_refused(url):
    with pytest.raises(ConfigError, match="webhook"):
        Webhooks(SECRET).check(url)


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_not_called(host, caplog, monkeypatch):
    monkeypatch.setattr(webhooks.socket, "create_connection", lambda *_, **__: pytest.fail("called"))
    assert not Webhooks(SECRET).send(f"https://{host}/hook", b"{}")
    assert "failed" in caplog.text


def test_an_ended_job_is_told_signed_and_again_until_it_is_taken(hook, store, monkeypatch):
    url, got = hook
    monkeypatch.setattr(webhooks, "PAUSES", (0.01, 0.01, 0.01))
    job = store.create({"prompt": "a box", "seed": 0, "webhook": f"{url}/hook?a=b"}, "box.glb")
    store.receive(job, b"glTF")
    store.save(job)
    ended = store.finish(job.id, "failed", "no such luck")
    asyncio.run(Webhooks(SECRET, ["127.0.0.1"]).deliver(store, ended))
    assert [path for path, _, _ in got] == ["/hook?a=b"] * 3
    _, headers, body = got[-1]
    assert json.loads(body) == {"id": job.id, "state": "failed", "error": "no such luck"}
    stamp, signature = (part.partition("=")[2] for part in headers[webhooks.SIGNATURE].split(","))
    assert signature == hmac.new(SECRET, f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    assert store.find(job.id).told


def test_one_that_is_never_taken_is_given_up(store, monkeypatch, caplog):
    monkeypatch.setattr(webhooks, "PAUSES", (0.01,))
    job = store.create({"prompt": "a box", "seed": 0, "webhook": "http://127.0.0.1:1/"}, "box.glb")
    store.receive(job, b"glTF")
    store.save(job)
    asyncio.run(Webhooks(SECRET, ["127.0.0.1"]).deliver(store, store.finish(job.id, "done")))
    assert store.find(job.id).told
    assert "given up" in caplog.text


def test_a_request_may_name_one_where_there_is_a_secret(client, make_client, post, submitted, assert_problem):
    assert_problem(post(client, webhook="https://example.org/hook"), 422, "no secret")
    signing = make_client(app={"webhooks": Webhooks(SECRET)})
    assert_problem(post(signing, webhook="http://example.org/hook"), 422, "webhook: write https")
    assert submitted == []
    assert post(signing, webhook="https://example.org/hook").status_code == 202


def test_a_short_or_absent_secret_is_refused(tmp_path):
    (tmp_path / "secret").write_text("short\n")
    for name, words in (("secret", "16 characters"), ("absent", "cannot be read")):
        with pytest.raises(ConfigError, match=words):
            Webhooks.read(tmp_path / name, ())
