"""Files that would harm the process that reads them, and ones that do not."""

import resource
import struct

import pytest

from animate4d.assets import guarded
from animate4d.assets.guarded import Limits, check_untrusted
from animate4d.assets.procedural import generate_objects
from animate4d.core.errors import AssetError


def test_a_good_model_gives_its_facts(tmp_path):
    (path,) = generate_objects(tmp_path, count=1, seed=5, families=("barrel",))
    facts = check_untrusted(path)
    assert facts["faces"] > 100
    assert facts["vertices"] > 100
    assert facts["splats"] == 0
    assert facts["clips"]


def test_what_load_asset_says_is_said(tmp_path):
    path = tmp_path / "-y $(touch canary).glb"
    path.write_text("milk, eggs\n")
    with pytest.raises(AssetError, match="plain text") as error:
        check_untrusted(path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("canary*"))


def test_one_that_needs_more_memory_than_allowed_ends_in_a_sentence_and_not_in_our_process(tmp_path):
    path = tmp_path / "large.obj"
    with open(path, "w") as stream:
        stream.writelines(f"v {number} 0 0\n" for number in range(400_000))
        stream.writelines(f"f {number} {number + 1} {number + 2}\n" for number in range(1, 399_998))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AssetError, match="MB"):
        check_untrusted(path, Limits(memory_mb=220))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 50e6


@pytest.mark.parametrize("name", ["busy.glb", "slow.glb"])
def test_one_that_never_ends_is_stopped_whether_it_computes_or_waits(tmp_path, monkeypatch, name):
    """The child reads with a loader that hangs: a module of its own, first on its path."""
    fake = tmp_path / "animate4d_hang.py"
    fake.write_text(
        "import time, pathlib, animate4d.assets.load as load\n"
        "def hang(path):\n"
        "    while True:\n"
        "        time.sleep(30) if path.name.startswith('slow') else None\n"
        "load.load_asset = hang\n"
        "import animate4d.assets.guarded as guarded\n"
        "guarded._main()\n"
    )
    monkeypatch.setattr(guarded, "__name__", str(fake.stem))
    monkeypatch.setattr(guarded, "PACKAGE_ROOT", f"{guarded.PACKAGE_ROOT}:{tmp_path}")
    (tmp_path / name).write_bytes(b"glTF")
    with pytest.raises(AssetError, match="more than 1 s to read"):
        check_untrusted(tmp_path / name, Limits(seconds=1))


def test_the_child_can_write_nothing(tmp_path, monkeypatch):
    fake = tmp_path / "animate4d_write.py"
    fake.write_text(
        "import pathlib, animate4d.assets.load as load\n"
        "load.load_asset = lambda path: path.with_name('written').write_text('x')\n"
        "import animate4d.assets.guarded as guarded\n"
        "guarded._main()\n"
    )
    monkeypatch.setattr(guarded, "__name__", str(fake.stem))
    monkeypatch.setattr(guarded, "PACKAGE_ROOT", f"{guarded.PACKAGE_ROOT}:{tmp_path}")
    (tmp_path / "a.glb").write_bytes(b"glTF")
    with pytest.raises(AssetError, match="ended the reading process"):
        check_untrusted(tmp_path / "a.glb")
    assert not (tmp_path / "written").exists() or not (tmp_path / "written").read_text()


def test_a_claim_of_a_gigabyte_in_a_kilobyte_is_refused_at_once(tmp_path):
    text = (
        b'{"asset":{"version":"2.0"},"buffers":[{"byteLength":8}],"bufferViews":[{"buffer":0,"byteLength":8}],'
        b'"accessors":[{"componentType":5126,"count":100000000,"type":"VEC3"}],'
        b'"meshes":[{"primitives":[{"attributes":{"POSITION":0}}]}],"nodes":[{"mesh":0}],"scenes":[{"nodes":[0]}]}'
    )
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", 8, 0x004E4942) + b"\0" * 8
    path = tmp_path / "bomb.glb"
    path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body)
    with pytest.raises(AssetError, match=r"bomb\.glb"):
        check_untrusted(path)
