"""The page in a real browser, where one is installed: from drop to download, by mouse, by keys, and on a phone."""

import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from animate4d.export.video import view_grid, write_webp_animation

READY = "document.readyState === 'complete' && document.getElementById('form') !== null"
VIEWER = b"<!doctype html><title>viewer</title><body style='margin:0;background:rgb(0,128,0)'>the viewer</body>"
GREEN = (0, 128, 0)


def text(browser, element):
    return browser.run(f"document.getElementById('{element}').innerText")


@pytest.fixture
def steps():
    """Lets a test say when the stand-in worker goes on."""
    return [threading.Event() for _ in range(2)]


@pytest.fixture
def address(serve, steps):
    def work(store, job_id):
        store.update(job_id, state="running", stage="views", progress=0.05, started=time.time())
        pictures = np.full((4, 1, 32, 32, 3), (0, 128, 0), np.uint8)
        write_webp_animation(store.folder(job_id) / "preview.webp", view_grid(pictures, columns=2, gap=0), 8.0)
        assert steps[0].wait(60)
        store.update(job_id, stage="fit", progress=0.5, preview=1)
        assert steps[1].wait(60)
        if store.is_cancelled(job_id):
            store.finish(job_id, "cancelled")
            return
        result = store.folder(job_id) / "result"
        result.mkdir()
        (result / "animated.glb").write_bytes(b"glTF" * 1000)
        (result / "viewer.html").write_bytes(VIEWER)
        store.finish(job_id, "done")

    return serve(work)


@pytest.fixture
def page(browser, address):
    browser.problems.clear()
    browser.requests.clear()
    browser.resize(1280, 900)
    browser.open(address + "/", READY)
    yield browser
    assert browser.problems == []
    hosts = {urlsplit(url).netloc for url in browser.requests if url.startswith("http")}
    assert hosts <= {urlsplit(address).netloc}


@pytest.fixture
def box(tmp_path, glb):
    path = tmp_path / "box <b>.glb"
    path.write_bytes(glb)
    return path


