import pytest

from animate4d.core.errors import ConfigError, ShardError
from animate4d.data.config import DataConfig
from animate4d.data.loader import InProcessStream
from animate4d.data.order import Cursor
from animate4d.data.split import Split, object_of
from animate4d.data.store import ShardStore

KEYS = [f"fox-{number}-0a1b2c3d-{clip:02d}-{clip * 500:05d}" for number in range(20) for clip in range(3)]


def sides(share, keys=KEYS):
    return [Split(share=share, part=part).choose(keys) for part in ("train", "held_out")]


def test_an_object_lies_wholly_on_one_side_and_every_clip_on_one():
    train, away = sides(0.1)
    assert len({object_of(key) for key in away}) == 2
    assert not {object_of(key) for key in train} & {object_of(key) for key in away}
    assert sorted(train + away) == sorted(KEYS)
    assert train == [key for key in KEYS if key in set(train)]


def test_the_split_depends_on_the_objects_alone():
    train, away = sides(0.1)
    again, gone = sides(0.1, KEYS[::-1])
    assert (set(train), set(away)) == (set(again), set(gone))
    larger = sides(0.3)[1]
    assert set(away) < set(larger)


def test_objects_of_one_name_and_the_animations_of_one_object_never_lie_on_both_sides():
    twins = [f"{key.replace('0a1b2c3d', '4e5f6a7b')}" for key in KEYS]
    train, away = sides(0.1, KEYS + twins)
    assert len(away) == 2 * len(sides(0.1)[1]) > 0
    assert not {object_of(key) for key in train} & {object_of(key) for key in away}


def test_the_share_is_rounded_down_and_a_tenth_of_ten_is_one():
    assert len(sides(0.1, KEYS[:30])[1]) == 3
    assert sides(0.1, KEYS[:27])[1] == []
    assert sides(0.0)[1] == []


def test_the_name_of_an_object_may_look_like_anything():
    assert object_of("sci-fi-robot_2-00ff00ff-03-01250") == "sci-fi-robot_2"
    assert object_of("something-else") == "something-else"


@pytest.mark.parametrize("share", [-0.1, 0.6])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ConfigError, match="held_out"):
        Split(share=share, part="train")


def test_streams_of_both_sides_read_every_clip_once(tmp_path, write_shards):
    folder = write_shards(tmp_path / "shards", 12, views=4, clips_per_object=2)
    seen = []
    for part, clips in [("train", 8), ("held_out", 4)]:
        split = Split(share=0.4, part=part)
        config = DataConfig(shards=folder, split=split, size=32, frames=4, stride=1, batch_size=4, cache_mb=0)
        stream = InProcessStream(config)
        assert stream.epoch_items == clips
        batches = stream.batches(Cursor())
        seen += [name for _ in range(clips // 4) for name in next(batches)[0].sample_ids]
        batches.close()
    assert len(set(seen)) == len(seen) == 12


def test_a_side_without_objects_is_one_sentence(tmp_path, write_shards):
    folder = write_shards(tmp_path / "shards", 3, views=4)
    with pytest.raises(ShardError, match="too few objects to hold out 10%"):
        ShardStore(folder, split=Split(share=0.1, part="held_out"))
