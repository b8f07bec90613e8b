"""The driver killed at every point where it or its worker makes something durable; the rows are done in its process."""

import contextlib
import json
import os
import signal
import traceback

import pytest

from animate4d.batch import run as run_module
from animate4d.batch.config import AnimateBatchConfig
from animate4d.batch.ledger import read_ledger
from animate4d.batch.manifest import BATCH_FILES
from animate4d.batch.places import Places
from animate4d.batch.pool import Ended, Started
from animate4d.batch.run import animate_batch
from animate4d.core.hashing import hash_file
from animate4d.io.atomic import atomic_folder
from animate4d.pipeline.config import AnimateOptions
from animate4d.pipeline.receipt import StageClock, write_receipt

ROWS = 4


class Inline:
    """Does the work of the pool in the driver's own process, in the same steps on disk."""

    def __init__(self, plan, out):
        self.out = out

    def run(self, rows):
        for row in rows:
            yield Started(row=row, attempt=1)
            with open(self.out.parent / "worked.txt", "a") as worked:
                worked.write(f"{row.id}\n")
            clock = StageClock()
            with atomic_folder(self.out / row.id) as folder:
                with clock.stage("export"):
                    (folder / "animated.glb").write_bytes(row.id.encode())
                receipt = write_receipt(
                    folder,
                    row.request,
                    asset_sha256=hash_file(row.request.asset),
                    model_version="",
                    clock=clock,
                    fit={"loss": 0.0, "mask_iou": 1.0, "lost_frames": [], "frames": 2},
                    truth=None,
                    warnings=[],
                )
            yield Ended(row=row, attempt=1, outcome={"state": "done", "receipt": receipt})

    def close(self):
        pass


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """A manifest of a few rows and one wrong one, and its configuration."""
    monkeypatch.setattr(run_module, "Pool", Inline)
    monkeypatch.setattr(run_module, "ray_session", contextlib.nullcontext)
    monkeypatch.setattr(run_module, "cluster_places", lambda wanted: Places(workers=1, cpus=1.0, gpus=0.0))
    monkeypatch.setattr(run_module, "REPORT_SECONDS", -1.0)
    asset = tmp_path / "fox.obj"
    asset.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    lines = [f"r{number},fox.obj,a fox,ground-truth,{number}" for number in range(ROWS)]
    (tmp_path / "manifest.csv").write_text(
        "\n".join(["id,asset,prompt,video,seed", *lines, "bad,none.obj,a fox,ground-truth,0"]) + "\n"
    )

    def config(folder):
        return AnimateBatchConfig(
            manifest=tmp_path / "manifest.csv",
            out=folder / "out",
            record=False,
            model="no-such-model",
            options=AnimateOptions(fit="draft", frames=2),
        )

    return config


def run_killed(config, point):
    """Run the batch in a child that kills itself before its `point`-th durable step; returns how it ended."""
    child = os.fork()
    if child == 0:
        count = 0

        def before(step):
            def stepped(*arguments, **named):
                nonlocal count
                count += 1
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(*arguments, **named)

            return stepped

        code = 99
        try:
            os.fsync, os.replace, os.rename = before(os.fsync), before(os.replace), before(os.rename)
            os.mkdir, os.unlink = before(os.mkdir), before(os.unlink)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = animate_batch(config)
        except BaseException:  # noqa: BLE001  # the child must not go on as a test runner
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check_finished(folder):
    """Every row once, done ones whole, none worked on again after the ledger said it was done."""
    out = folder / "out"
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [*(f"r{number}" for number in range(ROWS)), "bad"]
    assert [row["state"] for row in rows] == ["done"] * ROWS + ["failed"]
    for number in range(ROWS):
        assert (out / f"r{number}" / "animated.glb").read_text() == f"r{number}"
    assert not [path for path in out.iterdir() if path.name.endswith(".tmp")]
    ours = {path.name for path in out.iterdir() if path.is_file() and not path.name.startswith(".")}
    assert ours <= BATCH_FILES, "no row may take the name of a file of the batch"
    told = [event["id"] for event in read_ledger(out / "ledger.jsonl") if event["event"] == "row_done"]
    worked = (folder / "worked.txt").read_text().split()
    assert sorted(set(worked)) == [f"r{number}" for number in range(ROWS)]
    return told, worked


def test_killed_at_any_durable_step_the_next_run_finishes_the_rest(batch, tmp_path):
    walked = 0
    for point in range(1, 1000):
        folder = tmp_path / f"point-{point}"
        folder.mkdir()
        code = run_killed(batch(folder), point)
        before = (folder / "worked.txt").read_text().split() if (folder / "worked.txt").exists() else []
        done = [path.parent.name for path in (folder / "out").glob("r*/receipt.json")]
        assert run_killed(batch(folder), 0) == 1, "the wrong row stays wrong"
        told, worked = check_finished(folder)
        assert sorted(worked[len(before) :]) == sorted({f"r{number}" for number in range(ROWS)} - set(done)), point
        assert len(told) == len(set(told)), f"a row was done twice, point {point}"
        if code == 1:
            break
        assert code == -signal.SIGKILL, point
        walked += 1
    assert walked > 40, "the walk went through all steps"
