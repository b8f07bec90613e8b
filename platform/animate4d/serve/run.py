"""`python jobs/serve.py`: start Ray Serve, wait, drain and stop on Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict, replace

from animate4d.compute.paths import durable_path
from animate4d.compute.session import ray_session
from animate4d.core.errors import ClusterError
from animate4d.serve.checks import check_files, check_port
from animate4d.serve.config import ServeConfig

DRAIN_GRACE = 60
"""Seconds a worker may take to notice that its time is over: one denoising step of the largest model."""


def serve(config: ServeConfig) -> int:
    """Serve until interrupted; returns the exit code. A second Ctrl-C leaves at once.

    Raises:
        ClusterError: the port is taken, the cluster is too small, or a part of the service does not start.
        ConfigError: the output folder, the token file or the secret cannot be used.
        ModelError: there is no such model.
    """
    from animate4d.runs.registry import resolve_model
    from animate4d.runs.store import tracking_uri

    check_port(config)
    config = replace(
        config,
        out=durable_path(config.out),
        token_file=config.token_file and config.token_file.absolute(),
        webhook_secret_file=config.webhook_secret_file and config.webhook_secret_file.absolute(),
        tracking_uri=tracking_uri(config.tracking_uri),
    )
    check_files(config)
    resolve_model(config.model, uri=config.tracking_uri)
    os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "0")  # it would listen on all interfaces
    print(f"starting the service on http://{config.host}:{config.port} (up to a minute)", flush=True)
    with ray_session(cpus=max(2, config.workers + 1)):
        from ray import serve as ray_serve
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        from animate4d.serve.app import build

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            ray_serve.start(http_options={"host": config.host, "port": config.port})
            try:
                service = ray_serve.run(
                    build(asdict(config)), name="animate4d", route_prefix="/", logging_config={"log_level": "WARNING"}
                )
            except RuntimeError as error:  # Ray Serve has given up on a part that cannot be made; it tells its trace
                last = str(error).strip().splitlines()[-1].strip()
                raise ClusterError(f"the service does not start: {last}") from error
            here = f"http://{config.host}:{config.port}"
            print(f"ready: try it at {here}/, read the contract at {here}/docs; Ctrl-C stops", flush=True)
            for stop in (signal.SIGINT, signal.SIGTERM):
                signal.signal(stop, signal.default_int_handler)
            with suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
            print(f"stopping; a running job has {config.drain_seconds} s, then it waits for the next start", flush=True)
            try:
                service.drain.remote().result(timeout_s=config.drain_seconds + DRAIN_GRACE)
            except (TimeoutError, RayError, RayServeException):
                print("what still runs is cut; it starts over at the next start", flush=True)
        finally:
            ray_serve.shutdown()
    return 0
