"""Progress lines: sparse in logs, rewritten on terminals, honest about the time left."""

import io

import pytest

from animate4d.io import progress
from animate4d.io.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    state = {"now": 100.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: state["now"])
    return state


def test_logs_get_one_line_every_few_seconds_and_the_last(now):
    stream = io.StringIO()
    with Progress(100, "clips", stream=stream) as line:
        for done in range(101):
            line.update(done)
            now["now"] += 0.5
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("clips 0/100")
    assert lines[-1].startswith("clips 100/100")
    assert 8 <= len(lines) <= 13


def test_time_left_ignores_start_up_and_earlier_runs(now):
    stream = io.StringIO()
    line = Progress(100, "clips", stream=stream)
    line.update(40)
    now["now"] += 60
    line.update(41)
    for done in range(42, 51):
        now["now"] += 2
        line.update(done)
    assert "about 1 min 4" in stream.getvalue().splitlines()[-1]


def test_a_terminal_line_is_rewritten_and_closed_off(now):
    stream = Terminal()
    with Progress(2, "assets", stream=stream) as line:
        line.update(0, "a long note that is gone later")
        now["now"] += 1
        line.say("failed: x")
        now["now"] += 1
        line.update(2)
    assert stream.getvalue().count("\r") == 2
    assert "later\nfailed: x\n" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (65, "1 min 05 s"), (7800, "2 h 10 min")])
def test_clock(seconds, text):
    assert clock(seconds) == text
