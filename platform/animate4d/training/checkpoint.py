"""Checkpoint folders of a run: `<out>/checkpoints/step-000123/`, complete only with a marker that was written last.

The marker lists every file with its size and sha256, so a checkpoint that was cut or changed is told from a good one
before anything in it is read. DeepSpeed's files are pickles: load only checkpoints of your own runs.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from animate4d.core.errors import ConfigError
from animate4d.core.failpoint import failpoint
from animate4d.core.hashing import hash_file
from animate4d.io.atomic import sync_file, sync_folder, write_json

MARKER = "COMPLETE.json"
STOP_FILE = "stop-requested"
"""The driver writes it into the run folder to ask for a checkpoint and an orderly end."""
STEP_NAME = re.compile(r"^step-(\d{6,})$")

FREE_KEYS = ("job.", "steps", "workers")
"""Settings that may differ between a checkpoint and the run that goes on from it: places, rhythms, names, the goal, and
the number of workers, for which the optimiser's state is dealt out anew (`resharding`)."""

Entries = dict[str, dict[str, Any]]
"""File -> its size ("bytes") and "sha256"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What looking for a checkpoint gave.

    Attributes:
        folder: newest sound checkpoint, or None.
        damaged: one sentence for each newer one that is not sound.
    """

    folder: Path | None
    damaged: tuple[str, ...]


def checkpoint_folder(out: Path, step: int) -> Path:
    """Return the folder of the checkpoint after `step` optimiser steps."""
    return out / "checkpoints" / f"step-{step:06d}"


def partial_folder(out: Path, step: int) -> Path:
    """Return the folder a checkpoint is written into before it is whole."""
    return out / "checkpoints" / f".step-{step:06d}.partial"


def step_of(folder: Path) -> int:
    """Return the number of optimiser steps done in a checkpoint, from its name."""
    match = STEP_NAME.match(folder.name)
    assert match, folder
    return int(match[1])


def list_checkpoints(out: Path) -> list[Path]:
    """Return a run's checkpoint folders, sound or not, oldest first."""
    folder = out / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted((entry for entry in folder.iterdir() if STEP_NAME.match(entry.name)), key=step_of)


def describe(folder: Path, names: Iterable[str]) -> Entries:
    """Make finished files survive a power cut and return their sizes and hashes. Reads every byte once."""
    for name in names:
        sync_file(folder / name)
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": hash_file(folder / name)} for name in names}


def seal(partial: Path, final: Path, described: Entries | None = None) -> None:
    """Make a fully written folder a checkpoint: write the marker, rename.

    Args:
        partial: the folder.
        final: its name as a checkpoint; a damaged checkpoint of that name is replaced.
        described: what `describe` said of files; it is asked about all others.
    """
    known = described or {}
    names = sorted(file.relative_to(partial).as_posix() for file in partial.rglob("*") if file.is_file())
    entries = known | describe(partial, [name for name in names if name not in known])
    failpoint("save.before_marker")
    write_json(partial / MARKER, {"step": step_of(final), "files": entries})
    failpoint("save.after_marker")
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    sync_folder(final.parent)
    failpoint("save.after_rename")


def fault(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint in one clause, or None if every byte is as it was written."""
    try:
        files: Entries = json.loads((folder / MARKER).read_text())["files"]
    except FileNotFoundError:
        return f"it has no {MARKER}, so its writing was cut short"
    except (ValueError, KeyError, TypeError):
        return f"its {MARKER} cannot be read"
    for name, entry in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != entry["bytes"]:
            return f"{name} has {file.stat().st_size} bytes instead of {entry['bytes']}"
        if hash_file(file) != entry["sha256"]:
            return f"the content of {name} has changed (sha256 differs)"
    return None


def newest_sound(out: Path) -> Found:
    """Find the newest checkpoint whose every byte is as written, skipping damaged ones. Reads the whole checkpoint."""
    damaged: list[str] = []
    for folder in reversed(list_checkpoints(out)):
        problem = fault(folder)
        if problem is None:
            return Found(folder=folder, damaged=tuple(damaged))
        damaged.append(f"checkpoint {folder.name} is damaged ({problem})")
    return Found(folder=None, damaged=tuple(damaged))


def prune(out: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what an earlier process left half-written."""
    for folder in list_checkpoints(out)[:-keep]:
        # The marker goes first: a deletion cut short must not look like a checkpoint.
        (folder / MARKER).unlink(missing_ok=True)
        shutil.rmtree(folder)
    for leftover in (out / "checkpoints").glob(".step-*.partial"):
        shutil.rmtree(leftover)


def check_same_run(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuse to go on from a checkpoint made under other settings.

    Args:
        folder: a sound checkpoint; its config.json says how it was made.
        wanted: resolved config of this run.

    Raises:
        ConfigError: names every setting that differs, with both values.
    """
    old = flatten(json.loads((folder / "config.json").read_text()))
    new = flatten(json.loads(json.dumps(wanted)))
    missing = "not set"
    differing = [
        f"{key} (checkpoint {old.get(key, missing)}, now {new.get(key, missing)})"
        for key in sorted(old.keys() | new.keys())
        if not key.startswith(FREE_KEYS) and old.get(key, missing) != new.get(key, missing)
    ]
    if not differing:
        return
    raise ConfigError(
        f"cannot resume from {folder.name}: other settings: {', '.join(differing)}; "
        "give the settings of the first run, or another --out"
    )


def flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested dictionaries into one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        flat |= flatten(inner, f"{name}.") if isinstance(inner, dict) else {name: inner}
    return flat
