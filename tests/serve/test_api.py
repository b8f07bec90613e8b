"""The HTTP contract against a real store on disk and real GLBs, without Ray: who answers what (faults D47, D49)."""

import asyncio
import hashlib
import json
import threading
import time

import httpx
import pytest

from animate4d.serve import api
from animate4d.serve.api import check_asset, safe_name
from animate4d.serve.client import form
from animate4d.serve.job_store import JobStore


def test_submit_answers_202_with_a_location_to_poll(make_client, post, submitted):
    client = make_client(app={"check": check_asset})
    answer = post(client, seed="3")
    assert answer.status_code == 202
    job = client.get(answer.headers["location"]).json()
    assert job["id"] == submitted[0]
    assert (job["state"], job["request"]["prompt"], job["request"]["seed"]) == ("queued", "a box bouncing", 3)


def test_same_idempotency_key_makes_one_job(client, post, submitted):
    first, second = (post(client, headers={"Idempotency-Key": "k1"}).json() for _ in range(2))
    assert first["id"] == second["id"]
    assert submitted == [first["id"]]


def test_a_key_belongs_to_one_request(client, post, submitted, assert_problem):
    key = {"Idempotency-Key": "k1"}
    assert post(client, headers=key, seed="1").status_code == 202
    assert_problem(post(client, headers=key, seed="2"), 409, "idempotency-key")
    assert_problem(post(client, headers=key, seed="1", name="other.ply", content=b"ply"), 409, "idempotency-key")
    assert len(submitted) == 1


def test_a_repeat_while_the_first_is_read_waits_for_it(make_client, post, submitted, assert_problem):
    reading, go_on = threading.Event(), threading.Event()

    def check(store, job):
        reading.set()
        assert go_on.wait(30)

    client, answers = make_client(app={"check": check}), []
    key = {"Idempotency-Key": "k1"}
    first = threading.Thread(target=lambda: answers.append(post(client, headers=key)))
    first.start()
    assert reading.wait(30)
    early = post(client, headers=key)
    assert client.get("/v1/animations").json()["animations"] == []
    go_on.set()
    first.join()
    assert_problem(early, 409)
    assert early.headers["retry-after"] == "1"
    assert post(client, headers=key).json()["id"] == answers[0].json()["id"] == submitted[0]
    assert len(submitted) == 1


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_client_that_leaves_finds_its_job_again(make_client, store, submitted, glb, when):
    reading, go_on = threading.Event(), threading.Event()

    def check(_store, _job):
        reading.set()
        assert go_on.wait(30)

    app = make_client(app={"check": check}).app
    whole, kind = form({"prompt": "a box"}, "box.glb", glb)

    async def leave():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            key = {"Idempotency-Key": "k1", "Content-Type": kind}
            task = asyncio.create_task(client.post("/v1/animations", content=whole, headers=key))
            if when == "during":
                assert await asyncio.to_thread(reading.wait, 30)
            else:
                while store.open_count() == 0 and not task.done():
                    await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (submitted, store.open_count()) == ([], 1)
            go_on.set()
            for _ in range(3000):
                if submitted:
                    return
                await asyncio.sleep(0.01)

    asyncio.run(leave())
    saved = store.with_key("127.0.0.1", "k1")
    assert [saved.id] == submitted == [job.id for job in store.open_jobs()]


def test_the_oldest_ended_jobs_make_room(client, post, store):
    ids = [post(client, seed=str(number)).json()["id"] for number in range(5)]
    for job_id in ids[:4]:
        store.finish(job_id, "cancelled")
    store.remove_oldest(keep=2)
    assert [job.id for job in store.known()] == [ids[4], ids[3], ids[2]]
    assert {folder.name for folder in store.root.iterdir()} == set(ids[2:])


def test_options_reach_the_pipeline(client, post, store):
    from animate4d.serve.submission import pipeline_request

    asked = {"fit": "standard", "clips": "2", "loop": "ping-pong", "fps": "24", "formats": ["ply", "spz"], "steps": "7"}
    job = store.find(post(client, seed="5", negative_prompt="rain", **asked).json()["id"])
    request = pipeline_request(job.request, store.folder(job.id) / job.asset)
    assert (request.prompt, request.seed) == ("a box bouncing", 5)
    options = request.options
    assert (options.fit, options.clips, options.loop, options.fps) == ("standard", 2, "ping-pong", 24.0)
    assert (options.formats, options.steps, options.negative_prompt) == (("ply", "spz"), 7, "rain")
    check_asset(store, job)


