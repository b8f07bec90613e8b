"""What the user hears when workers are started again, and when they are not any more."""

import json

import pytest
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from animate4d.core.errors import TrainingError
from animate4d.training.restarts import NAME, RestartNote, Restarts, reason


class Lost(ActorDiedError):
    """As Ray raises it, with the text that it makes of the dead process."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def __str__(self):
        return self.text


def lost(text):
    return WorkerHealthCheckFailedError("a worker health check failed", failure=Lost(text))


KILLED = "The actor died unexpectedly before finishing this task.\nworker_node_ip: 192.0.2.2"
NODE = "The actor died because its node has died. Node Id: 3f2a"


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ({0: RuntimeError("Connection closed by peer"), 1: lost(KILLED)}, "worker 1 died"),
        ({1: lost(NODE)}, "worker 1 died with its node"),
        ({0: ValueError("odd shape\nand more")}, "worker 0 failed (ValueError: odd shape)"),
        ({2: KeyError()}, "worker 2 failed (KeyError: )"),
    ],
)
def test_the_worker_that_died_is_named_and_not_those_that_missed_it(errors, said):
    assert reason(errors) == said


def test_each_restart_is_one_line_and_the_last_failure_an_error(tmp_path, capsys):
    (tmp_path / NAME).write_text(json.dumps({"reason": "of an earlier start"}) + "\n")
    restarts, note = Restarts(tmp_path, most=2), RestartNote(tmp_path)
    restarts.tell()
    assert capsys.readouterr().err == ""
    for attempt in (2, 3):
        note.after_exception(None, {1: lost(KILLED)})
        restarts.tell()
        restarts.tell()
        assert capsys.readouterr().err.strip() == f"worker 1 died; attempt {attempt} of 3 goes on from the beginning"
        restarts.give_up(None)
    note.after_exception(None, {0: ValueError("odd shape")})
    restarts.tell()
    assert capsys.readouterr().err == ""
    with pytest.raises(TrainingError, match=r"failed 3 times, at last: worker 0 failed .*run again with --resume"):
        restarts.give_up(RuntimeError("all that Ray says"))
    assert (tmp_path / "error.txt").read_text() == "all that Ray says"
