"""Captions from names and from tables."""

from pathlib import Path

import pytest

from animate4d.core.errors import ConfigError
from animate4d.pipeline.captions import caption_of, captions_for, gerund, read_captions


@pytest.mark.parametrize(
    ("object_name", "clip", "caption"),
    [
        ("animals__Fox", "Gallop", "a fox galloping"),
        ("animals__Alpaca", "AnimalArmature|Walk", "an alpaca walking"),
        ("dinosaurs__Trex", "Armature|TRex_Run", "a trex running"),
        ("tank__Tank2", "TankArmature|Tank_TurningLeft", "a tank turning to the left"),
        ("cute_fish__BlueTang", "Fish_Armature|Swimming_Fast", "a blue tang swimming fast"),
        ("mech__Leela", "Run_Holding", "a leela running holding something"),
        ("fish__Shark", "Armature|Swim.001", "a shark swimming"),
        ("x__Enemy", "Fast_Flying", "an enemy flying fast"),
        ("x__Fox", "Idle_2", "a fox standing idle"),
        ("x__Robot", "ThumbsUp", "a robot giving a thumbs up"),
        ("truck", "clip_0", "a truck moving"),
        ("truck", "", "a truck moving"),
        ("truck", "mixamo.com", "a truck moving"),
        ("truck", "Take 001", "a truck moving"),
        ("Sword_01", "spin", "a sword spinning"),
        ("___", "wave", "an object waving"),
    ],
)
def test_names_become_sentences(object_name, clip, caption):
    assert caption_of(object_name, clip) == caption


def test_spelling():
    verbs = ("run", "swim", "walk", "dance", "die", "eat", "flee", "sit", "jump", "fly", "punch", "crawl")
    expected = "running swimming walking dancing dying eating fleeing sitting jumping flying punching crawling"
    assert " ".join(map(gerund, verbs)) == expected


def test_tables_are_read_with_bom_and_quotes(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_bytes('\ufefffile,clip,caption\r\na.glb,Walk,"a fox, red,\n walking"\r\nsub/b.glb,0,a bee\r\n'.encode())
    table = read_captions(path)
    assert captions_for(Path("/data/a.glb"), table) == {"Walk": "a fox, red, walking"}
    assert captions_for(Path("/data/sub/b.glb"), table) == {"0": "a bee"}
    assert captions_for(Path("/data/c.glb"), table) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file,caption\n", "no column clip"),
        ("", "no column file, clip, caption"),
        ("file,clip,caption\na.glb,Walk,\n", "line 2: file and caption"),
        ("file,clip,caption\na.glb\n", "line 2"),
    ],
)
def test_wrong_tables_have_a_line(tmp_path, content, words):
    path = tmp_path / "captions.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=words):
        read_captions(path)


def test_unreadable_tables_have_a_name(tmp_path):
    with pytest.raises(ConfigError, match=r"missing.csv"):
        read_captions(tmp_path / "missing.csv")
    (tmp_path / "latin.csv").write_bytes(b"file,clip,caption\na,b,\xe9\xff\n")
    with pytest.raises(ConfigError, match=r"latin.csv"):
        read_captions(tmp_path / "latin.csv")
