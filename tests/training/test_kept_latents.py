"""Training with latents kept ahead: nothing is encoded, and what does not fit is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from animate4d.assets.procedural import generate_objects
from animate4d.core.errors import ConfigError
from animate4d.data.order import Cursor
from animate4d.data.store import ShardStore
from animate4d.io.shards import ShardWriter
from animate4d.models.codec import KLCodec
from animate4d.models.config import smoke
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples
from animate4d.pipeline.latents import LatentEncoder
from animate4d.training.config import TrainConfig
from animate4d.training.launch import resolve
from animate4d.training.parts import data_config, make_parts


@pytest.fixture
def config(tmp_path):
    """Shards, a model with a tiny autoencoder, and the latents of both."""
    options = ClipOptions(views=2, frames=16, size=16, samples=1)
    with ShardWriter(tmp_path / "shards") as writer:
        for path in generate_objects(tmp_path / "glb", count=2, seed=4, clips_per_object=1):
            for outcome in clip_samples(path, options):
                writer.write(outcome.key, outcome.members)
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    ).save_pretrained(tmp_path / "model" / "vae")
    small = {"codec": "kl", "codec_factor": 2, "latent_channels": 4, "image_size": 16, "views": 2}
    network = replace(smoke(), **small, head="v_prediction", codec_path=str(tmp_path / "model" / "vae"))
    MVVDM(network).save_pretrained(tmp_path / "model", {})
    encoder = LatentEncoder(tmp_path / "model", tmp_path / "latents")
    store = ShardStore(tmp_path / "shards")
    for sample in range(len(store.keys)):
        encoder.keep(store.read(sample, ["meta.json", "view_00.webp", "view_01.webp"]), [0, 1])
    return TrainConfig(
        data=tmp_path / "shards",
        out=tmp_path / "run",
        init=tmp_path / "model",
        latents=tmp_path / "latents",
        batch_size=2,
        sample_every=0,
    )


def test_a_step_reads_its_latents_and_encodes_nothing(config, monkeypatch):
    parts = make_parts(config, 0, 1)

    def never(*_arguments):
        raise AssertionError("encoded")

    monkeypatch.setattr(KLCodec, "encode", never)
    batch, _ = next(iter(parts.stream.batches(Cursor())))
    assert batch.latents.shape[3:] == (4, 8, 8)
    terms = parts.objective(parts.model, batch, torch.Generator().manual_seed(0))
    assert torch.isfinite(terms["loss"])
    with pytest.raises(AssertionError, match="encoded"):
        parts.objective(parts.model, replace(batch, latents=None), torch.Generator().manual_seed(0))


def test_labels_kept_elsewhere_are_looked_for_there(config, tmp_path):
    network = smoke()
    assert data_config(replace(config, labels=tmp_path / "there"), network).labels_folder == tmp_path / "there"
    assert data_config(config, network).labels_folder == config.data / "labels"


def test_kept_latents_are_part_of_what_decides_a_run(config):
    kept, plain = resolve(config), resolve(replace(config, latents=None))
    assert kept["latents"] == "kept"
    assert "latents" not in plain


def test_latents_of_another_autoencoder_and_lossless_codecs_are_refused(config, tmp_path):
    weights = AutoencoderKL.from_pretrained(tmp_path / "model" / "vae")
    weights.quant_conv.weight.data.mul_(1.01)
    weights.save_pretrained(tmp_path / "model" / "vae")
    with pytest.raises(ConfigError, match="has none of this model's codec"):
        make_parts(config, 0, 1)
    with pytest.raises(ConfigError, match="lossless codec"):
        replace(config, init=None)
    MVVDM(smoke()).save_pretrained(tmp_path / "pixels", {})
    with pytest.raises(ConfigError, match="lossless"):
        make_parts(replace(config, init=Path(tmp_path / "pixels")), 0, 1)
