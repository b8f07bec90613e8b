import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from animate4d.batch.ledger import Ledger, folder_lock, read_ledger
from animate4d.core.errors import ConfigError

NASTY = 'a "fox"\n{"event": "row_done"}\x1b[2J\u2028\u202e end'


def test_events_come_back_exactly_and_one_per_line(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.write("row_done", id="fox", prompt=NASTY)
        ledger.write("row_failed", id="cow")
    assert len(path.read_text().splitlines()) == 2
    assert [event["event"] for event in read_ledger(path)] == ["row_done", "row_failed"]
    assert read_ledger(path)[0]["prompt"] == NASTY
    assert path.read_text().isprintable() or all(line.isprintable() for line in path.read_text().split("\n"))


def test_appends_and_survives_a_line_cut_by_a_crash(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.write("batch_started")
        ledger.write("row_done", id="fox")
    path.write_bytes(path.read_bytes()[:-20])
    with Ledger(path) as ledger:
        ledger.write("batch_started")
    assert [event["event"] for event in read_ledger(path)] == ["batch_started", "batch_started"]


def test_an_event_is_on_disk_before_the_next_step(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.write("row_started", id="fox")
        assert read_ledger(path)[0]["id"] == "fox"


def hold(folder, started):
    with folder_lock(folder):
        started.set()
        time.sleep(60)


def test_a_second_driver_is_refused_and_told_who_holds_the_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    holder = context.Process(target=hold, args=(tmp_path, started))
    holder.start()
    try:
        assert started.wait(10)
        with pytest.raises(ConfigError, match=rf"process {holder.pid} on .*another --out"), folder_lock(tmp_path):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    with folder_lock(tmp_path):
        pass


def test_a_lock_file_left_by_a_dead_process_does_not_matter(tmp_path):
    (tmp_path / ".lock").write_text("process 999999 on elsewhere\n")
    with folder_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_programs_started_meanwhile_do_not_inherit_the_lock(tmp_path):
    with folder_lock(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], close_fds=False)
    try:
        deadline = time.monotonic() + 10
        while True:
            # The child lets go when it becomes another program, which may be a moment after Popen returns.
            try:
                with folder_lock(tmp_path):
                    break
            except ConfigError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
