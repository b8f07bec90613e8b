"""The Python client against the real app on loopback, with a stand-in for the worker."""

import socket
import subprocess
import sys
import time

import pytest

from animate4d import Client
from animate4d.serve.client import ServiceError


@pytest.fixture
def box(tmp_path, glb):
    path = tmp_path / 'a "box".glb'
    path.write_bytes(glb)
    return path


def finish(store, job_id):
    store.update(job_id, state="running", stage="fit", progress=0.5)
    time.sleep(0.7)
    result = store.folder(job_id) / "result"
    result.mkdir()
    (result / "animated.glb").write_bytes(b"glTF" * 1000)
    store.finish(job_id, "done")


def test_from_a_file_to_files(serve, box, tmp_path, store):
    seen = []
    made = Client(serve(finish)).animate(box, "a box bouncing", seed=3, formats=["ply", "spz"], fps=None)
    assert made.state == "queued"
    done = made.wait(timeout=60, progress=lambda facts: seen.append((facts["state"], facts["stage"])))
    assert ("running", "fit") in seen
    assert done.download(tmp_path / "out") == [tmp_path / "out" / "animated.glb"]
    assert (tmp_path / "out" / "animated.glb").read_bytes() == b"glTF" * 1000
    request = store.find(made.id).request
    assert (request["seed"], request["formats"], request["fps"]) == (3, ["ply", "spz"], None)
    assert store.find(made.id).asset == "a-box.glb"


def test_lists_and_finds_again_and_removes(serve, box, store):
    client = Client(serve(finish))
    ids = [client.animate(box, "a box", seed=seed).wait().id for seed in range(3)]
    assert [found.id for found in client.animations()] == ids[::-1]
    client.animation(ids[0]).cancel()
    assert [found.id for found in client.animations(state="done")] == ids[:0:-1]


class Flaky:
    """Refuses the first submission with 503, lets the second in but loses its answer."""

    def __init__(self, app):
        self.app, self.posts, self.keys = app, 0, set()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        self.posts += 1
        self.keys.add(dict(scope["headers"])[b"idempotency-key"])

        async def nobody(_message):
            return None

        if self.posts == 1:
            later = [(b"retry-after", b"0"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 503, "headers": later})
            await send({"type": "http.response.body", "body": b""})
        elif self.posts == 2:
            await self.app(scope, receive, nobody)
            raise RuntimeError("the answer is lost")
        else:
            await self.app(scope, receive, send)


def test_a_submission_that_was_refused_and_then_lost_makes_one_job(serve, box, store):
    flaky = []
    address = serve(wrap=lambda app: flaky.append(Flaky(app)) or flaky[0])
    made = Client(address).animate(box, "a box bouncing")
    assert flaky[0].posts == 3
    assert len(flaky[0].keys) == 1
    assert [job.id for job in store.known()] == [made.id]


def test_refusals_are_one_line(serve, box, tmp_path):
    client = Client(serve(), patience=0.5)
    (tmp_path / "text.glb").write_text("no model at all")
    for path, options, words in (
        (tmp_path / "text.glb", {}, "asset: "),
        (box, {"strength": 9}, "strength"),
        (tmp_path / "absent.glb", {}, "cannot be read"),
    ):
        with pytest.raises(ServiceError, match=words) as caught:
            client.animate(path, "a box", **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(ServiceError, match="there is no animation") as caught:
        client.animation("0" * 32)
    assert caught.value.status == 404
    with pytest.raises(ServiceError, match="give http"):
        Client("ftp://example.org")


def test_a_service_that_stays_away_is_named(box):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(ServiceError, match=rf"127\.0\.0\.1:{port} cannot be reached"):
        Client(f"http://127.0.0.1:{port}", patience=1).animate(box, "a box")


def test_failed_and_slow_animations_say_so(serve, box):
    client = Client(serve(lambda store, job: store.finish(job, "failed", "box.glb: has no faces")))
    with pytest.raises(ServiceError, match=r"failed: box.glb: has no faces"):
        client.animate(box, "a box").wait(timeout=30)
    slow = Client(serve()).animate(box, "a box")
    with pytest.raises(ServiceError, match="still queued"):
        slow.wait(timeout=0.1)
    with pytest.raises(ServiceError, match="wait"):
        slow.download("out")


def test_a_damaged_download_is_not_kept(serve, box, tmp_path, store):
    done = Client(serve(finish)).animate(box, "a box").wait(timeout=60)
    (store.folder(done.id) / "result" / "animated.glb").write_bytes(b"other")
    with pytest.raises(ServiceError, match="arrived damaged"):
        done.download(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_tokens_are_sent(serve, box, tmp_path):
    (tmp_path / "tokens").write_text("alice:secret-a\n")
    address = serve(finish, token_file=tmp_path / "tokens")
    assert Client(address, "secret-a").animate(box, "a box").wait(timeout=60).download(tmp_path / "out")
    with pytest.raises(ServiceError, match="Authorization") as caught:
        Client(address, "wrong").animate(box, "a box")
    assert caught.value.status == 401


def test_importing_animate4d_stays_light():
    code = (
        "import sys, animate4d; light = len(sys.modules); animate4d.Client\n"
        "heavy = {'torch', 'ray', 'numpy', 'fastapi', 'starlette'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Clinet'"):
        __import__("animate4d").Clinet  # noqa: B018


def test_awkward_names_and_values_stay_inside_their_part(glb):
    from animate4d.serve.client import form

    body, kind = form({"prompt": "ä\r\n"}, 'x\r\n".glb', glb)
    parts = body.split(kind.rpartition("=")[2].encode())
    assert len(parts) == 4
    assert b'filename="x.glb"\r\n\r\n' + glb in parts[2]