def test_a_list_comes_in_pages_newest_first(client, post, store, assert_problem):
    ids = [post(client, seed=str(number)).json()["id"] for number in range(5)]
    store.finish(ids[1], "failed", "no such luck")
    seen, cursor, pages = [], "", 0
    while cursor is not None:
        page = client.get("/v1/animations", params={"limit": 2, "cursor": cursor}).json()
        seen += [job["id"] for job in page["animations"]]
        cursor, pages = page["next"], pages + 1
    assert (seen, pages) == (ids[::-1], 3)
    failed = client.get("/v1/animations?state=failed").json()
    assert [(job["id"], job["error"]) for job in failed["animations"]] == [(ids[1], "no such luck")]
    assert_problem(client.get("/v1/animations?limit=0"), 422, "limit")
    assert_problem(client.get("/v1/animations?state=lost"), 422, "state")
    assert_problem(client.get("/v1/animations?cursor=" + "0" * 32), 404, "cursor")


def test_estimates_come_from_jobs_that_ended(client, post, store):
    assert post(client).json()["estimate_seconds"] is None
    assert client.get("/v1/estimate").json() == {"wait_seconds": None, "work_seconds": None}
    for job in store.open_jobs():
        store.update(job.id, started=time.time() - 400)
        store.finish(job.id, "done")
    first, second = (post(client, clips=clips).json() for clips in ("1", "2"))
    assert first["estimate_seconds"] == pytest.approx(400, abs=5)
    assert second["estimate_seconds"] == pytest.approx(1200, abs=15)
    estimate = client.get("/v1/estimate?clips=3").json()
    assert (estimate["wait_seconds"], estimate["work_seconds"]) == pytest.approx((1200, 1200), abs=15)
    assert client.get("/v1/estimate?fit=standard").json()["work_seconds"] is None
    store.update(first["id"], state="running", progress=0.75)
    assert client.get(first["links"]["self"]).json()["estimate_seconds"] == pytest.approx(100, abs=2)


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b"just some text, no model", "text"), (b"glTF\x02\x00\x00\x00", "asset")]
)
def test_unreadable_asset_is_refused_and_leaves_nothing(
    make_client, post, store, submitted, assert_problem, content, word
):
    client = make_client(app={"check": check_asset})
    assert_problem(post(client, content), 422, word)
    assert list(store.known()) == list(store.root.iterdir()) == []
    assert submitted == []


def test_wrong_fields_are_named(client, post, glb, assert_problem):
    assert_problem(client.post("/v1/animations", data={"prompt": "x"}), 422, "asset")
    assert_problem(client.post("/v1/animations", files={"asset": ("a.glb", glb)}), 422, "prompt")
    assert_problem(post(client, prompt="   "), 422, "prompt")
    assert_problem(post(client, seed="-1"), 422, "seed")
    assert_problem(post(client, strength="9"), 422, "strength")
    assert_problem(post(client, prompt="x" * 501), 422, "prompt")
    assert_problem(post(client, fit="paper"), 422, "fit")
    assert_problem(post(client, clips="5"), 422, "clips")
    assert_problem(post(client, steps="101"), 422, "steps")
    assert_problem(post(client, fps="nan"), 422, "fps")
    assert_problem(post(client, formats=["ply", "exe"]), 422, "formats")
    assert_problem(client.post("/v1/animations"), 422, "asset", "prompt")


@pytest.mark.parametrize("job_id", ["0" * 32, "..", "%2e%2e", "a/../b", "x" * 300])
def test_unknown_job_is_404(client, job_id, assert_problem):
    assert_problem(client.get(f"/v1/animations/{job_id}"), 404)


@pytest.fixture
def done(client, post, store, glb):
    """A job that has ended with two files, as its worker would leave it."""
    job = post(client).json()
    result = store.folder(job["id"]) / "result"
    (result / "splats").mkdir(parents=True)
    (result / "animated.glb").write_bytes(glb)
    (result / "splats" / "static.ply").write_bytes(b"ply")
    store.finish(job["id"], "done")
    return job["links"]["self"]


