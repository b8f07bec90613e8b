"""A real MLflow server on loopback, to be killed and started again on the same port with the same store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from animate4d.bench.faults.tiny import PATIENCE_S


class MlflowServer:
    """Ended with the block that holds it.

    Attributes:
        uri: of the store.
    """

    def __init__(self, folder: Path) -> None:
        """Choose a port; nothing runs yet.

        Args:
            folder: for the database, the artifacts and the log.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._folder = folder
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> MlflowServer:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with open(self._folder / "server.log", "a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):  # noqa: S310 - our own server
                    return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise AssertionError((self._folder / "server.log").read_text()) from error
                time.sleep(0.1)

    def kill(self) -> None:
        """Kill it with its own workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
