"""Scores of a model beside its baselines, on shards of a generated object."""

import json

import pytest

from animate4d.assets.procedural import generate_objects
from animate4d.core.errors import ShardError
from animate4d.io.shards import ShardWriter, read_index
from animate4d.models.config import model_preset
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples
from animate4d.pipeline.evaluate import evaluate, rig_of, verb_of
from animate4d.pipeline.evaluate_config import EvaluateConfig


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    path = generate_objects(folder / "objects", count=1, seed=5, families=("barrel",), clips_per_object=3)[0]
    with ShardWriter(folder / "shards") as writer:
        for outcome in clip_samples(path, ClipOptions(views=4, frames=16, size=64)):
            if outcome.members is not None:
                writer.write(outcome.key, outcome.members)
    return folder / "shards"


@pytest.fixture(scope="module")
def model():
    return MVVDM(model_preset("smoke")).eval()


def test_baselines_frame_the_scores(shards, model, tmp_path):
    scores = evaluate(EvaluateConfig(data=shards, train_data=shards, out=tmp_path), model)
    still, mean, untrained = scores["repeat frame 0"], scores["mean motion"], scores["model"]
    assert still["clips"] >= 2
    assert still["motion"] == 0
    assert still["slope"] == 0
    # the mean of one clip is that clip
    assert mean["slope"] == pytest.approx(1, abs=1e-3)
    assert mean["retrieval"] == 1
    assert mean["psnr"] > still["psnr"] + 20
    # an untrained model does not move anything
    assert abs(untrained["slope"]) < 0.3
    assert json.loads((tmp_path / "scores.json").read_text()) == scores
    assert (tmp_path / "comparison.png").stat().st_size > 1000


def test_a_keep_list_names_the_clips_and_the_others_train_the_mean_motion(shards, model, tmp_path):
    keys = [key for info in read_index(shards) for key in info.keys]
    (tmp_path / "held-out.txt").write_text(f"{keys[0]}\n")
    config = EvaluateConfig(data=shards, train_data=shards, keep_list=tmp_path / "held-out.txt", out=tmp_path / "out")
    scores = evaluate(config, model)
    assert scores["model"]["clips"] == 1
    # another verb of the object says nothing of this one
    assert scores["mean motion"]["slope"] == 0


def test_limit_and_verbs(shards, model, tmp_path):
    scores = evaluate(EvaluateConfig(data=shards, limit=1, out=tmp_path), model)
    assert scores["model"]["clips"] == 1
    assert len(scores["by verb"]) == 1
    assert "mean motion" not in scores


def test_empty_folder_is_refused(model, tmp_path):
    with pytest.raises(ShardError, match="nowhere"):
        evaluate(EvaluateConfig(data=tmp_path / "nowhere", out=tmp_path), model)


def test_meta_gives_back_rig_and_verb(shards):
    from animate4d.data.schema import decode_meta
    from animate4d.io.shards import iterate_shard, read_index

    info = read_index(shards)[0]
    meta = decode_meta(next(iterate_shard(shards / info.name, info))[1])
    rig = rig_of(meta, 4)
    assert rig.azimuths_deg == pytest.approx((0, 90, 180, 270))
    assert rig.elevation_deg == pytest.approx(15)
    assert verb_of(meta).split()[0] in {"bounce", "bend", "sway", "spin", "shake", "stretch"}
