"""Shared fixtures: a quiet private Ray, and the folder of real 3D models where it is present."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_assets() -> Path:
    """Folder with `animated/` and `static/` GLBs (ANIMATE4D_TEST_ASSETS, else ../shared/assets); skips where absent."""
    folder = Path(os.environ.get("ANIMATE4D_TEST_ASSETS", ROOT.parent / "shared" / "assets"))
    if not (folder / "animated").is_dir():
        pytest.skip(f"no folder of real models at {folder} (set ANIMATE4D_TEST_ASSETS)")
    return folder


@pytest.fixture(scope="session")
def ray_cluster():
    """One small in-process Ray cluster for the whole test session."""
    from animate4d.compute.session import ray_session

    with ray_session(cpus=2):
        yield
