"""Read a file nobody vouches for in a child process that has only so much memory and time.

A crafted model can make any parser, Python's or a native one, allocate without end, loop, or crash. The child takes
that blow; what comes back is a few facts or one sentence. It cannot write files, and nothing of what it built is used.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from animate4d.core.errors import AssetError

PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What reading one file may take.

    Attributes:
        memory_mb: address space; the interpreter and its libraries are about 150 MB of it.
        seconds: of CPU time; twice as much by the clock.
    """

    memory_mb: int = 4096
    seconds: int = 60


def check_untrusted(path: Path, limits: Limits | None = None) -> dict[str, Any]:
    """Read a 3D model in a child process and throw it away.

    Args:
        path: any file.
        limits: of the child.

    Returns:
        "vertices", "faces", "splats" (numbers), "clips" (names) and "warnings" (sentences).

    Raises:
        AssetError: as `load_asset` raises, or reading took more than the limits, or ended the process.
    """
    limits = limits or Limits()
    command = [sys.executable, "-m", __name__, str(limits.memory_mb), str(limits.seconds), str(path.absolute())]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(PACKAGE_ROOT), **threads}
    try:
        child = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=2 * limits.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AssetError(f"{path}: {_too_long(limits)}") from None
    if child.returncode == -signal.SIGXCPU:
        raise AssetError(f"{path}: {_too_long(limits)}")
    try:
        answer = json.loads(child.stdout)
    except ValueError:
        # out of memory in a native library ends the process in one of several ways
        raise AssetError(
            f"{path}: reading it ended the reading process (exit {child.returncode}), which may use "
            f"{limits.memory_mb} MB: it is damaged, or far too large; export it anew with less in it"
        ) from None
    if "error" in answer:
        raise AssetError(answer["error"])
    return answer


def _too_long(limits: Limits) -> str:
    return f"takes more than {limits.seconds} s to read: the file is damaged, or far too large; export it anew"


def _main() -> None:
    """Be the child."""
    import resource

    memory_mb, seconds, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from animate4d.assets.load import load_asset

    try:
        asset = load_asset(Path(name))
    except AssetError as error:
        if isinstance(error.__cause__, MemoryError):
            print(
                json.dumps({"error": f"{name}: needs more than {memory_mb} MB to read: export it with fewer vertices"})
            )
        else:
            print(json.dumps({"error": str(error)}))
        return
    mesh = asset.mesh
    facts = {
        "vertices": 0 if mesh is None else len(mesh.vertices),
        "faces": 0 if mesh is None else len(mesh.faces),
        "splats": 0 if asset.splats is None else len(asset.splats.means),
        "clips": [clip.name for clip in asset.clips],
        "warnings": list(asset.warnings),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    _main()
