"""Faults of asset files, one per line of the list: a clear line or a defined result, soon, and without much memory."""

import gzip
import resource
import struct
import time

import numpy as np
import pytest

from animate4d.assets.load import load_asset
from animate4d.bench.faults.broken_models import mesh_ply, splat_ply, spz, triangle_glb
from animate4d.core.cameras import Rig
from animate4d.core.errors import AssetError
from animate4d.core.splats import SplatCloud
from animate4d.fourd.cloud_views import draw_cloud
from animate4d.io.ply import write_splat_ply

HUGE = [{"bufferView": 0, "componentType": 5126, "count": 10**9, "type": "VEC3"}]
FAULTS = {
    "D11 empty.glb": (b"", "the file is empty"),
    "D11 empty.ply": (b"", "the file is empty"),
    "D11 empty.spz": (b"", "the file is empty"),
    "D11 empty.splat": (b"", "the file is empty"),
    "D12 half.glb": (triangle_glb()[:300], "cut"),
    "D12 half.ply": (splat_ply(9, 4), "9 rows of vertex.*cut"),
    "D12 half.spz": (spz(11), "cut: 11 splats need 220 bytes, 200 are there"),
    "D12 half.splat": (struct.pack("<6f8B", *[0.5] * 6, *[128] * 4, 255, 128, 128, 128) * 3 + b"\0" * 9, "cut"),
    "D13 note.glb": (b"Dear reader,\nthis is a letter.\n", "plain text, not a GLB; give one of"),
    "D13 note.spz": (gzip.compress(b"a letter"), "a gzip file .unpack it first., not an SPZ"),
    "D13 photo.splat": (b"\x89PNG\r\n\x1a\n" + bytes(56), "a PNG image, not a SPLAT"),
    "D14 nan.ply": (mesh_ply([(0, 0, 0), (1, 0, 0), (0, "nan", 0)], [(0, 1, 2)]), "1 vertex positions are NaN"),
    "D15 none.ply": (mesh_ply([(0, 0, 0), (1, 0, 0), (0, 1, 0)], []), "no triangles"),
    "D16 mesh.ply": (mesh_ply([(0, 0, 0)] * 10, []).replace(b"vertex 10", b"vertex 1000000000"), "1000000000 rows"),
    "D16 splats.ply": (splat_ply(10**9, 10), "declares 1000000000 rows of vertex"),
    "D16 splats.spz": (spz(10**9), "declares 1000000000 splats, more than 5000000"),
    "D16 accessor.glb": (triangle_glb(accessors=HUGE), "MB, far above its size"),
    "D17 climbs.glb": (triangle_glb(buffers=[{"byteLength": 36, "uri": "../secret.bin"}]), "outside its own folder"),
    "D17 scheme.glb": (triangle_glb(buffers=[{"byteLength": 36, "uri": "file:///etc/passwd"}]), "only files beside"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_clear_line(fault, tmp_path):
    content, expected = FAULTS[fault]
    path = tmp_path / fault.split()[1]
    path.write_bytes(content)
    (tmp_path.parent / "secret.bin").write_bytes(bytes(36))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(AssetError, match=expected) as caught:
        load_asset(path)
    assert time.process_time() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")


def test_one_flat_triangle_is_a_model(tmp_path):
    (tmp_path / "one.glb").write_bytes(triangle_glb())
    assert np.isfinite(load_asset(tmp_path / "one.glb").mesh.vertices).all()


@pytest.mark.parametrize("kind", ["inside the camera", "needles", "one opacity", "wide", "tiny"])
def test_odd_clouds_are_drawn_finite(kind, tmp_path):
    """Whatever passes the reader can be drawn: pixels stay within range, also with a splat around the camera."""
    rng = np.random.default_rng(0)
    cloud = SplatCloud(
        means=rng.normal(0, 0.3, (300, 3)).astype(np.float32),
        quats=rng.normal(size=(300, 4)).astype(np.float32),
        scales=rng.uniform(0.01, 0.1, (300, 3)).astype(np.float32),
        opacities=rng.uniform(0, 1, 300).astype(np.float32),
        sh=rng.normal(0, 30, (300, 16, 3)).astype(np.float32),
    )
    if kind == "inside the camera":
        cloud.means[:50] = [2.9, 0, 0.78]
    elif kind == "needles":
        cloud.scales[:, :2] = 1e-30
    elif kind == "one opacity":
        cloud.opacities[:] = np.tile([0.0, 1.0], 150)
    elif kind == "wide":
        cloud.scales[:9] = 500.0
    else:
        cloud.scales[:] = 0.0
    write_splat_ply(tmp_path / "odd.ply", cloud)
    splats = load_asset(tmp_path / "odd.ply").splats
    with np.errstate(all="raise", under="ignore"):
        rgba = draw_cloud(splats, Rig(), 32)
    assert rgba[..., 3].max() > 100
