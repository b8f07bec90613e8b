"""Latents kept beside the shards: whose they are, how they are drawn, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from animate4d.core.errors import ConfigError, ShardError
from animate4d.data.config import DataConfig
from animate4d.data.latents import draw_latents, latent_files, pack_latents, read_latents
from animate4d.data.loader import open_stream
from animate4d.data.order import Cursor, Item
from animate4d.data.reader import ItemReader
from animate4d.data.store import ShardStore
from animate4d.io.shards import ShardWriter

CODEC = "kl/1-0123456789ab"
VIEWS = [0, 2, 4, 6]


def moments(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mean = rng.standard_normal((4, 8, 4, 4, 4)).astype(np.float32)
    return mean, rng.random(mean.shape).astype(np.float32)


def keep_latents(shards: Path) -> Path:
    """Write made-up latents of all samples; those of sample i, group g have seed 10 i + g."""
    store = ShardStore(shards)
    files = latent_files(shards / "latents", CODEC, 32)
    files.make_folder()
    for sample in range(len(store.keys)):
        members = store.read(sample, ["meta.json", *(f"view_{view:02d}.webp" for view in range(8))])
        for group in range(2):
            views = list(range(group, 8, 2))
            files.write(members, views, pack_latents(members, views, *moments(10 * sample + group), CODEC, 32))
    return shards / "latents"


def config(shards: Path, **changes) -> DataConfig:
    base = DataConfig(
        shards=shards, size=32, frames=4, stride=2, frames_per_step=3, batch_size=2, prefetch=0, max_bad_share=0.5
    )
    return dataclasses.replace(base, latents=shards / "latents", codec=CODEC, **changes)


@pytest.fixture
def shards(tmp_path, write_shards):
    folder = write_shards(tmp_path / "s", 3)
    keep_latents(folder)
    return folder


def test_an_item_gets_a_draw_from_its_own_moments_at_its_own_frames(shards):
    item = ItemReader(config(shards)).example(Item(Cursor(0, 3), 2, 1))
    mean, std = (values[:, item.frame_index * 2] for values in moments(21))
    noise = (item.latents - mean) / std
    assert item.latents.shape == (4, 3, 4, 4, 4)
    assert item.latents.dtype == np.float32
    assert abs(noise.mean()) < 0.1
    assert abs(noise.std() - 1) < 0.1


def test_draws_follow_the_cursor_and_change_nothing_else(shards):
    streams = [open_stream(config(shards)).batches(Cursor()) for _ in range(2)]
    plain = open_stream(dataclasses.replace(config(shards), latents=None, codec="")).batches(Cursor())
    seen = []
    for _ in range(6):  # two epochs
        (one, _), (again, _), (without, _) = (next(stream) for stream in (*streams, plain))
        assert one.latents.equal(again.latents)
        assert without.latents is None
        for name in ("video", "tracks", "visible", "frame_index"):
            assert getattr(one, name).equal(getattr(without, name))
        seen += list(zip(one.sample_ids, one.latents.flatten(1).sum(1).tolist(), strict=True))
    assert len({name for name, _ in seen}) == 6
    assert len(set(seen)) == 12  # every visit draws anew


def test_draws_have_the_moments():
    mean, std = moments(3)
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_latents(mean, std, rng) for _ in range(400)])
    assert np.abs(drawn.mean(0) - mean).max() < 5 * std.max() / 20
    assert np.median(np.abs(drawn.std(0) / std - 1)) < 0.05


def test_latents_of_another_sample_or_other_views_are_refused(make_sample, tmp_path):
    key, members = make_sample(1)
    other_key, other = make_sample(2)
    files = latent_files(tmp_path, CODEC, 32)
    files.write(members, VIEWS, pack_latents(members, VIEWS, *moments(1), CODEC, 32))
    read_latents(files, members, key, VIEWS, 8, np.arange(8))
    files.path(key, VIEWS).rename(files.path(other_key, VIEWS))
    with pytest.raises(ShardError, match="has no latents of these pictures"):
        read_latents(files, other, other_key, VIEWS, 8, np.arange(8))
    # Even with the very same pictures, a file says whose it is.
    twin = dict(members, **{"meta.json": other["meta.json"]})
    with pytest.raises(ShardError, match=f"latents of sample {key}"):
        read_latents(files, twin, other_key, VIEWS, 8, np.arange(8))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda mean, std: (mean, std[:, :4]), "std"),
        (lambda mean, std: (mean, -std), "damaged"),
        (lambda mean, std: (mean * np.float32(np.nan), std), "damaged"),
        (lambda mean, std: (mean[:, :4], std[:, :4]), "mean"),
    ],
)
def test_impossible_moments_are_refused(change, says, make_sample, tmp_path):
    key, members = make_sample(1)
    files = latent_files(tmp_path, CODEC, 32)
    files.write(members, VIEWS, pack_latents(members, VIEWS, *change(*moments(1)), CODEC, 32))
    with pytest.raises(ShardError, match=says):
        read_latents(files, members, key, VIEWS, 8, np.arange(8))


def test_missing_cut_and_stale_latents_skip_the_item_and_name_it(shards, make_sample):
    files = latent_files(shards / "latents", CODEC, 32)
    paths = sorted(files.folder.iterdir())
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    reader = ItemReader(config(shards, max_bad_share=0.5))
    for position in range(2):  # sample 0 lacks its latents in one group, and has damaged ones in the other
        replacement = reader.example(Item(Cursor(0, position), 0, position))
        assert not replacement.sample_id.startswith(reader.store.keys[0])
    reasons = " ".join(reader.skipped.values())
    assert "run jobs/encode_latents.py again" in reasons
    assert "cannot be read" in reasons

    key, members = make_sample(7)
    with ShardWriter(shards.parent / "changed") as writer:
        writer.write(key, members)
    keep_latents(shards.parent / "changed")
    changed = dict(members, **{"view_02.webp": make_sample(8)[1]["view_02.webp"]})
    there = latent_files(shards.parent / "changed" / "latents", CODEC, 32)
    assert there.has(members, VIEWS)
    assert not there.has(changed, VIEWS)
    assert there.has(changed, [1, 3, 5, 7])


def test_another_codec_or_size_is_refused_at_opening(shards):
    for changes in ({"codec": "kl/1-ffffffffffff"}, {"size": 16}):
        with pytest.raises(ConfigError, match=r"encode_latents\.py") as error:
            open_stream(dataclasses.replace(config(shards), **changes))
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="codec"):
        dataclasses.replace(config(shards), codec="")


@pytest.mark.ray
def test_ray_data_gives_the_same_latents(shards, ray_cluster):
    def first(stream):
        batches = stream.batches(Cursor())
        found = [next(batches)[0] for _ in range(3)]
        batches.close()
        return found

    here, there = (first(open_stream(config(shards, loader=loader))) for loader in ("inprocess", "ray"))
    for one, other in zip(here, there, strict=True):
        assert one.sample_ids == other.sample_ids
        assert one.latents.equal(other.latents)
