"""Every clip of every real model loads, moves, and stays in one piece."""

import time

import numpy as np

from animate4d.assets.load import load_asset


def test_every_clip_of_every_model_has_finite_poses(real_assets):
    paths = sorted(real_assets.glob("*/*.glb"))
    assert len(paths) > 100
    poses = still = 0
    spent = 0.0
    for path in paths:
        asset = load_asset(path)
        assert np.linalg.norm(asset.mesh.vertices, axis=1).max() < 0.8001
        assert len(asset.mesh.vertices) == sum(part.vertex_count for part in asset.parts)
        assert bool(asset.clips) == (path.parent.name == "animated")
        for number, clip in enumerate(asset.clips):
            started = time.process_time()
            vertices = [asset.vertices_at(number, share * clip.duration) for share in (0.0, 0.4, 0.9)]
            spent += time.process_time() - started
            poses += 3
            assert all(np.isfinite(pose).all() and np.abs(pose).max() < 5 for pose in vertices), (path.name, clip.name)
            still += all(np.array_equal(pose, vertices[0]) for pose in vertices)
    assert still < 0.05 * poses
    assert spent / poses < 0.01, "a pose must stay cheap: thousands of clips of 16 to 48 frames are rendered"


def test_draco_and_plain_files_agree_on_the_parts_they_draw(real_assets):
    asset = load_asset(real_assets / "animated" / "ultimate_space__Mech_FinnTheFrog.glb")
    assert "KHR_draco_mesh_compression" in asset.document.json["extensionsRequired"]
    assert len(asset.mesh.vertices) > 1000
    assert asset.mesh.materials[0].texture is not None
    moved = asset.vertices_at(asset.clip_number("Walk"), 0.3) - asset.mesh.vertices
    assert np.linalg.norm(moved, axis=1).max() > 0.05
