"""Finding a cluster, and saying clearly when it cannot do what is asked."""

import socket

import pytest

from animate4d.compute.session import ray_session, require_resources, running_cluster
from animate4d.core.errors import ClusterError


@pytest.fixture
def ray_note(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_environment_names_the_cluster(ray_note, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert running_cluster() == "10.0.0.1:6379"


def test_no_cluster(ray_note):
    assert running_cluster() is None


def test_cluster_on_this_machine_is_joined(ray_note):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        ray_note.write_text(address)
        assert running_cluster() == address


def test_note_of_a_dead_cluster_is_ignored(ray_note):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    ray_note.write_text(address)
    assert running_cluster() is None


def test_a_private_cluster_does_not_look_for_others(monkeypatch):
    import ray

    asked = []
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options["address"]))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with ray_session(private=True):
        pass
    assert asked == ["local"]


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch):
    import ray

    def time_out(**options):
        raise Exception("The current node timed out during startup. This could happen because\nof much.")  # as Ray does

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", time_out)
    says = "timed out during startup.*too busy.*run again"
    with pytest.raises(ClusterError, match=says) as caught, ray_session(private=True):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.ray
def test_too_large_a_task_is_refused_with_what_there_is(ray_cluster):
    require_resources(cpus=1)
    with pytest.raises(ClusterError, match="64 GPU"):
        require_resources(gpus=64)


@pytest.mark.ray
def test_workers_can_import_the_package(ray_cluster):
    import ray

    @ray.remote
    def where():
        import animate4d

        return animate4d.__file__

    assert ray.get(where.remote()).endswith("animate4d/__init__.py")
