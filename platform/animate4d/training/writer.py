"""Writes checkpoints beside the training: the loop hands over copies and goes on, a thread makes them a checkpoint.

Every worker writes its own files into one hidden folder and then a note that names them with sizes and hashes. Rank 0
waits for all notes, seals the folder and renames it. Nothing is sent between the workers, so the thread never meets the
training's own collectives. One checkpoint at a time: host memory holds one copy of the state.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from animate4d.core.errors import UserError
from animate4d.core.failpoint import failpoint
from animate4d.io.atomic import write_json
from animate4d.training.checkpoint import checkpoint_folder, describe, partial_folder, prune, seal
from animate4d.training.group import Group

NOTE = "rank-{:02d}.json"
"""A worker's last file in a checkpoint."""

POLL_SECONDS = 0.05

Files = Mapping[str, Callable[[Path], None]]
"""Path in the checkpoint -> what writes it, from copies that the training no longer changes."""


class CheckpointWriter:
    """One worker's side of all checkpoints of a run."""

    def __init__(self, out: Path, keep: int, group: Group) -> None:
        """Begin with nothing to write.

        Args:
            out: run folder.
            keep: newest checkpoints kept.
            group: the workers; all of them make the same calls in the same order.
        """
        self.out, self.keep, self.group = out, keep, group
        self.failure = ""
        """Why this worker could not write its part, "" if it could or is still at it."""
        self._own = self._whole = threading.Thread()
        self._abandoned = threading.Event()

    def begin(self, step: int) -> str:
        """Finish the checkpoint before and make the folder of the next; returns why the one before failed, or ""."""
        failure = self.settle()
        if not failure:
            if self.group.rank == 0:
                shutil.rmtree(partial_folder(self.out, step), ignore_errors=True)
                partial_folder(self.out, step).mkdir(parents=True)
            self.group.barrier()
        return failure

    def write(self, step: int, files: Files, note: dict[str, Any]) -> None:
        """Start writing this worker's part of a checkpoint that `begin` made room for.

        Args:
            step: optimiser steps done.
            files: what to write.
            note: what this worker's `rank-NN.json` says besides the list of its files.
        """
        self._own = threading.Thread(target=self._write_own, args=(step, files, note), name="checkpoint", daemon=True)
        self._own.start()
        if self.group.rank == 0:
            self._whole = threading.Thread(target=self._complete, args=(step,), name="checkpoint-seal", daemon=True)
            self._whole.start()

    def settle(self) -> str:
        """Wait until the checkpoint under way is whole, on every worker; returns why it will never be, or ""."""
        if self._own.ident is not None:
            self._own.join()
        failure = next((text for text in self.group.gather(self.failure) if text), "")
        if failure:
            self._abandoned.set()
        if self._whole.ident is not None:
            self._whole.join()
        return failure or self.group.first(self.failure)

    def _write_own(self, step: int, files: Files, note: dict[str, Any]) -> None:
        partial = partial_folder(self.out, step)
        try:
            failpoint("save.before_files")
            for name, write in files.items():
                path = partial / name
                path.parent.mkdir(exist_ok=True)
                write(path)
            failpoint("save.after_files")
            write_json(partial / NOTE.format(self.group.rank), note | {"files": describe(partial, files)})
            failpoint("save.after_note")
        except Exception as error:  # noqa: BLE001 - told to the loop, which ends the run with it
            self.failure = reason(error, self.out)

    def _complete(self, step: int) -> None:
        partial = partial_folder(self.out, step)
        try:
            notes = [partial / NOTE.format(rank) for rank in range(self.group.world)]
            while not all(note.exists() for note in notes):
                if self.failure or self._abandoned.wait(POLL_SECONDS):
                    shutil.rmtree(partial, ignore_errors=True)
                    return
            entries = {name: entry for note in notes for name, entry in json.loads(note.read_text())["files"].items()}
            seal(partial, checkpoint_folder(self.out, step), entries)
            prune(self.out, self.keep)
            failpoint("save.after_prune")
        except Exception as error:  # noqa: BLE001 - as above
            shutil.rmtree(partial, ignore_errors=True)
            self.failure = reason(error, self.out)


def reason(error: Exception, out: Path) -> str:
    """Say in one line why a checkpoint could not be written and what is left."""
    if isinstance(error, UserError):
        return str(error)
    text = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    return (
        f"a checkpoint could not be written in {out} ({text}); the ones before are whole: "
        "make room or mend the disk, then run again with --resume"
    )
