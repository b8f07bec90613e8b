import io

from animate4d.training.observers import TrainResult, TrainStart
from animate4d.training.progress import ProgressLine


def test_a_log_gets_what_begins_the_last_step_and_where_the_model_is(tmp_path):
    stream = io.StringIO()
    line = ProgressLine(stream)
    line.started(TrainStart(out=tmp_path, name="a", resolved={}, step=0, steps=3, workers=1, on_gpu=False))
    for step in (1, 2, 3):
        line.progressed([{"step": step, "loss": 0.5, "samples_per_second": 2.0, "data_wait_share": 0.0}])
    line.ended(TrainResult(out=tmp_path, model=tmp_path / "model", step=3, state="finished", metrics={}), None)
    lines = stream.getvalue().splitlines()
    assert "training 3 steps with 1 worker on CPU" in lines[0]
    assert lines[-2].startswith("step 3/3")
    assert "loss 0.5" in lines[-2]
    assert str(tmp_path / "model") in lines[-1]


def test_a_stopped_run_says_how_to_go_on(tmp_path):
    stream = io.StringIO()
    line = ProgressLine(stream)
    line.started(TrainStart(out=tmp_path, name="a", resolved={}, step=2, steps=9, workers=1, on_gpu=False))
    line.ended(TrainResult(out=tmp_path, model=None, step=4, state="stopped", metrics={}), None)
    assert "going on after step 2 of 9" in stream.getvalue()
    assert "--resume" in stream.getvalue()
