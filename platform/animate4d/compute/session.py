"""Connect to Ray the same way from every job: plain `python jobs/x.py`, `ray job submit`, or a test.

A cluster that already runs (RAY_ADDRESS, or `ray start` on this machine) is joined; otherwise a small private one is
started and stopped again. Workers do not inherit the driver's `sys.path`, so a package imported from a checkout is
shipped as `py_modules`; an installed one (site-packages) is expected on every node.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from animate4d.core.errors import ClusterError

PACKAGE = Path(__file__).resolve().parents[1]

LOCAL_OBJECT_STORE_BYTES = 512 * 1024**2
"""Rows travel as encoded bytes, so half a gigabyte is plenty; Ray's default takes 30 % of the memory."""


@contextmanager
def ray_session(
    *, cpus: int | None = None, private: bool = False, object_store: int = LOCAL_OBJECT_STORE_BYTES
) -> Iterator[None]:
    """Hold a connection to Ray for the duration of a block.

    Args:
        cpus: size of the private cluster if one has to be started; default all cores.
        private: start one even where another could be joined.
        object_store: bytes of the private cluster's object store.

    Raises:
        ClusterError: a cluster is named but does not answer, or a private one does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A call that failed is told by its first result; Ray would print a page for each of the others.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = None if private else running_cluster()
    if address is None:
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=object_store,
                runtime_env={"env_vars": {"PYTHONPATH": str(PACKAGE.parent)}},
                **quiet,
            )
        except Exception as error:  # Ray raises nothing narrower for processes that did not come up in time
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise ClusterError(
                f"Ray did not start on this machine ({first}): it is probably too busy or out of memory; "
                "end other programs or wait, then run again"
            ) from error
    else:
        try:
            ray.init(address=address, runtime_env=shipped_code(), **quiet)
        except ConnectionError as error:
            raise ClusterError(
                f"no Ray cluster answers at {address}: start it (ray start --head), log in to it "
                "(RAY_AUTH_MODE=token), or unset RAY_ADDRESS to run on this machine alone"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def session_address() -> str:
    """Return the address by which other processes of this machine join the Ray of this one."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def running_cluster() -> str | None:
    """Return the address of the cluster to join: RAY_ADDRESS, else what `ray start` left on this machine, else None.

    Ray's own "auto" would also join the private cluster of any other job on this machine, and die with it.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    note = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    if not note.is_file():
        return None
    address = note.read_text().strip()
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError):
        return None  # left behind by a cluster that was killed
    return address


def shipped_code() -> dict[str, Any]:
    """Return the runtime environment that brings this package to the workers of a cluster that already runs."""
    return {} if "site-packages" in PACKAGE.parts else {"py_modules": [str(PACKAGE)]}


def require_resources(*, cpus: float = 0, gpus: float = 0) -> None:
    """Fail at once, with a sentence, where Ray would wait for ever.

    Raises:
        ClusterError: no single node has what one task asks for.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        have = ", ".join(f"{node.get('CPU', 0):g} CPU / {node.get('GPU', 0):g} GPU" for node in nodes)
        raise ClusterError(f"one task needs {cpus:g} CPU and {gpus:g} GPU, but no node has them (nodes: {have})")


def quiet_ray_data() -> None:
    """Keep Ray Data's plans out of a program's output; its import sets its own levels, so they are changed after it."""
    import ray.data  # noqa: F401

    logging.getLogger("ray.data").setLevel(logging.ERROR)


def object_store_bytes() -> int:
    """Return the size of the cluster's object stores together."""
    import ray

    return int(ray.cluster_resources().get("object_store_memory", 0))


def spilled_bytes() -> int:
    """Return what the cluster's object stores have written to disk for lack of room since they were started.

    `ray memory --stats-only` prints the same number in whole MiB.
    """
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    return int(get_memory_info_reply(state).store_stats.spilled_bytes_total)
