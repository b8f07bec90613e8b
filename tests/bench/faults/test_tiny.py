"""What the bench compares runs by: which items they saw, in which steps, and how often."""

import json

from animate4d.bench.faults.tiny import SEEN, steps_repeated, steps_taken
from animate4d.data.order import Cursor


def note(out, attempt, rank, *lines):
    text = "".join(json.dumps({"at": list(at), "ids": ids}) + "\n" for at, ids in lines)
    (out / SEEN.format(attempt, rank)).write_text(text)


def test_a_step_done_again_counts_as_it_was_done_last(tmp_path):
    note(tmp_path, 0, 0, ((0, 0), ["a"]), ((0, 2), ["c"]), ((0, 4), ["x"]))
    note(tmp_path, 0, 1, ((0, 0), ["b"]), ((0, 2), ["d"]))
    note(tmp_path, 1, 0, ((0, 2), ["c", "d"]), ((0, 4), ["e", "f"]))
    assert steps_taken(tmp_path) == {
        Cursor(0, 0): frozenset("ab"),
        Cursor(0, 2): frozenset("cd"),
        Cursor(0, 4): frozenset("ef"),
    }
    assert steps_repeated(tmp_path) == 2


def test_workers_started_again_in_one_attempt_count_once(tmp_path):
    note(tmp_path, 0, 0, ((0, 0), ["a"]), ((0, 2), ["c"]), ((0, 2), ["c"]))
    note(tmp_path, 0, 1, ((0, 0), ["b"]), ((0, 2), ["d"]), ((0, 2), ["d"]))
    assert steps_taken(tmp_path) == {Cursor(0, 0): frozenset("ab"), Cursor(0, 2): frozenset("cd")}
    assert steps_repeated(tmp_path) == 1
