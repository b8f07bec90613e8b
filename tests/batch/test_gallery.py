import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from animate4d.batch.gallery import AT_ONCE, write_gallery

ATTACKS = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    '"><svg/onload=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</article></section></main><h1>fake",
    "$script $policy ${style}",
    "a\x00b\x1b[2J\u202efdp.exe\u2066",
]


class Page(HTMLParser):
    """Collects elements, attributes, links and the texts of script and style."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.attributes, self.links, self.texts, self.inside = [], [], [], {}, ""
        self.words = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.inside = tag
        for name, value in attrs:
            self.attributes.append((tag, name))
            if name in ("href", "src") or (name.startswith("data-") and name not in ("data-text",)):
                self.links.append(value)

    def handle_data(self, data):
        if self.inside in ("script", "style"):
            self.texts.setdefault(self.inside, data)
        else:
            self.words.append(data)


@pytest.fixture
def page(tmp_path, manifest_of):
    def write(results, **facts):
        write_gallery(tmp_path / "index.html", manifest_of(results, **facts), results)
        return (tmp_path / "index.html").read_text(encoding="utf-8")

    return write


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_a_manifest_says_becomes_an_element_an_attribute_or_a_link(attack, page, done, failed):
    def results(text):
        return [
            done("fox", text, asset=f"{text.replace('/', '')}.glb", warnings=[text]),
            failed("cow", f"line 3: {text}", text, asset=text),
        ]

    harmless = Page(page(results("a fox"), name="animals"))
    hostile = Page(page(results(attack), name="a<b>&'\""))
    assert hostile.elements == harmless.elements
    assert hostile.attributes == harmless.attributes
    assert hostile.links == harmless.links
    assert hostile.texts == harmless.texts


def test_prompts_are_shown_as_written_without_control_and_direction_marks(page, done):
    text = 'a <b>bold</b> & "fox"\u202e \x1b$script'
    words = " ".join(Page(page([done("fox", text)])).words)
    assert 'a <b>bold</b> & "fox" \N{REPLACEMENT CHARACTER}$script' in words


def test_the_policy_allows_this_style_and_script_and_no_other(page, done, failed):
    text = page([done("fox"), failed("cow", "line 3: no")])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for kind, body in Page(text).texts.items():
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"\son\w+=|\sstyle=", text)


def test_links_are_relative_to_the_row_folders(page, done):
    links = Page(page([done("fox.1")])).links
    assert {"fox.1/animated.glb", "fox.1/splats/static.ply", "fox.1/views.mp4", "fox.1/generated.mp4"} <= set(links)
    assert "fox.1/viewer.html" in links
    assert not [link for link in links if link and (link.startswith("/") or "://" in link)]


def test_failures_are_listed_with_their_reason_and_summed_up(page, done, failed):
    text = page([done("fox"), failed("cow", "line 3: cow.glb: there is no such file")])
    assert "line 3: cow.glb: there is no such file" in text
    assert "1 animated · 1 failed" in text
    assert 'data-filter="failed" aria-pressed="false">Not done <b>1</b>' in text


def test_a_page_without_a_single_result_still_opens(page, failed):
    assert "there is no such file" in page([failed("cow", "line 3: there is no such file")])


def test_fit_quality_is_explained(page, done):
    truth = {"e_fit": 0.0168, "e_static": 0.091, "ratio": 0.185}
    text = page([done("fox", video="ground-truth", truth=truth, lost=(3, 4))])
    assert "Motion recovered</dt><dd>82%" in text or "Motion recovered</dt><dd>81%" in text
    assert "1.68% of the object" in text
    assert "lost the video in frames 3, 4" in text
    still = {"e_fit": 0.0, "e_static": 0.0, "ratio": None}
    assert "overlap of the moved" in page([done("fox", video="ground-truth", truth=still)])


def test_a_capture_has_no_glb_to_download(page, done):
    text = page([done("scan", files=("splats/static.ply", "views.mp4"))])
    assert "scan/splats/static.ply" in text
    assert "animated.glb" not in text
    assert "animated.glb" in page([done("fox")])


def test_a_long_batch_lays_out_only_its_first_cards(page, done, failed):
    results = [done(f"r{number}") for number in range(AT_ONCE + 5)]
    results += [failed(f"f{number}", "line 3: no") for number in range(AT_ONCE + 2)]
    text = page(results)
    first, rest = text.split("<template>")[0], text.split("<template>")[1]
    assert first.count('<article class="card"') == AT_ONCE
    assert rest.count('<article class="card"') == 5
    assert text.count('class="problem"') == AT_ONCE + 2
    assert "<template>" not in page(results[:AT_ONCE])


def test_seeds_of_a_row_are_told_apart_and_the_best_is_marked(page, done):
    text = page([done("a", group="g", iou=0.7), done("b", group="g", iou=0.9), done("c")])
    assert text.count('class="badge"') == 1
    assert re.search(r'data-best="1" data-score="0.9000"', text)
    assert 'data-filter="best" aria-pressed="false" >Best seeds <b>1</b>' in text
    assert 'data-filter="best" aria-pressed="false" hidden>' in page([done("c")])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser")
@pytest.mark.slow
def test_a_browser_shows_the_first_cards_of_many_and_says_how_many_there_are(tmp_path, page, done, failed):
    page([*(done(f"r{number}") for number in range(AT_ONCE + 5)), failed("bad", "line 3: no")])
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    address = (tmp_path / "index.html").as_uri()
    dom = subprocess.run([*command, address], capture_output=True, text=True, timeout=120, check=True).stdout
    assert dom.count('<article class="card') == AT_ONCE
    assert f"{AT_ONCE} of {AT_ONCE + 5}" in dom
    assert dom.count('class="problem"') == 1
