"""The loop in one process: exact resume, stop requests, numbers that are none, full disks. See also `bench/faults`."""

from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file

from animate4d.core.errors import ShardError
from animate4d.training.checkpoint import list_checkpoints
from animate4d.training.metrics_log import read_rows

STEPS = 12
TIMES = ("samples_per_second", "data_wait_share")


class Killed(BaseException):
    pass


def kill_at(wanted):
    def hook(stream, step):
        if step == wanted:
            raise Killed

    return hook


def final_state(out):
    """Everything a run ends in, except how long it took."""
    last = list_checkpoints(out)[-1]
    weights = {
        f"{name}/{key}": value
        for name in ("model", "ema", "rank-00")
        for key, value in load_file(last / f"{name}.safetensors").items()
    }
    saved = torch.load(last / "deepspeed" / "mp_rank_00_model_states.pt", weights_only=False)["optimizer"]
    optimizer = {f"{index}/{key}": value for index, state in saved["state"].items() for key, value in state.items()}
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in read_rows(out / "metrics.jsonl")]
    return weights | {f"adam/{key}": torch.as_tensor(value) for key, value in optimizer.items()}, rows


def assert_same_end(first, second):
    (tensors, rows), (other_tensors, other_rows) = final_state(first), final_state(second)
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, other_tensors[name]), name
    assert rows == other_rows


@pytest.mark.parametrize("point", ["before_files", "after_files", "before_marker", "after_marker"])
def test_a_disk_that_fills_while_saving_leaves_the_checkpoint_before(run_loop, tmp_path, monkeypatch, point):
    run_loop(tmp_path / "whole", STEPS)
    out = tmp_path / "full"
    with monkeypatch.context() as patch:
        patch.setenv("ANIMATE4D_FAILPOINTS", f"save.{point}=full@2")
        patch.setenv("ANIMATE4D_FAILPOINT_LOG", str(tmp_path / "passed"))
        outcome = run_loop(out, STEPS)
    assert (outcome.state, 10 <= outcome.step <= STEPS) == ("failed", True)
    assert "No space left on device" in outcome.message
    assert "--resume" in outcome.message
    assert [folder.name for folder in list_checkpoints(out)] == ["step-000005"]
    assert not list((out / "checkpoints").glob(".*.partial"))
    run_loop(out, STEPS)
    assert_same_end(tmp_path / "whole", out)


def test_a_disk_that_fills_under_the_metrics_ends_the_run_with_their_path(run_loop, tmp_path, monkeypatch):
    run_loop(tmp_path / "whole", STEPS)
    out = tmp_path / "full"
    with monkeypatch.context() as patch:
        patch.setenv("ANIMATE4D_FAILPOINTS", "metrics.append=full@7")
        patch.setenv("ANIMATE4D_FAILPOINT_LOG", str(tmp_path / "passed"))
        outcome = run_loop(out, STEPS)
    assert (outcome.state, outcome.step) == ("failed", 7)
    assert outcome.message.startswith(f"{out / 'metrics.jsonl'} could not be written (No space left on device)")
    assert "make room" in outcome.message
    assert "--resume" in outcome.message
    assert [folder.name for folder in list_checkpoints(out)] == ["step-000005"]
    run_loop(out, STEPS)
    assert_same_end(tmp_path / "whole", out)


def test_a_last_row_without_room_is_not_a_finished_run(run_loop, tmp_path, monkeypatch):
    monkeypatch.setenv("ANIMATE4D_FAILPOINTS", "metrics.append=full@3")
    monkeypatch.setenv("ANIMATE4D_FAILPOINT_LOG", str(tmp_path / "passed"))
    assert run_loop(tmp_path / "run", 3).state == "failed"
    assert run_loop(tmp_path / "run", 3).state == "finished"


def test_the_training_goes_on_while_a_checkpoint_is_written(run_loop, tmp_path, monkeypatch):
    monkeypatch.setenv("ANIMATE4D_FAILPOINTS", "save.before_files=sleep:1")
    seen = []
    outcome = run_loop(
        tmp_path / "run", 8, hook=lambda stream, step: seen.append((step, len(list_checkpoints(tmp_path / "run"))))
    )
    assert outcome.state == "finished"
    assert (7, 0) in seen, "steps 5 to 7 were done before the checkpoint of step 5 was there"
    assert [folder.name for folder in list_checkpoints(tmp_path / "run")] == ["step-000005", "step-000008"]


