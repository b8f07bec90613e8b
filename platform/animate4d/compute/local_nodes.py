"""A Ray cluster of several nodes on this machine, to see what happens when one of them is lost."""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import Any

from animate4d.compute.session import LOCAL_OBJECT_STORE_BYTES


class LocalNodes:
    """Nodes ended with the block that holds them. The head, the first node, cannot be lost.

    Attributes:
        address: of the cluster, for RAY_ADDRESS.
    """

    def __init__(self, *, cpus: int = 1) -> None:
        """Start the head with so many CPUs."""
        from ray.cluster_utils import Cluster

        # In a folder of its own: what lies in Ray's usual one tells other jobs of this machine which cluster to join.
        self._folder = tempfile.TemporaryDirectory(prefix="ray-nodes-", ignore_cleanup_errors=True)
        self._options: dict[str, Any] = {"object_store_memory": LOCAL_OBJECT_STORE_BYTES // 4}
        head = self._options | {"num_cpus": cpus, "include_dashboard": False, "temp_dir": self._folder.name}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._joined: list[Any] = []
        self.address = str(self._cluster.address)

    def __enter__(self) -> LocalNodes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.shutdown()
        self._folder.cleanup()

    def join(self, *, cpus: int = 1, gpus: int = 0) -> None:
        """Start one more node; its GPUs need not exist."""
        self._joined.append(self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, **self._options))

    def lose(self) -> None:
        """Kill the node that joined last, with all that runs on it."""
        self._cluster.remove_node(self._joined.pop(), allow_graceful=False)
