"""Shares of GPUs: trainers keep whole ones while they can, and no two of them ever meet on one."""

import itertools
import math

import pytest

from animate4d.core.errors import ClusterError, ConfigError
from animate4d.data.config import DataConfig
from animate4d.data.placement import LEAST, SHARED, GpuShares, share_gpus


@pytest.mark.parametrize(
    ("gpus", "workers", "labellers", "asked", "expected"),
    [
        (0, 2, 1, None, (0, 0)),  # no GPUs
        (4, 4, 0, None, (1, 0)),  # nobody to label on one
        (1, 1, 1, None, (0.75, 0.25)),  # a workstation: both on its one GPU
        (8, 8, 1, None, (0.75, 0.25)),
        (8, 8, 2, None, (0.75, 0.125)),
        (8, 6, 1, None, (1, 1 / 3)),  # two spare ones for six labellers
        (8, 4, 1, None, (1, 1)),
        (9, 8, 1, None, (0.75, 0.25)),  # one spare one is too few for eight
        (8, 8, 1, 0, (1, 0)),  # labels on the CPU, as asked
        (8, 8, 1, 0.4, (0.6, 0.4)),
        (10, 8, 1, 0.25, (1, 0.25)),
        (2, 4, 1, None, (0, 0.5)),  # trainers on the CPU leave all GPUs
    ],
)
def test_shares(gpus, workers, labellers, asked, expected):
    found = share_gpus(gpus=gpus, workers=workers, labellers=labellers, asked=asked)
    assert (found.trainer, found.labeller) == pytest.approx(expected)


def test_whatever_the_cluster_has_all_fit_and_trainers_stay_apart():
    asked = (None, 0, 0.1, 0.25, 1 / 3, 0.4, 0.5, 1)
    given = 0
    for gpus, workers, labellers, share in itertools.product(range(9), range(1, 9), range(4), asked):
        try:
            found = share_gpus(gpus=gpus, workers=workers, labellers=labellers, asked=share)
        except ClusterError:
            assert share
            continue
        if found.trainer == 0:
            continue  # trainers on the CPU wait for nothing
        given += bool(found.labeller)
        assert found.trainer > 0.5
        assert not found.labeller or share or found.labeller >= LEAST or found.labeller == SHARED / labellers
        beside = math.floor((1 - found.trainer) / found.labeller + 1e-9) if found.labeller else 0
        spare = math.floor(1 / found.labeller + 1e-9) * (gpus - workers) if found.labeller else 0
        assert not found.labeller or workers * beside + spare >= workers * labellers
    assert given > 100


def test_labellers_that_ask_for_too_much_are_told():
    with pytest.raises(ClusterError, match="more than half") as error:
        share_gpus(gpus=2, workers=2, labellers=1, asked=0.5)
    assert "\n" not in str(error.value)
    assert share_gpus(gpus=3, workers=2, labellers=1, asked=0.5) == GpuShares(trainer=1, labeller=0.5)


def test_only_networks_behind_ray_take_gpus(tmp_path):
    weights = tmp_path / "weights.pth"

    def labellers(**changes) -> int:
        return DataConfig(shards=tmp_path, **changes).gpu_labellers

    assert labellers(tracker="cotracker3", tracker_checkpoint=weights, loader="ray", labellers=3) == 3
    assert labellers(tracker="cotracker3", tracker_checkpoint=weights) == 0
    assert labellers(tracker="opencv-lk", loader="ray") == 0
    for share in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="labeller_gpus"):
            DataConfig(shards=tmp_path, labeller_gpus=share)
