"""Splat files stand upright in their format's frame, in the user's units, row by row the same splats."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from animate4d.assets.load import load_asset
from animate4d.core.motion import SplatMotion
from animate4d.export.splats import ply_up, splat_frame, write_splat_sequence, write_splats
from animate4d.io.ply import read_ply, read_splat_ply

FLIP = np.array([1, -1, -1])
"""From glTF's y-up to the y-down of 3DGS PLY files: half a turn about x."""


def covariances(cloud):
    turn = Rotation.from_quat(cloud.quats[:, [1, 2, 3, 0]]).as_matrix() * cloud.scales[:, None]
    return turn @ turn.swapaxes(1, 2)


def test_splats_of_a_mesh_lie_on_the_users_model_turned_to_y_down(thing, tmp_path):
    write_splats(thing.asset, thing.cloud, tmp_path / "static.ply")
    read = read_splat_ply(tmp_path / "static.ply")
    frame = thing.asset.to_canonical
    np.testing.assert_allclose(frame.apply(read.means * FLIP), thing.cloud.means, atol=1e-5)
    turned = covariances(read) * FLIP[:, None] * FLIP
    shown = frame.scale**2 * frame.rotation @ turned @ frame.rotation.T
    np.testing.assert_allclose(shown, covariances(thing.cloud), atol=1e-6)
    np.testing.assert_allclose(read.opacities, thing.cloud.opacities, atol=1e-5)
    np.testing.assert_allclose(read.sh, thing.cloud.sh, atol=1e-6)


def test_ply_has_every_property_that_viewers_look_for(thing, tmp_path):
    write_splats(thing.asset, thing.cloud, tmp_path / "static.ply")
    names = read_ply(tmp_path / "static.ply").elements["vertex"].dtype.names
    assert names == (
        *"xyz", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
        "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".ply", ".spz", ".glb"])
def test_our_reader_sees_all_formats_the_same_way_up(thing, tmp_path, suffix):
    path = tmp_path / f"static{suffix}"
    write_splats(thing.asset, thing.cloud, path)
    again = load_asset(path)
    ratio = again.to_canonical.scale / thing.asset.to_canonical.scale
    centre = (again.splats.means - ratio * thing.cloud.means).mean(0)
    np.testing.assert_allclose(again.splats.means, ratio * thing.cloud.means + centre, atol=2e-4)


def test_a_splat_file_keeps_its_own_frame_as_ply(splat_thing, tmp_path):
    assert ply_up(splat_thing.asset) == "-y"
    turned = replace(splat_thing.asset, to_canonical=splat_frame(splat_thing.asset, "z"))
    assert ply_up(turned) == "z"
    write_splats(turned, splat_thing.cloud, tmp_path / "a.ply")
    assert read_ply(tmp_path / "a.ply").comments == ("up z",)
    read = read_splat_ply(tmp_path / "a.ply")
    np.testing.assert_allclose(turned.to_canonical.apply(read.means), splat_thing.cloud.means, atol=1e-5)


def test_sequence_has_one_file_per_frame_in_row_order(thing, tmp_path):
    paths = write_splat_sequence(thing.asset, thing.cloud, thing.splats, tmp_path / "frames", stem="barrel")
    assert [path.name for path in paths] == [f"barrel_{frame:04d}.ply" for frame in range(4)]
    for path, centres in zip(paths, thing.splats.means, strict=True):
        read = read_splat_ply(path)
        np.testing.assert_allclose(thing.asset.to_canonical.apply(read.means * FLIP), centres, atol=1e-5)
    static = tmp_path / "static.ply"
    write_splats(thing.asset, thing.cloud, static)
    assert paths[0].read_bytes() == static.read_bytes()


def test_a_failing_sequence_leaves_nothing(thing, tmp_path):
    short = SplatMotion(means=thing.splats.means, quats=thing.splats.quats[:2])
    with pytest.raises(IndexError):
        write_splat_sequence(thing.asset, thing.cloud, short, tmp_path / "frames")
    assert list(tmp_path.iterdir()) == []
