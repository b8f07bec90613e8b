"""Fail points act where and when they are told to, and nowhere else."""

import errno
import signal
import subprocess
import sys
import time

import pytest

from animate4d.core import failpoint as module
from animate4d.core.failpoint import LOG, POINTS, FailpointError, failpoint


@pytest.fixture(autouse=True)
def fresh_counts(monkeypatch):
    monkeypatch.setattr(module, "_passed", type(module._passed)())


def test_nothing_happens_unless_asked(monkeypatch):
    failpoint("save.sealed")
    assert not module._passed
    monkeypatch.setenv(POINTS, "save.renamed=raise")
    failpoint("save.sealed")
    failpoint("save.renamed.more")


def test_a_point_raises_at_every_passing(monkeypatch):
    monkeypatch.setenv(POINTS, "save.sealed=raise")
    for _ in range(2):
        with pytest.raises(FailpointError, match=r"save\.sealed"):
            failpoint("save.sealed")


def test_a_full_disk_is_the_error_of_a_full_disk(monkeypatch):
    monkeypatch.setenv(POINTS, "a=full")
    with pytest.raises(OSError, match="No space left") as caught:
        failpoint("a")
    assert caught.value.errno == errno.ENOSPC


def test_a_point_acts_at_the_asked_passing_only(monkeypatch):
    monkeypatch.setenv(POINTS, "a=raise@2,b=raise@1")
    failpoint("a")
    with pytest.raises(FailpointError):
        failpoint("a")
    failpoint("a")
    with pytest.raises(FailpointError):
        failpoint("b")


def test_a_point_waits(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setenv(POINTS, "a=sleep:0.25")
    failpoint("a")
    assert slept == [0.25]


@pytest.mark.parametrize("spec", ["a", "a=explode", "a=raise@soon", "a=sleep:long"])
def test_a_wrong_request_is_an_error_and_not_silence(monkeypatch, spec):
    monkeypatch.setenv(POINTS, spec)
    with pytest.raises(ValueError, match=r"ANIMATE4D_FAILPOINTS|long"):
        failpoint("a")


def test_a_killed_process_leaves_the_names_it_passed_and_its_successor_lives(tmp_path, monkeypatch):
    log = tmp_path / "passed"
    monkeypatch.setenv(POINTS, "b=kill@1")
    monkeypatch.setenv(LOG, str(log))
    code = (
        "from animate4d.core.failpoint import failpoint\n"
        "try:\n    failpoint('a'); failpoint('b'); failpoint('c')\n"
        "finally:\n    print('cleaned up')"
    )
    command = [sys.executable, "-c", code]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, "")
    assert log.read_text().split() == ["a", "b"]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout) == (0, "cleaned up\n")
    assert log.read_text().split() == ["a", "b", "a", "b", "c"]
