"""How many rows at once, by what a cluster has."""

import pytest
import ray

from animate4d.batch.places import Places, Wanted, cluster_places, local_places, places_of
from animate4d.core.errors import ClusterError, ConfigError


@pytest.mark.parametrize(("wanted", "rows", "workers"), [(None, 100, 4), (1, 100, 1), (50, 100, 4), (None, 1, 1)])
def test_without_gpus_a_worker_per_cpu_does_whole_rows(wanted, rows, workers):
    places = places_of(4, 0, Wanted(rows=rows, model=True, at_once=wanted))
    assert places == Places(workers=workers, cpus=1.0, gpus=0.0)


@pytest.mark.parametrize(
    ("wanted", "rows", "share", "workers", "helpers"),
    [(None, 100, 1.0, 2, 8), (None, 100, 0.5, 4, 8), (1, 100, 1.0, 1, 1), (6, 100, 1.0, 2, 4), (None, 3, 0.5, 3, 3)],
)
def test_with_gpus_workers_imagine_and_helpers_do_the_rest(wanted, rows, share, workers, helpers):
    places = places_of(8, 2, Wanted(rows=rows, model=True, at_once=wanted, gpu_share=share))
    assert places == Places(workers=workers, cpus=0.0, gpus=share, helpers=helpers)
    assert places.split
    assert places.at_once == workers + helpers


@pytest.mark.parametrize(
    ("cpus", "rows", "share", "fit_share", "workers", "helpers"),
    [(64, 100, 0.5, 0.1, 2, 10), (64, 100, 0.4, 0.2, 2, 6), (4, 100, 0.5, 0.1, 2, 4), (64, 3, 0.1, 0.3, 2, 3)],
)
def test_fits_share_what_the_videos_leave_of_the_gpus(cpus, rows, share, fit_share, workers, helpers):
    places = places_of(cpus, 2, Wanted(rows=rows, model=True, gpu_share=share, fit_share=fit_share))
    assert places == Places(workers=workers, cpus=0.0, gpus=share, helpers=helpers, helper_gpus=fit_share)
    assert workers * share + helpers * fit_share <= 2


def test_without_videos_whole_rows_share_the_gpus():
    wanted = Wanted(rows=100, model=False, fit_share=0.2)
    assert places_of(64, 2, wanted) == Places(workers=10, cpus=1.0, gpus=0.2)
    assert places_of(4, 0, wanted) == Places(workers=4, cpus=1.0, gpus=0.0)


def test_videos_that_take_the_whole_gpu_leave_no_room_for_fits():
    with pytest.raises(ConfigError, match="make gpu_share smaller"):
        places_of(8, 1, Wanted(rows=10, model=True, fit_share=0.2))


def test_a_plan_without_ray_is_for_this_machine():
    assert local_places(Wanted(rows=1, model=False)).at_once == 1
    assert not local_places(Wanted(rows=100, model=False)).split


@pytest.mark.ray
def test_the_cluster_in_use_is_what_counts(ray_cluster):
    assert cluster_places(Wanted(rows=100, model=True)).at_once == int(ray.cluster_resources()["CPU"])


@pytest.mark.ray
def test_a_gpu_that_no_node_has_is_said(ray_cluster, monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    with pytest.raises(ClusterError, match="needs 0 CPU and 1 GPU"):
        cluster_places(Wanted(rows=100, model=True))
    with pytest.raises(ClusterError, match=r"needs 1 CPU and 0\.1 GPU"):
        cluster_places(Wanted(rows=100, model=False, fit_share=0.1))
    assert not cluster_places(Wanted(rows=100, model=False)).split
