"""The largest request that the form allows comes to its end (T18), and one step above it is refused."""

from dataclasses import replace

import pytest

from animate4d.export.formats import FORMATS
from animate4d.models.config import model_preset
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline.animate import animate
from animate4d.serve.config import ServeConfig
from animate4d.serve.submission import MAX_CLIPS, MAX_STEPS, pipeline_request
from animate4d.videos.generate import LocalModel

TINY = replace(
    model_preset("smoke"), image_size=16, frames=3, codec_factor=4, latent_channels=48, block_channels=(16, 16),
    heads=2, norm_groups=4, text_dim=16, flow_size=8,
)  # fmt: skip
LARGEST = {"clips": MAX_CLIPS, "steps": MAX_STEPS, "fit": "standard", "formats": ["all"], "loop": "ping-pong"}


@pytest.mark.parametrize("name", ["clips", "steps"])
def test_one_above_is_refused(client, post, assert_problem, name):
    assert_problem(post(client, **LARGEST | {name: LARGEST[name] + 1}), 422, name)


@pytest.mark.slow
def test_the_largest_request_ends_before_its_time_limit(client, post, store, tmp_path):
    answer = post(client, **LARGEST)
    assert answer.status_code == 202, answer.text
    job = store.find(answer.json()["id"])
    model = LocalModel(MVVDM(TINY).eval(), "test")
    receipt = animate(pipeline_request(job.request, store.folder(job.id) / job.asset), model, tmp_path / "out").receipt
    assert receipt["fit"]["frames"] == MAX_CLIPS * (TINY.frames - 1) + 1
    assert len(list((tmp_path / "out").iterdir())) > len(FORMATS)
    assert sum(receipt["seconds"].values()) < 60 * ServeConfig().job_minutes
