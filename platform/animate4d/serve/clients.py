"""Who calls: names by bearer token, or addresses where no token is asked for; and how often each may call."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from animate4d.core.errors import ConfigError
from animate4d.serve.job_store import NAME

COOKIE = "animate4d_token"
"""Carries the token for what a browser loads by itself: frames, videos, downloads. Only reading requests heed it."""

SEPARATOR = ":"
SOLE_NAME = "client"
MAX_CLIENTS = 10_000
"""Clients whose rate is remembered; the one longest silent is forgotten first."""


class Tokens:
    """The tokens of a file, one `name:token` a line; blank lines and lines that begin with # are left out.

    Raises:
        ConfigError: the file cannot be read, or a line is no token.
    """

    def __init__(self, path: Path) -> None:
        self._names: dict[bytes, str] = {}
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"token_file {path}: cannot be read ({error})") from error
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, separator, token = line.strip().partition(SEPARATOR)
            if not separator:
                name, token = SOLE_NAME, name
            if not NAME.fullmatch(name) or not token.strip() or not token.isascii() or not token.isprintable():
                raise ConfigError(f"token_file {path} line {number}: write NAME:TOKEN, both printable ASCII")
            if name in self._names.values() or token.strip().encode() in self._names:
                raise ConfigError(f"token_file {path} line {number}: this name or token is there already")
            self._names[token.strip().encode()] = name
        if not self._names:
            raise ConfigError(f"token_file {path}: holds no token; write one NAME:TOKEN a line")

    def name(self, given: str) -> str | None:
        """Return whose token this is; compares with each in constant time."""
        found = [name for token, name in self._names.items() if hmac.compare_digest(given.encode(), token)]
        return found[0] if found else None


class RateLimit:
    """A token bucket per client: `per_minute` requests on average, bursts of up to a tenth of them."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = per_minute / 60
        self.burst = max(1.0, per_minute / 10)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Take one request of a client; returns 0, or after how many seconds it may come again."""
        now = self._clock()
        left, then = self._left.pop(client, (self.burst, now))
        left = min(self.burst, left + (now - then) * self.rate)
        wait = 0.0 if left >= 1 else (1 - left) / self.rate
        self._left[client] = (left if wait else left - 1, now)
        if len(self._left) > MAX_CLIENTS:
            self._left.popitem(last=False)
        return wait
