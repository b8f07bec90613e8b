"""Row results made by hand, for tests of what a batch writes about them."""

from pathlib import Path

import pytest

from animate4d.batch.manifest import Manifest, ManifestRow
from animate4d.batch.report import RowResult
from animate4d.pipeline.config import Request
from animate4d.pipeline.receipt import STAGES

RESULT = ("animated.glb", "viewer.html", "splats/static.ply", "views.mp4", "thumb.webp", "still.webp")


def make_receipt(
    *, video="generated", asset="fox.glb", truth=None, warnings=(), lost=(), seed=3, files=RESULT, iou=0.93
):
    return {
        "key": "0" * 64,
        "request": {"asset": asset, "prompt": "", "seed": seed, "video": video, "clip": None, "options": {}},
        "seconds": dict.fromkeys(STAGES, 2.5),
        "peak_memory_mb": dict.fromkeys(STAGES, 900.0),
        "fit": {"loss": 0.01, "mask_iou": iou, "lost_frames": list(lost), "frames": 16},
        "truth": truth,
        "warnings": list(warnings),
        "files": {name: {"bytes": 1, "sha256": "0" * 64} for name in files},
    }


def make_done(row_id, prompt="a fox running", *, line=2, extra=None, asset="fox.glb", group="", shrunk=False, **facts):
    request = Request(asset=Path(asset), prompt=prompt.strip() or "x", video=facts.get("video", "generated"))
    row = ManifestRow(
        line=line, id=row_id, group=group or row_id, asset=asset, prompt=prompt, request=request, extra=extra or {}
    )
    return RowResult(
        row=row, state="done", attempts=1, shrunk=shrunk, receipt=make_receipt(asset=Path(asset).name, **facts)
    )


def make_failed(row_id, message, prompt="a cow", *, line=3, kind="bad input", asset="cow.glb"):
    row = ManifestRow(
        line=line, id=row_id, group=row_id, asset=asset, prompt=prompt, request=None, column="asset", problem=message
    )
    return RowResult(row=row, state="failed", kind=kind, message=message)


def make_manifest(results, *, name="animals", extra=()):
    rows = tuple(result.row for result in results)
    return Manifest(path=Path(f"/data/{name}.csv"), rows=rows, extra_columns=tuple(extra), warnings=())


@pytest.fixture
def done():
    return make_done


@pytest.fixture
def failed():
    return make_failed


@pytest.fixture
def manifest_of():
    return make_manifest
