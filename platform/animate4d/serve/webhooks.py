"""Tells a client's own server that its animation has ended: one signed POST, repeated while it is not taken.

Whoever names an address makes this machine call it. So only https is let through, a name is resolved once, private
addresses are refused, and the very address that was looked at is connected to; redirects are not followed. For hosts
that the operator trusts, private addresses and http will do.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import ipaddress
import json
import logging
import re
import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from animate4d.core.errors import ConfigError
from animate4d.serve.job_store import Job, JobStore

logger = logging.getLogger(__name__)

MAX_URL = 500
ADDRESS = r"https://[A-Za-z0-9][A-Za-z0-9.-]*(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._~/?&=%+-]*)?"
"""So little is let through that no two parsers read it in two ways."""

MIN_SECRET = 16
PAUSES = (1.0, 5.0, 30.0, 120.0, 600.0)
"""Seconds before each repetition; after the last the webhook is given up."""

TIMEOUT = 10.0
SIGNATURE = "Animate4d-Signature"


class Webhooks:
    """Checks addresses and sends signed messages to them.

    Args:
        secret: key of the signature.
        hosts: names the operator trusts.
    """

    def __init__(self, secret: bytes, hosts: Sequence[str] = ()) -> None:
        self.secret, self.hosts = secret, frozenset(hosts)

    @classmethod
    def read(cls, path: Path, hosts: Sequence[str]) -> Webhooks:
        """Return them with the secret in a file.

        Raises:
            ConfigError: the file cannot be read, or its secret is short.
        """
        try:
            secret = path.read_bytes().strip()
        except OSError as error:
            raise ConfigError(f"webhook_secret_file {path}: cannot be read ({error.strerror})") from error
        if len(secret) < MIN_SECRET:
            raise ConfigError(f"webhook_secret_file {path}: write {MIN_SECRET} characters or more")
        return cls(secret, hosts)

    def check(self, url: str) -> SplitResult:
        """Return the parts of an address.

        Raises:
            ConfigError: it is none that may be called.
        """
        trusted = url.replace("http://", "https://", 1) if urlsplit(url).hostname in self.hosts else url
        if len(url) > MAX_URL or not re.fullmatch(ADDRESS, trusted):
            raise ConfigError("webhook: write https://host/path, without user, password, fragment or special letters")
        return urlsplit(url)

    def send(self, url: str, body: bytes) -> bool:
        """Post a body once; returns whether the other side took it (any 2xx)."""
        try:
            parts = self.check(url)
            connection = self._connection(parts)
            try:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("POST", target, body, self._headers(body))
                status = connection.getresponse().status
            finally:
                connection.close()
        except (OSError, ValueError, http.client.HTTPException, ConfigError) as error:
            logger.warning("webhook to %r failed: %s", urlsplit(url).hostname, error)
            return False
        return 200 <= status < 300

    async def deliver(self, store: JobStore, job: Job) -> None:
        """Send how a job ended until it is taken or the last pause is over, and note that it needs no more sending."""
        body = json.dumps({"id": job.id, "state": job.state, "error": job.error or None}).encode()
        for pause in (0.0, *PAUSES):
            await asyncio.sleep(pause)
            if await asyncio.to_thread(self.send, job.request["webhook"], body):
                break
        else:
            logger.warning("the webhook of job %s is given up", job.id)
        if store.find(job.id) is not None:
            store.update(job.id, told=True)

    def _headers(self, body: bytes) -> dict[str, str]:
        stamp = str(int(time.time()))
        signature = hmac.new(self.secret, f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        return {"Content-Type": "application/json", SIGNATURE: f"t={stamp},v1={signature}"}

    def _connection(self, parts: SplitResult) -> http.client.HTTPConnection:
        """Connect to an address that was looked at, whatever the name means a moment later."""
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]
        if host not in self.hosts and not ipaddress.ip_address(address[0]).is_global:
            raise ConfigError("its address is private, and the operator has not allowed it")
        connected = socket.create_connection((str(address[0]), port), timeout=TIMEOUT)
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        if parts.scheme == "https":
            connected = ssl.create_default_context().wrap_socket(connected, server_hostname=host)
        connection.sock = connected
        return connection