def test_parts_of_a_batch_make_the_step_of_the_whole(run_loop, tmp_path):
    def loss(model, batch, generator):
        return {"loss": (model(batch.x) - batch.x.flip(1)).square().mean()}

    ends = {}
    for parts in (1, 2, 4):
        run_loop(tmp_path / f"{parts}", STEPS, loss=loss, accumulate=parts)
        ends[parts] = load_file(list_checkpoints(tmp_path / f"{parts}")[-1] / "model.safetensors")
        rows = read_rows(tmp_path / f"{parts}" / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        assert rows[-1]["loss"] == pytest.approx(read_rows(tmp_path / "1" / "metrics.jsonl")[-1]["loss"], rel=1e-4)
    for parts in (2, 4):
        for name, tensor in ends[1].items():
            torch.testing.assert_close(ends[parts][name], tensor, rtol=1e-4, atol=1e-6)


def test_an_accumulating_run_that_is_killed_resumes_exactly(run_loop, tmp_path):
    run_loop(tmp_path / "whole", STEPS, accumulate=2)
    with pytest.raises(Killed):
        run_loop(tmp_path / "killed", STEPS, accumulate=2, hook=kill_at(15))
    run_loop(tmp_path / "killed", STEPS, accumulate=2)
    assert_same_end(tmp_path / "whole", tmp_path / "killed")


def test_held_out_losses_are_logged_and_disturb_nothing(run_loop, tmp_path):
    run_loop(tmp_path / "with", STEPS, validate_every=5)
    run_loop(tmp_path / "without", STEPS, validate_every=0)
    rows = read_rows(tmp_path / "with" / "metrics.jsonl")
    assert [row["step"] for row in rows if "val_loss" in row] == [5, 10, 12]
    assert_same_tensors(tmp_path / "with", tmp_path / "without")


def test_held_out_clips_that_cannot_be_read_end_the_run_with_their_sentence(run_loop, tmp_path):
    def complain(model):
        raise ShardError("shard-000009.tar is gone")

    outcome = run_loop(tmp_path / "run", STEPS, validate=complain)
    assert (outcome.state, outcome.step, outcome.message) == ("failed", 6, "shard-000009.tar is gone")


def assert_same_tensors(first, second):
    for name, tensor in final_state(first)[0].items():
        assert torch.equal(tensor, final_state(second)[0][name]), name


def test_only_the_newest_checkpoints_are_kept(run_loop, tmp_path):
    run_loop(tmp_path / "run", 10, checkpoint_every=2, keep=2)
    assert [folder.name for folder in list_checkpoints(tmp_path / "run")] == ["step-000008", "step-000010"]


def test_a_gradient_that_is_no_number_ends_the_run_before_anything_is_saved(run_loop, tmp_path):
    def loss(model, batch, generator):
        total = model(batch.x).square().mean()
        # The square root of zero is finite and its slope is not.
        return {"loss": total + (total * 0).sqrt() if (tmp_path / "bad").exists() else total}

    outcome = run_loop(
        tmp_path / "run", STEPS, loss=loss, hook=lambda stream, step: (tmp_path / "bad").touch() if step == 9 else None
    )
    assert outcome.state == "failed"
    assert "gradient" in outcome.message
    assert [folder.name for folder in list_checkpoints(tmp_path / "run")] == ["step-000005"]


def test_damaged_data_ends_the_run_with_its_own_sentence(run_loop, tmp_path):
    def hook(stream, step):
        if step == 3:
            raise ShardError("shard-000002.tar is cut")

    outcome = run_loop(tmp_path / "run", STEPS, hook=hook)
    assert (outcome.state, outcome.step, outcome.message) == ("failed", 3, "shard-000002.tar is cut")


@pytest.mark.slow
@pytest.mark.parametrize("zero", [False, True])
def test_data_damaged_before_one_of_two_workers_ends_both_alike(make_maker, run_two, zero):
    def hook(stream, step):
        if stream.rank == 1 and step == 3:
            raise ShardError("shard-000002.tar is cut")

    first, second = run_two(make_maker(hook), zero)
    assert first == second
    assert first[:3] == ["failed", 3, "shard-000002.tar is cut"]


@pytest.mark.slow
def test_a_weight_that_only_one_worker_uses_moves_alike_on_both(make_maker, run_two):
    used = []

    def loss(model, batch, generator):
        used.append(float(batch.x[0, 0]) > 0)
        assert len(used) < 6 or 0 < sum(used) < 6, "some steps use the last layer, some do not"
        return {"loss": (model if used[-1] else model[:1])(batch.x).square().mean()}

    first, second = run_two(make_maker(loss=loss), False)
    assert first == second
    assert first[:3] == ["finished", 6, ""]


def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint(run_loop, tmp_path, monkeypatch):
    run_loop(tmp_path / "run", 5)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("animate4d.training.loop.shutil.disk_usage", lambda path: usage(10**9, 10**9 - 10, 10))
    outcome = run_loop(tmp_path / "run", STEPS)
    assert outcome.state == "failed"
    assert "make room" in outcome.message
    assert [folder.name for folder in list_checkpoints(tmp_path / "run")] == ["step-000005"]
    assert not list((tmp_path / "run" / "checkpoints").glob(".*.partial"))


def test_skipped_clips_are_counted_and_named(run_loop, tmp_path):
    def hook(stream, step):
        stream.skipped["clip-1/0"] = "view_00.webp is missing"

    run_loop(tmp_path / "run", 5, hook=hook)
    assert read_rows(tmp_path / "run" / "metrics.jsonl")[-1]["skipped_clips"] == 1
    assert "clip-1/0" in (tmp_path / "run" / "skipped-rank-00.json").read_text()
