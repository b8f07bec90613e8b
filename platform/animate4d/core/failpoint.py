"""Named places at which a test makes a process die, fail or wait. Without the environment variable they do nothing.

`ANIMATE4D_FAILPOINTS="save.sealed=kill@2,save.renamed=sleep:0.5"` acts at the second passing of `save.sealed` and at
every passing of `save.renamed`. Actions:

- `kill`: SIGKILL to this process, as the out-of-memory killer and a lost machine do it: nothing is cleaned up.
- `raise`: `FailpointError`, which no code expects.
- `full`: the `OSError` of a disk without space.
- `sleep:SECONDS`.

`ANIMATE4D_FAILPOINT_LOG=FILE` notes every point passed, one name a line, before anything happens there. A test reads
in it which points there are, to walk them all, and passings are then counted over all processes that share the file:
`kill@1` kills once, not again after the restart. Without the file each process counts its own.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from pathlib import Path

POINTS, LOG = "ANIMATE4D_FAILPOINTS", "ANIMATE4D_FAILPOINT_LOG"

_passed: Counter[str] = Counter()


class FailpointError(RuntimeError):
    """Raised on purpose at a point that a test named."""


def failpoint(name: str) -> None:
    """Do what the environment asks for at this point; some two microseconds where it asks for nothing.

    Args:
        name: dotted, from the coarse to the fine: "save.renamed" is after the renaming.

    Raises:
        FailpointError, OSError: asked for by the test.
        ValueError: the environment variable is malformed.
    """
    if POINTS not in os.environ and LOG not in os.environ:
        return
    passing = _count(name)
    for action, at in _asked(name):
        if at in (None, passing):
            _act(name, action)


def _count(name: str) -> int:
    """Note a passing and return its number, from 1."""
    if file := os.environ.get(LOG):
        with open(file, "a") as log:  # O_APPEND: short lines of several processes do not mix
            log.write(f"{name}\n")
        return Path(file).read_text().split("\n").count(name)
    _passed[name] += 1
    return _passed[name]


def _asked(name: str) -> list[tuple[str, int | None]]:
    """Return the (action, passing or None for every one) of a point."""
    found = []
    for entry in filter(None, os.environ.get(POINTS, "").split(",")):
        point, equals, rest = entry.partition("=")
        action, at, number = rest.partition("@")
        if not equals or (at and not number.isdecimal()):
            raise ValueError(f"{POINTS}: {entry!r} is not NAME=ACTION or NAME=ACTION@PASSING")
        if point == name:
            found.append((action, int(number) if at else None))
    return found


def _act(name: str, action: str) -> None:
    kind, _, value = action.partition(":")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "raise":
        raise FailpointError(f"asked for at {name}")
    elif kind == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    elif kind == "sleep":
        time.sleep(float(value))
    else:
        raise ValueError(f"{POINTS}: {action!r} at {name} is not kill, raise, full or sleep:SECONDS")