def test_files_of_a_done_job_and_nothing_else(client, done, glb):
    files = {file["name"]: file for file in client.get(done).json()["files"]}
    assert set(files) == {"animated.glb", "splats-static.ply"}
    facts = files["animated.glb"]
    assert (facts["bytes"], facts["sha256"]) == (len(glb), hashlib.sha256(glb).hexdigest())
    answer = client.get(facts["href"])
    assert answer.content == glb
    assert "attachment" in answer.headers["content-disposition"]
    for name in ("../state.json", "..%2fstate.json", "state.json", "splats", "%2e%2e", "a" * 300, "CON", "a%00b"):
        assert client.get(f"{done}/files/{name}").status_code == 404, name


def test_a_file_comes_in_ranges_and_not_again(client, done, glb):
    here = f"{done}/files/animated.glb"
    tag = client.get(here).headers["etag"]
    assert tag == f'"{hashlib.sha256(glb).hexdigest()}"'
    part = client.get(here, headers={"Range": "bytes=4-11", "If-Range": tag})
    assert (part.status_code, part.content) == (206, glb[4:12])
    assert part.headers["content-range"] == f"bytes 4-11/{len(glb)}"
    changed = client.get(here, headers={"Range": "bytes=4-11", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, glb)
    assert client.get(here, headers={"Range": f"bytes={len(glb)}-"}).status_code == 416
    same = client.get(here, headers={"If-None-Match": tag})
    assert (same.status_code, same.content) == (304, b"")


def test_a_viewed_file_is_shown_as_a_page_of_nobody(client, done):
    answer = client.get(f"{done}/view/animated.glb")
    assert answer.headers["content-disposition"].startswith("inline")
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts;")


def test_cancel_and_remove(client, post, store):
    job = post(client).json()
    assert client.delete(job["links"]["self"]).json()["state"] == "cancelling"
    assert store.is_cancelled(job["id"])
    store.finish(job["id"], "cancelled")
    assert client.delete(job["links"]["self"]).json()["state"] == "removed"
    assert not store.folder(job["id"]).exists()


def test_events_end_with_the_job(client, post, store):
    job = post(client).json()
    store.finish(job["id"], "failed", "no such luck")
    text = client.get(job["links"]["events"]).text
    assert text.startswith("event: failed\n")
    assert json.loads(text.split("data: ")[1])["error"] == "no such luck"


def test_the_preview_is_told_and_shown(client, post, store, assert_problem):
    job = post(client).json()
    assert job["links"]["preview"] is None
    assert_problem(client.get(f"{job['links']['self']}/preview"), 404)
    (store.folder(job["id"]) / "preview.webp").write_bytes(b"RIFF")
    store.update(job["id"], state="running", preview=1)
    answer = client.get(client.get(job["links"]["self"]).json()["links"]["preview"])
    assert (answer.content, answer.headers["content-type"]) == (b"RIFF", "image/webp")


def test_a_restarted_service_knows_its_jobs_and_keys(client, post, store, tmp_path):
    job = post(client, headers={"Idempotency-Key": "k1"}).json()
    for name in ("a" * 32, "b" * 32):  # uploads that were cut while they arrived
        (store.root / name).mkdir()
    (store.root / ("b" * 32) / "state.json").write_text("")
    again = JobStore(tmp_path / "jobs")
    again.remove_halves()
    assert [found.id for found in again.open_jobs()] == [job["id"]]
    assert again.with_key("127.0.0.1", "k1").id == job["id"]
    assert [folder.name for folder in again.root.iterdir()] == [job["id"]]


def test_service_pages(client, post):
    post(client)
    assert client.get("/readyz").json() == {"status": "ready", "reason": None}
    assert client.get("/v1/models").json()["models"] == [{"name": "test"}]
    assert 'animate4d_jobs{state="queued"} 1' in client.get("/metrics").text
    page = client.get("/")
    assert "<form" in page.text
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    docs = client.get("/docs").text
    assert all(path in docs for path in client.app.openapi()["paths"])
    assert "negative_prompt" in docs
    assert "http" not in docs


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


def test_few_uploads_are_read_at_once_however_many_arrive(tmp_path, monkeypatch):
    """Each reading process may take gigabytes."""
    counts, lock, now = [], threading.Lock(), 0

    def slow_check(_path):
        nonlocal now
        with lock:
            now += 1
            counts.append(now)
        time.sleep(0.05)
        with lock:
            now -= 1

    monkeypatch.setattr(api, "check_untrusted", slow_check)
    store = JobStore(tmp_path)
    job = store.create({}, "barrel.glb", client="", key="", digest="")
    threads = [threading.Thread(target=check_asset, args=(store, job)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 6
    assert max(counts) == 2
