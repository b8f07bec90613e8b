"""Labels and latents ahead of training, over real Ray actors: training finds all of them; what fails is named."""

import json
import os
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from animate4d.assets.procedural import generate_objects
from animate4d.batch import sidecar_fill
from animate4d.batch.sidecar_config import EncodeLatentsConfig, LabelTracksConfig
from animate4d.batch.sidecar_fill import FillPlan, FillWorker, fill
from animate4d.batch.sidecars import encode_latents, label_tracks
from animate4d.core.errors import ClusterError, ConfigError, ModelError, ShardError, StorageError
from animate4d.data.config import DataConfig
from animate4d.data.labels import Labeller
from animate4d.data.loader import open_stream
from animate4d.data.order import Cursor
from animate4d.data.store import ShardStore
from animate4d.io.atomic import write_json
from animate4d.io.shards import ShardWriter, iterate_shard
from animate4d.models.codec import KLCodec, codec_id
from animate4d.models.config import smoke
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples

OPTIONS = ClipOptions(views=4, frames=8, size=32, samples=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three clips in two shards."""
    folder = tmp_path_factory.mktemp("sidecars")
    with ShardWriter(folder / "shards", max_samples=2) as writer:
        for path in generate_objects(folder / "glb", count=3, seed=3, clips_per_object=1):
            for outcome in clip_samples(path, OPTIONS):
                writer.write(outcome.key, outcome.members)
    return folder / "shards"


@pytest.fixture
def shards(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "shards"))


def damage_second(made: Path, folder: Path) -> Path:
    """Copy shards with a strip of the second clip cut short."""
    with ShardWriter(folder) as writer:
        samples = [pair for shard in sorted(made.glob("*.tar")) for pair in iterate_shard(shard)]
        for number, (key, members) in enumerate(samples):
            if number == 1:
                members = members | {"view_01.webp": members["view_01.webp"][:60]}
            writer.write(key, members)
    return folder


def epoch(shards: Path, **changes) -> list:
    base = DataConfig(
        shards=shards, size=16, views=2, frames=4, stride=2, frames_per_step=2, batch_size=1, prefetch=0, flow=False
    )
    batches = open_stream(replace(base, **changes)).batches(Cursor())
    return [next(batches)[0] for _ in range(2 * len(ShardStore(shards).keys))]


@pytest.mark.ray
def test_training_finds_every_label_and_a_second_run_makes_none(shards, ray_cluster, monkeypatch, capsys):
    config = LabelTracksConfig(shards=shards, tracker="opencv-dis", views=2, preview=2)
    assert label_tracks(config) == 0
    out = capsys.readouterr().out
    assert "labels of 3 of 3 clips" in out
    assert "6 files made, 0 found" in out
    page = (shards / "labels" / "tracks.html").read_text()
    assert page.count("<canvas") == 4

    def never(*_arguments):
        raise AssertionError("a label was missing")

    with monkeypatch.context() as patch:
        patch.setattr("animate4d.data.labels.label_clip", never)
        found = epoch(shards, tracker="opencv-dis")
        assert all((batch.visible[:, :, 0] > 0).any() for batch in found)
        with pytest.raises(AssertionError, match="missing"):
            epoch(shards, tracker="opencv-lk")
    kept = {path: path.stat().st_mtime_ns for path in shards.glob("labels/*/*.safetensors")}
    assert len(kept) == 6
    next(iter(kept)).write_bytes(b"PK\x03\x04")
    assert label_tracks(replace(config, preview=0)) == 0
    assert "1 files made, 5 found" in capsys.readouterr().out
    assert sum(path.stat().st_mtime_ns != then for path, then in kept.items()) == 1


@pytest.mark.ray
def test_a_damaged_clip_is_one_line_and_the_rest_is_labelled(made, tmp_path, ray_cluster, capsys):
    shards = damage_second(made, tmp_path / "damaged")
    key = ShardStore(shards).keys[1]
    assert label_tracks(LabelTracksConfig(shards=shards, views=2, preview=3)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("failed")] == [
        line for line in lines if line.startswith(f"failed: {key}: ") and "WebP" in line
    ]
    # The group without the damaged view has labels.
    assert len(list(shards.glob("labels/*/*.safetensors"))) == 5
    assert (shards / "labels" / "tracks.html").read_text().count("<canvas") == 4


@pytest.mark.ray
def test_latents_are_kept_and_training_reads_them(shards, tmp_path, ray_cluster, capsys):
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    ).save_pretrained(tmp_path / "model" / "vae")
    tiny = replace(
        smoke(),
        codec="kl",
        codec_path="vae",
        codec_factor=2,
        latent_channels=4,
        head="v_prediction",
        image_size=16,
        views=2,
    )
    write_json(tmp_path / "model" / "config.json", tiny.to_json())
    config = EncodeLatentsConfig(shards=shards, model=tmp_path / "model")
    assert encode_latents(config) == 0
    assert encode_latents(config) == 0
    out = capsys.readouterr().out
    assert "6 files made, 0 found" in out
    assert "0 files made, 6 found" in out
    codec = codec_id(KLCodec(tmp_path / "model" / "vae"))
    for batch in epoch(shards, latents=shards / "latents", codec=codec):
        assert batch.latents.shape == (1, 2, 2, 4, 8, 8)


def test_a_lossless_codec_is_refused_before_anything_starts(shards, tmp_path):
    write_json(tmp_path / "config.json", smoke().to_json())
    with pytest.raises(ConfigError, match="gain nothing"):
        encode_latents(EncodeLatentsConfig(shards=shards, model=tmp_path))


def test_views_that_do_not_divide_and_shards_that_are_none_are_refused(shards, tmp_path):
    with pytest.raises(ConfigError, match=r"views is 3, but .* holds 4 views"):
        label_tracks(LabelTracksConfig(shards=shards, views=3))
    with pytest.raises(ShardError):
        label_tracks(LabelTracksConfig(shards=tmp_path / "none"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tracker": "optical"}, "unknown"),
        ({"tracker": "cotracker3"}, "needs the path of its weights"),
        ({"tracker": "cotracker3", "checkpoint": Path("/none.pth")}, "no such file"),
        ({"tracker": "exact"}, "add --preview"),
        ({"tracker": "none"}, "makes no labels"),
        ({"views": 0}, "at least 1"),
        ({"workers": 0}, "at least 1"),
        ({"gpu_share": 1.5}, "at most 1"),
    ],
)
def test_wrong_settings_are_said_at_once(changes, says, tmp_path):
    with pytest.raises(ConfigError, match=says) as error:
        LabelTracksConfig(shards=tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_exact_tracks_are_drawn_without_any_cluster(shards, capsys):
    assert label_tracks(LabelTracksConfig(shards=shards, tracker="exact", views=4, preview=9)) == 0
    assert "3 clips with their tracks" in capsys.readouterr().out
    assert "exact" in (shards / "labels" / "tracks.html").read_text()
    assert not list(shards.glob("labels/*/"))


def plan_of(shards: Path, make) -> FillPlan:
    return FillPlan(shards=shards, keep=None, views=2, stored_views=4, stored_frames=8, make=make, gpu_share=0)


class Deadly:
    """Kills its process at one sample: always, or until a file says that it has."""

    def __init__(self, folder: Path, sample: str, once: bool) -> None:
        self.folder, self._sample, self._once = folder, sample, once

    def keep(self, members, views):
        flag = self.folder / "died"
        if json.loads(members["meta.json"])["id"] == self._sample and not (self._once and flag.exists()):
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return True


@pytest.mark.ray
@pytest.mark.parametrize("once", [True, False])
def test_a_worker_that_dies_is_replaced_and_its_sample_tried_again(once, shards, tmp_path, ray_cluster):
    keys = ShardStore(shards).keys
    found = list(fill(plan_of(shards, partial(Deadly, tmp_path, keys[0], once)), keys, 1))
    assert [outcome.key for outcome in found] == list(keys)
    assert [outcome.problem for outcome in found] == ["" if once else "its worker process died", "", ""]


@pytest.mark.ray
def test_workers_that_keep_dying_and_makers_that_cannot_start_end_the_job(shards, tmp_path, ray_cluster, monkeypatch):
    keys = ShardStore(shards).keys
    monkeypatch.setattr(sidecar_fill, "DEATHS", 2)
    with pytest.raises(ClusterError, match="in a row died"):
        list(fill(plan_of(shards, partial(Deadly, tmp_path, keys[0], False)), keys, 1))
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    broken = partial(Labeller, "cotracker3", 15, tmp_path / "labels", tmp_path / "weights.pth")
    with pytest.raises(ModelError):
        list(fill(plan_of(shards, broken), keys, 1))


def test_a_full_disk_stops_at_once_and_says_so(shards, tmp_path, monkeypatch):
    def write_bytes(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("animate4d.data.sidecar.write_bytes", write_bytes)
    outcome = FillWorker(plan_of(shards, partial(Labeller, "opencv-lk", 15, tmp_path))).fill(0)
    assert "No space left on device" in str(outcome.fatal)
    assert isinstance(outcome.fatal, StorageError)


def test_a_sample_unlike_the_first_is_not_labelled(shards, tmp_path):
    plan = replace(plan_of(shards, partial(Labeller, "opencv-lk", 15, tmp_path)), stored_frames=16)
    assert "other numbers of views or frames" in FillWorker(plan).fill(1).problem
