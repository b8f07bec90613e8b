"""Encoding ahead: exactly what the trainer would have encoded on the way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from animate4d.assets.procedural import generate_objects
from animate4d.core.errors import ConfigError, ModelError, ShardError
from animate4d.data.config import DataConfig
from animate4d.data.latents import read_latents
from animate4d.data.loader import open_stream
from animate4d.data.order import Cursor
from animate4d.data.store import ShardStore
from animate4d.io.atomic import write_json
from animate4d.io.shards import ShardWriter
from animate4d.models.codec import KLCodec, codec_id
from animate4d.models.config import smoke
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples
from animate4d.pipeline.latents import LatentEncoder, read_latent_model

GROUPS = ([0, 2], [1, 3])


def make_model(folder, seed=0, **changes):
    """A model folder as far as latents need it: its config and a tiny random autoencoder."""
    torch.manual_seed(seed)
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    ).save_pretrained(folder / "vae")
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
    write_json(folder / "config.json", replace(tiny, **changes).to_json())
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    options = ClipOptions(views=4, frames=8, size=32, samples=1)
    with ShardWriter(folder / "shards") as writer:
        for path in generate_objects(folder / "glb", count=2, seed=4, clips_per_object=1):
            for outcome in clip_samples(path, options):
                writer.write(outcome.key, outcome.members)
    return folder / "shards"


def members_of(shards, sample=0):
    return ShardStore(shards).read(sample, ["meta.json", *(f"view_{view:02d}.webp" for view in range(4))])


def test_kept_moments_are_those_of_encoding_on_the_way(shards, tmp_path):
    encoder = LatentEncoder(make_model(tmp_path / "model"), tmp_path / "latents")
    for sample in range(2):
        for group in GROUPS:
            assert encoder.keep(members_of(shards, sample), group)
            assert not encoder.keep(members_of(shards, sample), group)
    codec = KLCodec(tmp_path / "model" / "vae")
    data = DataConfig(
        shards=shards, size=16, views=2, frames=4, stride=2, frames_per_step=3, batch_size=4, prefetch=0,
        latents=tmp_path / "latents", codec=codec_id(codec),
    )  # fmt: skip
    batch, _ = next(iter(open_stream(data).batches(Cursor())))
    mean, std = codec.moments(batch.video)
    assert batch.latents.shape == mean.shape
    noise = (batch.latents - mean) / std
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05
    files = encoder._files
    members = members_of(shards)
    kept = read_latents(files, members, ShardStore(shards).keys[0], GROUPS[0], 8, np.arange(8))
    row = batch.sample_ids.index(f"{ShardStore(shards).keys[0]}/0")
    frames = batch.frame_index[row].numpy() * 2
    for wanted, found in zip((mean, std), kept, strict=True):
        np.testing.assert_allclose(found[:, frames], wanted[row].numpy(), rtol=1e-5, atol=1e-6)


def test_encode_draws_from_the_same_moments(tmp_path):
    make_model(tmp_path)
    codec = KLCodec(tmp_path / "vae")
    frames = torch.randn(2, 3, 3, 16, 16)
    mean, std = codec.moments(frames)
    drawn = codec.encode(frames, torch.Generator().manual_seed(5))
    noise = torch.randn(mean.flatten(0, 1).shape, generator=torch.Generator().manual_seed(5)).view_as(mean)
    torch.testing.assert_close(drawn, mean + std * noise)


def test_the_id_is_of_the_weights_and_not_of_the_folder(tmp_path):
    one, again, other = (
        KLCodec(make_model(tmp_path / name, seed) / "vae") for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert codec_id(one) == codec_id(again) != codec_id(other)
    assert codec_id(one).startswith("kl/1-")


def test_another_autoencoder_has_another_folder_and_a_damaged_file_is_replaced(shards, tmp_path):
    first, second = (LatentEncoder(make_model(tmp_path / str(seed), seed), tmp_path / "latents") for seed in (0, 1))
    assert first.folder != second.folder
    members = members_of(shards)
    assert first.keep(members, GROUPS[0])
    assert second.keep(members, GROUPS[0])
    (path,) = first.folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    assert first.keep(members, GROUPS[0])
    assert path.read_bytes() == whole


def test_what_cannot_be_encoded_is_said_in_one_line(shards, tmp_path):
    write_json(tmp_path / "config.json", smoke().to_json())
    with pytest.raises(ConfigError, match="gain nothing"):
        read_latent_model(tmp_path)
    with pytest.raises(ModelError, match="not a model folder"):
        LatentEncoder(tmp_path / "none", tmp_path / "latents")
    large = LatentEncoder(make_model(tmp_path / "large", image_size=64), tmp_path / "latents")
    with pytest.raises(ShardError, match="less than the 64 px"):
        large.keep(members_of(shards), GROUPS[0])
    members = {name: data for name, data in members_of(shards).items() if name != "view_02.webp"}
    fitting = LatentEncoder(make_model(tmp_path / "model"), tmp_path / "latents")
    with pytest.raises(ShardError, match=r"view_02\.webp is missing"):
        fitting.keep(members, GROUPS[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"data\.latents"):
        LatentEncoder(tmp_path / "model", tmp_path / "file")
