"""Where relative paths of a job go.

`ray job submit --working-dir` runs the job inside a temporary copy of the submitter's folder that Ray deletes later:
results written there would be lost. In such a copy, relative output paths go below $ANIMATE4D_HOME, else
`~/animate4d`; everywhere else they mean what they always mean, the current folder.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

COPY_MARKERS = ("runtime_resources", "working_dir_files")
"""Folder names, one below the other, of the copies Ray makes."""


def inside_job_copy(folder: Path | None = None) -> bool:
    """Return whether a folder (default: the current one) lies in a temporary copy made by `ray job submit`."""
    parts = (folder or Path.cwd()).parts
    return COPY_MARKERS in pairwise(parts)


def durable_path(path: Path) -> Path:
    """Return where an output path really is, absolute and outlasting the job."""
    path = path.expanduser()
    if path.is_absolute():
        return path
    base = Path(os.environ.get("ANIMATE4D_HOME", "~/animate4d")).expanduser() if inside_job_copy() else Path.cwd()
    return (base / path).resolve()


def input_path(path: Path) -> Path:
    """Return an input path as absolute; inside a job's copy a file that did not travel is looked for below the home."""
    path = path.expanduser()
    here = Path.cwd() / path
    return here.resolve() if here.exists() or path.is_absolute() else durable_path(path)
