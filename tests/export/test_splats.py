"""Splat files in the user's frame, and splats that ride on a moving mesh."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from animate4d.assets.load import load_asset
from animate4d.assets.procedural import generate_objects
from animate4d.core.splats import SplatCloud
from animate4d.export.splats import aligned, move_splats, write_splat_sequence, write_splats
from animate4d.io.ply import read_splat_ply


@pytest.fixture
def asset(tmp_path):
    return load_asset(generate_objects(tmp_path / "objects", count=1, seed=4, families=("dog",))[0])


@pytest.fixture
def splats(asset):
    rng = np.random.default_rng(0)
    chosen = rng.choice(np.unique(asset.mesh.faces), 60)
    return SplatCloud(
        means=asset.mesh.vertices[chosen],
        quats=Rotation.random(60, random_state=0).as_quat()[:, [3, 0, 1, 2]].astype(np.float32),
        scales=rng.uniform(0.01, 0.05, (60, 3)).astype(np.float32),
        opacities=rng.uniform(0.2, 0.95, 60).astype(np.float32),
        sh=rng.normal(0, 0.3, (60, 1, 3)).astype(np.float32),
    )


def covariances(cloud):
    turn = Rotation.from_quat(cloud.quats[:, [1, 2, 3, 0]]).as_matrix() * cloud.scales[:, None]
    return turn @ turn.swapaxes(1, 2)


def test_static_file_is_in_the_users_frame(asset, splats, tmp_path):
    write_splats(asset, splats, tmp_path / "static.ply")
    read = read_splat_ply(tmp_path / "static.ply")
    frame = asset.to_canonical
    np.testing.assert_allclose(frame.apply(read.means), splats.means, atol=1e-5)
    turned = frame.scale**2 * frame.rotation @ covariances(read) @ frame.rotation.T
    np.testing.assert_allclose(turned, covariances(splats), atol=1e-6)
    np.testing.assert_allclose(read.opacities, splats.opacities, atol=1e-5)
    np.testing.assert_allclose(read.sh, splats.sh, atol=1e-6)
    # Our reader takes it back into the same canonical axes because the file says which way is up.
    again = load_asset(tmp_path / "static.ply")
    ratio = np.ptp(again.splats.means, axis=0) / np.ptp(splats.means, axis=0)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)


def test_splats_ride_on_the_mesh(asset, splats, make_motion):
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces)
    means, quats = move_splats(splats, motion, asset.mesh.vertices)
    moved = motion.apply(asset.mesh.vertices)
    distance = np.linalg.norm(splats.means[:, None] - asset.mesh.vertices, axis=-1)
    nearest = distance.argmin(1)
    np.testing.assert_allclose(means, moved[:, nearest], atol=1e-4)
    np.testing.assert_array_equal(quats[0], splats.quats)
    np.testing.assert_allclose(np.linalg.norm(quats, axis=-1), 1, atol=1e-5)
    assert ((quats[1:] * quats[:-1]).sum(-1) > 0).all()


def test_rigid_motion_turns_every_splat_the_same(asset, splats, make_motion):
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces)
    turn = np.array([0.2, 0.9, -0.4], np.float32)
    motion.rotations[1:] = turn
    _, quats = move_splats(splats, motion, asset.mesh.vertices)
    own = Rotation.from_quat(splats.quats[:, [1, 2, 3, 0]])
    expected = (Rotation.from_rotvec(turn) * own).as_matrix()
    np.testing.assert_allclose(Rotation.from_quat(quats[2][:, [1, 2, 3, 0]]).as_matrix(), expected, atol=1e-5)


def test_sequence_has_one_file_per_frame_in_row_order(asset, splats, tmp_path, make_motion):
    motion = make_motion(asset.mesh.vertices, asset.mesh.faces, frames=4)
    means, quats = move_splats(splats, motion, asset.mesh.vertices)
    paths = write_splat_sequence(asset, splats, means, quats, tmp_path / "frames", stem="dog")
    assert [path.name for path in paths] == [f"dog_{frame:04d}.ply" for frame in range(4)]
    for path, centres in zip(paths, means, strict=True):
        np.testing.assert_allclose(asset.to_canonical.apply(read_splat_ply(path).means), centres, atol=1e-5)


def test_a_failing_sequence_leaves_nothing(asset, splats, tmp_path):
    means = np.repeat(splats.means[None], 3, axis=0)
    with pytest.raises(ValueError, match="quaternions"):
        write_splat_sequence(asset, splats, means, np.zeros((2, 60, 4), np.float32), tmp_path / "frames")
    assert not (tmp_path / "frames").exists()


def test_aligned_signs():
    quats = np.random.default_rng(1).normal(size=(9, 4, 4))
    fixed = aligned(quats)
    assert ((fixed[1:] * fixed[:-1]).sum(-1) >= 0).all()
