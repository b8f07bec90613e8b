import json

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
