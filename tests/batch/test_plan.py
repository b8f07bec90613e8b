"""What a batch would do, told without doing it."""

import json
import time

import pytest

from animate4d.batch.config import AnimateBatchConfig
from animate4d.batch.manifest import read_manifest
from animate4d.batch.plan import plan_rows
from animate4d.batch.run import animate_batch
from animate4d.core.errors import ConfigError
from animate4d.core.hashing import hash_file
from animate4d.pipeline.config import AnimateOptions
from animate4d.pipeline.receipt import StageClock, write_receipt

DRAFT = AnimateOptions(fit="draft")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "fox.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    return tmp_path


def write(folder, *lines):
    path = folder / "manifest.csv"
    path.write_text("\n".join(["id,asset,prompt,video", *lines]) + "\n")
    return path


def finish(folder, row):
    """Leave a result as the pipeline would."""
    result = folder / "out" / row.id
    result.mkdir(parents=True)
    (result / "animated.glb").write_bytes(b"glTF")
    facts = {"loss": 0.0, "mask_iou": 1.0, "lost_frames": [], "frames": 16}
    clock = StageClock()
    with clock.stage("fit"):
        pass
    digest = hash_file(row.request.asset)
    write_receipt(
        result, row.request, asset_sha256=digest, model_version="", clock=clock, fit=facts, truth=None, warnings=[]
    )


def test_the_plan_tells_every_row_and_the_sums_and_writes_nothing(folder, capsys):
    manifest = write(
        folder, "a,fox.obj,a,ground-truth", "b,none.obj,b,ground-truth", "c,fox.obj,c,ground-truth", "d,fox.obj,,x"
    )
    finish(folder, read_manifest(manifest, DRAFT).rows[0])
    before = sorted(folder.rglob("*"))
    config = AnimateBatchConfig(manifest=manifest, out=folder / "out", options=DRAFT, plan=True, workers=1)
    assert animate_batch(config) == 1
    said = capsys.readouterr().out
    assert "line 2     kept   a" in said
    assert "line 3     wrong  b: none.obj: there is no such file" in said
    assert "line 4     to do  c: about 0 s, 0 MB" in said, "the row that is done made the forecast"
    assert "line 5     wrong  d" in said
    assert "1 to do, 1 kept, 2 wrong" in said
    assert "with 1 object at once" in said
    assert sorted(folder.rglob("*")) == before
    assert (
        animate_batch(
            AnimateBatchConfig(manifest=write(folder, "c,fox.obj,c,ground-truth"), out=folder / "new", plan=True)
        )
        == 0
    )
    assert not (folder / "new").exists()


@pytest.mark.parametrize("fit", ["standard", "paper"])
def test_gpus_are_shared_only_by_fits_that_can_use_them(folder, capsys, fit):
    manifest = write(folder, "fox,fox.obj,jumps,generated")
    options = AnimateOptions(fit=fit)
    config = AnimateBatchConfig(
        manifest=manifest, out=folder / "out", plan=True, gpu_share=0.5, fit_share=0.1, options=options
    )
    if fit == "paper":
        assert animate_batch(config) == 0
        return
    with pytest.raises(ConfigError, match="no row has fit=paper"):
        animate_batch(config)


def test_a_row_that_was_done_with_less_after_running_out_of_memory_is_kept(folder):
    manifest = read_manifest(write(folder, "a,fox.obj,a,ground-truth"), AnimateOptions())
    (row,) = manifest.rows
    smaller = type(row)(line=2, id="a", asset="fox.obj", prompt="a", request=row.request.smaller())
    finish(folder, smaller)
    assert plan_rows(manifest, folder / "out", "")[0].need == "to do"
    (kept,) = plan_rows(manifest, folder / "out", "", shrunk={"a"})
    assert (kept.need, kept.shrunk) == ("kept", True)
    assert row.request.smaller().smaller() is None


def test_ten_thousand_rows_are_planned_with_their_problems(folder):
    lines = [f"r{number},fox.obj,prompt {number},ground-truth" for number in range(10_000)]
    lines[777] = "r777,none.obj,a ghost,ground-truth"
    manifest = read_manifest(write(folder, *lines), DRAFT)
    began = time.process_time()
    planned = plan_rows(manifest, folder / "out", "")
    print(json.dumps({"planned_cpu_seconds": time.process_time() - began}))
    assert [one.row.id for one in planned if one.need == "wrong"] == ["r777"]
    assert sum(one.forecast is not None for one in planned) == 9_999
