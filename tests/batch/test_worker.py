"""A row's steps: each result is sent through a pickle, as Ray sends it."""

import pickle
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from animate4d.assets.procedural import generate_objects
from animate4d.batch.worker import FIT, IMAGINE, RowWorker
from animate4d.core.errors import AssetError
from animate4d.fourd.config import PRESETS
from animate4d.pipeline import steps
from animate4d.pipeline.config import AnimateOptions, Request
from animate4d.pipeline.stage_report import StageReport
from animate4d.pipeline.steps import begin, fit, imagine
from animate4d.runs.registry import resolve_model

SHORT = {"size": 32, "splats": 200, "nodes": 20, "forward_steps": 2, "joint_steps": 1, "bias_steps": 1}


def sent(thing):
    return pickle.loads(pickle.dumps(thing))


@pytest.fixture(scope="module")
def barrel(tmp_path_factory):
    return generate_objects(tmp_path_factory.mktemp("barrel"), count=1, seed=5, families=("barrel",))[0]


@pytest.fixture(scope="module")
def worker():
    worker = RowWorker()
    assert worker.prepare(str(resolve_model("shipped")), "v1", 1, on_gpu=False) == {"state": "done"}
    return worker


@pytest.fixture(autouse=True)
def quick_fits(monkeypatch):
    quick = replace(PRESETS["draft"](), **SHORT)
    monkeypatch.setitem(PRESETS, "draft", lambda: quick)


@pytest.mark.slow
def test_a_row_that_travels_between_its_steps_ends_like_one_that_stays(worker, barrel, tmp_path):
    options = AnimateOptions(fit="draft", steps=1, clips=2)
    request = Request(asset=barrel, prompt="a barrel bouncing", options=options)
    outcome, travels = sent(worker.begin(request, str(tmp_path / "row")))
    stays, states = begin(request, StageReport()), [outcome["state"]]
    for _ in range(2):
        outcome, travels = sent(worker.imagine(request, str(tmp_path / "row"), travels))
        stays = imagine(request, stays, worker._model, StageReport())
        states.append(outcome["state"])
        if len(travels.targets) < 2:
            outcome, travels = sent(worker.fit(request, str(tmp_path / "row"), travels))
            states.append(outcome["state"])
            stays = fit(request, stays, StageReport())
    assert states == [IMAGINE, FIT, IMAGINE, FIT]
    assert np.array_equal(travels.first, stays.first)
    for one, other in zip(travels.targets, stays.targets, strict=True):
        assert np.array_equal(one.video.rgb, other.video.rgb)
    assert np.array_equal(travels.fit.motion.translations, stays.fit.motion.translations)
    assert travels.clock.seconds.keys() == {"load", "views", "video", "fit"}


@pytest.mark.slow
def test_the_last_step_writes_the_row_and_the_first_one_finds_it(worker, barrel, tmp_path):
    options = AnimateOptions(fit="draft", frames=3)
    request, folder = Request(asset=barrel, prompt="", video="ground-truth", options=options), tmp_path / "row"
    outcome, work = sent(worker.begin(request, str(folder)))
    assert outcome == {"state": FIT}
    outcome, work = sent(worker.fit(request, str(folder), work))
    assert (outcome["state"], work) == ("done", None)
    assert {"load", "fit", "export", "pictures"} < set(outcome["receipt"]["seconds"])
    assert (folder / "animated.glb").stat().st_size == outcome["receipt"]["files"]["animated.glb"]["bytes"]
    again = {"state": "done", "receipt": sent(worker.begin(request, str(folder)))[0]["receipt"]}
    assert (again, None) == worker.animate(request, str(folder))
    assert again["receipt"]["key"] == outcome["receipt"]["key"]


def test_a_step_says_whose_fault_it_was(worker, tmp_path):
    broken = tmp_path / "broken.glb"
    broken.write_bytes(b"glTF")
    outcome, work = worker.begin(Request(asset=broken, prompt="x"), str(tmp_path / "out"))
    assert (outcome["state"], outcome["kind"], work) == ("failed", "bad input", None)
    assert "broken.glb" in outcome["message"]


@pytest.mark.parametrize(("on_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_worker_fits_on_the_gpu_that_it_holds_a_share_of(monkeypatch, tmp_path, on_gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    used = []

    def fit_nothing(request, work, report, *, kept, device):
        used.append(device)
        raise AssetError("seen enough")

    monkeypatch.setattr(steps, "fit", fit_nothing)
    worker = RowWorker()
    worker.prepare(None, "v1", torch.get_num_threads(), on_gpu)
    outcome, _ = worker.fit(Request(asset=Path("none.glb"), prompt="x"), str(tmp_path / "row"), Mock(clock=None))
    assert (outcome["message"], used) == ("seen enough", [torch.device(device)])
