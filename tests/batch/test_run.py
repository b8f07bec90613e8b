"""Whole batches: real assets written by code, a real Ray, real results."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from animate4d.assets.procedural import generate_objects
from animate4d.batch.config import AnimateBatchConfig
from animate4d.batch.ledger import folder_lock, read_ledger
from animate4d.batch.run import animate_batch
from animate4d.core.errors import ConfigError, ManifestError, ModelError
from animate4d.pipeline.config import AnimateOptions

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """A folder with one animated GLB, one text file that calls itself a GLB, and a folder that does."""
    folder = tmp_path_factory.mktemp("assets")
    generate_objects(folder, count=1, seed=5, families=("barrel",))[0].rename(folder / "barrel.glb")
    (folder / "notes.glb").write_text("milk, eggs\n")
    (folder / "folder.glb").mkdir()
    return folder


def write_manifest(folder, *rows):
    path = folder / "manifest.csv"
    path.write_text("id,asset,prompt,video,clip,seed\n" + "".join(f"{row}\n" for row in rows))
    return path


def config_for(manifest, out, **changes):
    facts = {
        "workers": 1,
        "record": False,
        "options": AnimateOptions(fit="draft", frames=2),
        "model": "no-such-model",
    }
    return AnimateBatchConfig(manifest=manifest, out=out, **(facts | changes))


def table(out):
    with open(out / "results.csv", newline="", encoding="utf-8") as stream:
        return {row["id"]: row for row in csv.DictReader(stream)}


def events(out, name):
    return [event for event in read_ledger(out / "ledger.jsonl") if event["event"] == name]


def test_one_row_is_done_the_bad_ones_say_why_and_a_second_run_does_nothing(ray_cluster, assets, tmp_path, capsys):
    manifest = write_manifest(
        assets,
        "good,barrel.glb,a barrel bouncing,ground-truth,bounce gently,",
        "missing,nowhere.glb,a ghost,ground-truth,,",
        "text,notes.glb,a list,ground-truth,,",
        "folder,folder.glb,a folder,ground-truth,,",
        "seed,barrel.glb,a barrel,ground-truth,,-4",
        "clip,barrel.glb,a barrel,ground-truth,moonwalk,",
    )
    out = tmp_path / "out"
    assert animate_batch(config_for(manifest, out)) == 1
    rows = table(out)
    assert {name: row["state"] for name, row in rows.items()} == {
        "good": "done",
        **dict.fromkeys(("missing", "text", "folder", "seed", "clip"), "failed"),
    }
    assert float(rows["good"]["ratio"]) < 1
    assert all(row["kind"] == "bad input" for name, row in rows.items() if name != "good")
    assert "there is no such file" in rows["missing"]["message"]
    assert "plain text" in rows["text"]["message"]
    assert "is a folder" in rows["folder"]["message"]
    assert "from 0 to 9223372036854775807" in rows["seed"]["message"]
    assert "bounce gently" in rows["clip"]["message"]
    assert (out / rows["good"]["glb"]).is_file()
    assert [event["id"] for event in events(out, "row_started")] == ["good", "clip"]
    printed = capsys.readouterr().out
    assert "[6/6]" in printed
    assert "1 done, 5 failed" in printed
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "good",
        "index.html",
        "ledger.jsonl",
        "results.csv",
        "results.jsonl",
    ]

    before = {path: path.stat().st_mtime_ns for path in (out / "good").rglob("*")}
    write_manifest(assets, *manifest.read_text().splitlines()[1:4])
    assert animate_batch(config_for(manifest, out)) == 1
    assert len(events(out, "row_started")) == 2
    assert [event["id"] for event in events(out, "row_kept")] == ["good"]
    assert {path: path.stat().st_mtime_ns for path in (out / "good").rglob("*")} == before
    assert table(out)["good"]["ratio"] == rows["good"]["ratio"]

    write_manifest(assets, "good,barrel.glb,a barrel bouncing,ground-truth,bounce gently,")
    assert animate_batch(config_for(manifest, out)) == 0
    assert "1 animated" in (out / "index.html").read_text()


def test_leftovers_of_a_killed_run_are_removed_and_users_files_are_not(assets, tmp_path):
    manifest = write_manifest(assets, "missing,nowhere.glb,a ghost,ground-truth,,")
    out = tmp_path / "out"
    (out / ".good.0123456789ab.tmp" / "splats").mkdir(parents=True)
    (out / "mine.tmp").mkdir()
    assert animate_batch(config_for(manifest, out)) == 1
    assert not (out / ".good.0123456789ab.tmp").exists()
    assert (out / "mine.tmp").exists()


def test_what_is_wrong_as_a_whole_is_refused_before_any_work(assets, tmp_path):
    manifest = write_manifest(assets, "good,barrel.glb,a barrel,ground-truth,,")
    generated = tmp_path / "generated.csv"
    generated.write_text(f"asset,prompt\n{assets / 'barrel.glb'},a barrel\n")
    with pytest.raises(ManifestError, match="no such file"):
        animate_batch(config_for(tmp_path / "none.csv", tmp_path / "out"))
    with pytest.raises(ModelError, match="no-such-model"):
        animate_batch(config_for(generated, tmp_path / "out"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write there"):
        animate_batch(config_for(manifest, tmp_path / "file" / "out"))
    (tmp_path / "held").mkdir()
    with folder_lock(tmp_path / "held"), pytest.raises(ConfigError, match="another batch is writing here"):
        animate_batch(config_for(manifest, tmp_path / "held"))
    assert not (tmp_path / "held" / "ledger.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_batch_goes_on_where_it_stopped(assets, tmp_path, how):
    """Killed ones: the fault D39 for real, and test_killed.py at every step."""
    rows = [f"r{number},barrel.glb,a barrel,ground-truth,{number},{number}" for number in range(3)]
    manifest, out = write_manifest(assets, *rows), tmp_path / "out"
    command = [sys.executable, str(ROOT / "jobs" / "animate_batch.py"), str(manifest), "--out", str(out)]
    command += ["--workers", "1", "--no-record", "--fit", "draft", "--frames", "2", "--formats", "npz"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # a shell that runs the tests in the background has told them, and so their children, to ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 240
    while not (out / "ledger.jsonl").exists() or len(events(out, "row_started")) < 2:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(how)
    said, _ = process.communicate(timeout=60)
    finished = {event["id"] for event in events(out, "row_done")}
    assert "r0" in finished
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "run the same command again" in said
    assert table(out)["r2"]["state"] == "skipped"
    assert table(out)["r2"]["kind"] == "interrupted"
    assert events(out, "batch_interrupted")
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {row["state"] for row in table(out).values()} == {"done"}
    last = events(out, "batch_started")[-1]["time"]
    redone = {event["id"] for event in events(out, "row_started") if event["time"] > last}
    assert redone == {"r0", "r1", "r2"} - finished
    assert not [path for path in out.iterdir() if path.suffix == ".tmp"]
    for name in ("r0", "r1", "r2"):
        assert json.loads((out / name / "receipt.json").read_text())["request"]["seed"] == int(name[1])