@pytest.mark.slow
def test_from_drop_to_download(page, box, steps, store):
    page.drop(box, "#drop")
    assert "box <b>.glb" in text(page, "name")
    assert page.run("document.activeElement.id") == "prompt"
    page.call("Input.insertText", text="a <i>box</i> bouncing")
    page.key("Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    page.wait("document.getElementById('status')?.dataset.state === 'running'")
    assert text(page, "title") == "a <i>box</i> bouncing"
    assert "Look at it" in text(page, "status")
    steps[0].set()
    page.wait("document.querySelector('#stages [aria-current]')?.innerText === 'Fit the motion'")
    page.wait("document.getElementById('preview').naturalWidth === 64")
    shown = page.picture("#preview").reshape(-1, 3).astype(int)
    assert np.abs(np.median(shown, axis=0) - GREEN).max() <= 6
    steps[1].set()
    page.wait("document.getElementById('status').dataset.state === 'done'")
    page.wait("!document.getElementById('viewer').hidden")
    page.run("document.getElementById('viewer').scrollIntoView()")
    time.sleep(0.5)
    shown = page.picture("#viewer").reshape(-1, 3).astype(int)
    assert np.abs(np.median(shown, axis=0) - GREEN).max() <= 2
    assert page.run("document.getElementById('work').offsetParent") is None
    files = page.run("Array.from(document.querySelectorAll('#files a'), (link) => [link.download, link.href])")
    assert [name for name, _ in files] == ["animated.glb", "viewer.html"]
    assert page.run(f"fetch({files[0][1]!r}).then((answer) => answer.blob()).then((blob) => blob.size)") == 4000
    # a reload finds it again, in the address and in the list
    page.call("Page.reload")
    page.wait("document.getElementById('status')?.dataset.state === 'done'")
    assert page.run("document.querySelectorAll('#list button').length") == 1
    page.run("document.getElementById('drop-job').click()")
    page.wait("document.getElementById('job').hidden && document.getElementById('earlier').hidden")
    assert list(store.known()) == []


@pytest.mark.slow
def test_refusals_and_cancelling_are_said(page, box, steps, tmp_path):
    (tmp_path / "text.glb").write_text("no model at all")
    page.drop(tmp_path / "text.glb", "#drop")
    page.call("Input.insertText", text="a box")
    page.run("document.getElementById('go').click()")
    page.wait("!document.getElementById('refused').hidden")
    assert "asset" in text(page, "refused")
    assert [problem for problem in page.problems if "422" not in problem] == []
    page.problems.clear()  # the browser itself logs every refused request
    page.drop(box, "#drop")
    page.run("document.getElementById('go').click()")
    page.wait("document.getElementById('status')?.dataset.state === 'running'")
    page.run("document.getElementById('drop-job').click()")
    page.wait("document.getElementById('status').innerText === 'Cancelling'")
    for step in steps:
        step.set()
    page.wait("document.getElementById('status').dataset.state === 'cancelled'")
    assert text(page, "drop-job") == "Delete"


@pytest.mark.slow
def test_keys_alone_reach_everything_and_show_where_they_are(page):
    seen = []
    for _ in range(14):
        page.key("Tab", code="Tab", windowsVirtualKeyCode=9)
        seen.append(page.run("document.activeElement.id || document.activeElement.tagName"))
        shape = "getComputedStyle(document.activeElement.closest('.drop') ?? document.activeElement)"
        if seen[-1] != "BODY":
            assert page.run(f"{shape}.outlineStyle") == "solid", seen[-1]
    assert seen[:5] == ["A", "asset", "prompt", "SUMMARY", "go"]
    unnamed = page.run(
        "Array.from(document.querySelectorAll('input, select, progress, iframe, video, img')).filter((one) => "
        "!(one.labels?.length || one.title || one.alt || one.getAttribute('aria-label'))).map((one) => one.id)"
    )
    assert unnamed == []


@pytest.mark.slow
def test_a_phone_shows_all_of_it(page, box, steps):
    page.resize(390, 844, phone=True)
    for step in steps:
        step.set()
    page.drop(box, "#drop")
    page.call("Input.insertText", text="a-very-long-word-" * 12)
    page.run("document.querySelector('details').open = true")
    page.run("document.getElementById('go').click()")
    page.wait("document.getElementById('status')?.dataset.state === 'done'")
    assert page.run("document.documentElement.scrollWidth") == 390
    small = page.run(
        "Array.from(document.querySelectorAll('button, .field input, .field select, .button')).filter((one) => "
        "one.offsetParent && one.getBoundingClientRect().height < 40).map((one) => one.id || one.name)"
    )
    assert small == []


@pytest.mark.slow
def test_a_token_is_asked_for_and_kept_where_scripts_cannot_read_it(browser, serve, box, tmp_path):
    (tmp_path / "tokens").write_text("alice:secret-a\n")

    def work(store, job_id):
        (store.folder(job_id) / "result").mkdir()
        (store.folder(job_id) / "result" / "viewer.html").write_bytes(VIEWER)
        store.finish(job_id, "done")

    browser.problems.clear()
    browser.resize(1280, 900)
    browser.open(serve(work, token_file=tmp_path / "tokens") + "/", READY)
    browser.drop(box, "#drop")
    browser.call("Input.insertText", text="a box")
    browser.run("document.getElementById('token').focus()")
    browser.call("Input.insertText", text="secret-a")
    browser.run("document.getElementById('go').click()")
    browser.wait("document.getElementById('status')?.dataset.state === 'done'")
    browser.run("document.getElementById('viewer').scrollIntoView()")
    time.sleep(0.5)
    shown = browser.picture("#viewer").reshape(-1, 3).astype(int)
    assert np.abs(np.median(shown, axis=0) - GREEN).max() <= 2
    assert browser.run("document.cookie") == ""
    assert browser.problems == []
