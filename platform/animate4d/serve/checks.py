"""What must hold before the service is started: Ray would start a part that cannot be made again and again."""

from __future__ import annotations

from animate4d.core.errors import ClusterError
from animate4d.io.atomic import check_writable
from animate4d.serve.clients import Tokens
from animate4d.serve.config import ServeConfig
from animate4d.serve.webhooks import Webhooks


def check_files(config: ServeConfig) -> None:
    """Raise a ConfigError for an output folder, a token file or a secret that cannot be used."""
    check_writable(config.out)
    if config.token_file is not None:
        Tokens(config.token_file)
    if config.webhook_secret_file is not None:
        Webhooks.read(config.webhook_secret_file, config.webhook_hosts)


def check_size(config: ServeConfig, *, cpus: float, gpus: float) -> None:
    """Raise a ClusterError if a cluster cannot hold all workers and generators, for which Ray would wait for ever."""
    if cpus < config.workers:
        raise ClusterError(f"workers is {config.workers}: the cluster has {cpus:g} CPUs, and each worker needs one")
    if 0 < gpus < config.generators:
        raise ClusterError(f"generators is {config.generators}: the cluster has {gpus:g} GPUs, and each needs one")


def check_port(config: ServeConfig) -> None:
    """Raise a ClusterError if somebody listens on the port already."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise ClusterError(
                f"port {config.port} on {config.host} is not free ({error.strerror}): give --port"
            ) from error
