import json
import resource
from contextlib import contextmanager

from animate4d.training.metrics_log import MetricsLog, MetricsTail, read_rows


def row(step):
    return {"step": step, "loss": 1.0 / step}


def write(out, first, last):
    log = MetricsLog(out, first - 1)
    for step in range(first, last + 1):
        log.append(row(step))
    log.close()


def test_reopening_drops_rows_after_the_checkpoint_and_a_cut_last_line(tmp_path):
    write(tmp_path, 1, 8)
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 9, "lo')
    write(tmp_path, 6, 7)
    assert [entry["step"] for entry in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6, 7]


def test_the_tail_gives_every_step_once_across_a_restart(tmp_path):
    tail = MetricsTail(tmp_path, 0)
    assert tail.new_rows() == []
    log = MetricsLog(tmp_path, 0)
    log.append(row(1))
    assert [entry["step"] for entry in tail.new_rows()] == [1]
    for step in (2, 3, 4):
        log.append(row(step))
    assert [entry["step"] for entry in tail.new_rows()] == [2, 3, 4]
    write(tmp_path, 3, 6)  # killed after step 4, started again from the checkpoint of step 2
    assert [entry["step"] for entry in tail.new_rows()] == [5, 6]
    assert tail.new_rows() == []


def test_the_tail_waits_for_the_end_of_a_line(tmp_path):
    tail = MetricsTail(tmp_path, 0)
    line = json.dumps(row(1)) + "\n"
    path = tmp_path / "metrics.jsonl"
    path.write_text(line[:10])
    assert tail.new_rows() == []
    with open(path, "a") as stream:
        stream.write(line[10:])
    assert tail.new_rows() == [row(1)]


@contextmanager
def files_of_at_most(size):
    """Let files of this process not grow beyond a size: writing stops half-way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_row_without_room_is_a_sentence_and_what_was_written_stays(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(tmp_path, 0)
    log.append(row(1))
    assert log.failure == ""
    with files_of_at_most(path.stat().st_size + 7):
        log.append(row(2))
        log.append(row(3))
    assert str(path) in log.failure
    assert "make room" in log.failure
    assert "--resume" in log.failure
    log.append(row(4))
    log.close()
    assert path.read_text().endswith('{"step"')  # cut
    assert read_rows(path) == [row(1)]
    write(tmp_path, 2, 3)
    assert [entry["step"] for entry in read_rows(path)] == [1, 2, 3]


def test_a_log_that_cannot_be_opened_is_a_sentence(tmp_path):
    write(tmp_path, 1, 3)
    with files_of_at_most(10):
        log = MetricsLog(tmp_path, 3)
    assert "make room" in log.failure
    log.append(row(4))
    log.close()
    assert [entry["step"] for entry in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
