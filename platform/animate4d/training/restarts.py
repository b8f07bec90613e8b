"""Workers that Ray starts again: noted by Ray's controller in the run folder, told to the user by the driver."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError
from ray.train import UserCallback

from animate4d.core.errors import TrainingError
from animate4d.io.atomic import write_text
from animate4d.training.checkpoint import newest_sound

NAME = "restarts.jsonl"
"""In the run folder: one JSON object per failure of the workers since the driver started."""


class RestartNote(UserCallback):
    """Ray Train's callback, in its controller's process."""

    def __init__(self, out: Path) -> None:
        """Remember the run folder."""
        self._path = out / NAME

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Note why the workers have to be started again."""
        with open(self._path, "a") as stream:
            stream.write(json.dumps({"reason": reason(worker_exceptions)}) + "\n")


def reason(errors: dict[int, Exception]) -> str:
    """Say in short what befell the workers.

    Args:
        errors: by rank. Workers that outlive another one fail too, because it no longer answers: the dead come first.
    """
    dead = {rank: cause for rank, error in errors.items() if (cause := death(error))}
    if dead:
        rank, how = min(dead.items())
        return f"worker {rank} {how}"
    rank, error = min(errors.items())
    first = next(iter(str(error).splitlines()), "")[:200]
    return f"worker {rank} failed ({type(error).__name__}: {first})"


def death(error: Exception) -> str:
    """Say how a worker's process was lost, or "" if it was not."""
    cause = getattr(error, "health_check_failure", error)
    if not isinstance(cause, RayActorError):
        return ""
    return "died with its node" if "node has died" in str(cause) else "died"


class Restarts:
    """The driver's side of the notes."""

    def __init__(self, out: Path, most: int) -> None:
        """Begin with no failure.

        Args:
            out: run folder.
            most: times the workers may be started again.
        """
        self._out, self._most = out, most
        self._reasons: list[str] = []
        (out / NAME).unlink(missing_ok=True)

    def tell(self) -> None:
        """Say on stderr, once each, why the workers are started again and from where."""
        path = self._out / NAME
        text = path.read_text() if path.exists() else ""
        for line in text[: text.rfind("\n") + 1].splitlines()[len(self._reasons) :]:
            self._reasons.append(json.loads(line)["reason"])
            attempt = len(self._reasons) + 1
            if attempt <= self._most + 1:
                found = newest_sound(self._out).folder
                place = "the beginning" if found is None else found.name
                sys.stderr.write(f"\n{self._reasons[-1]}; attempt {attempt} of {self._most + 1} goes on from {place}\n")

    def give_up(self, error: BaseException | None) -> None:
        """Return if the workers did not end because of their failures.

        Raises:
            TrainingError: they did.
        """
        if len(self._reasons) <= self._most:
            return
        details = self._out / "error.txt"
        with suppress(OSError):  # a full disk may be what failed
            write_text(details, str(error))
        raise TrainingError(
            f"the workers failed {len(self._reasons)} times, at last: {self._reasons[-1]} (all of it in {details}): "
            "mend that, then run again with --resume"
        )
