"""The master is lossless and documented."""

import re
from dataclasses import replace

import numpy as np
import pytest

from animate4d.core.motion import VertexMotion
from animate4d.export import motion_file
from animate4d.export.motion_file import read_motion, write_motion


def test_everything_comes_back_to_the_bit(thing, tmp_path):
    write_motion(tmp_path / "motion.npz", thing)
    read = read_motion(tmp_path / "motion.npz")
    np.testing.assert_array_equal(read["splat_means"], thing.splats.means)
    np.testing.assert_array_equal(read["vertices"], thing.vertices)
    np.testing.assert_array_equal(read["node_rotations"], thing.motion.rotations)
    np.testing.assert_array_equal(read["vertices"][0], thing.asset.mesh.vertices)
    frame = thing.asset.to_canonical
    user = (read["splat_means"][0] - read["translation"]) @ read["rotation"] / read["scale"]
    np.testing.assert_allclose(frame.invert(thing.cloud.means.astype(np.float64)), user)


def test_every_key_is_documented_and_no_other(thing, tmp_path):
    moving = replace(thing.splats, sh=np.repeat(thing.cloud.sh[None, :, 0], 4, axis=0))
    write_motion(tmp_path / "motion.npz", replace(thing, splats=moving))
    keys = {name for line in motion_file.__doc__.splitlines() if line.startswith("| `") for name in
            re.findall(r"`(\w+)`", line.split("|")[1])}  # fmt: skip
    assert set(read_motion(tmp_path / "motion.npz")) == keys


def test_motion_without_a_graph_or_a_mesh_has_fewer_keys(thing, splat_thing, tmp_path):
    offsets = thing.vertices - thing.vertices[:1]
    free = replace(thing, motion=VertexMotion(offsets=offsets, times=thing.motion.times))
    write_motion(tmp_path / "a.npz", free)
    assert "nodes" not in read_motion(tmp_path / "a.npz")
    write_motion(tmp_path / "b.npz", splat_thing)
    assert "vertices" not in read_motion(tmp_path / "b.npz")
    assert read_motion(tmp_path / "b.npz")["splat_sh"].shape == (300, 4, 3)


def test_foreign_and_cut_archives_are_refused(thing, tmp_path):
    path = tmp_path / "motion.npz"
    write_motion(path, thing)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="cannot be read as a motion archive"):
        read_motion(path)
    np.savez(path, a=np.zeros(2))
    with pytest.raises(ValueError, match="not a motion archive of schema 1"):
        read_motion(path)
    np.savez(path, schema=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read"):
        read_motion(path)
