"""The receipt of a result folder: what went in, what came out, and whether it is still what is asked for.

The content key hashes the asset's bytes, the request and the model; file names and package versions are not in it, so a
moved asset or an upgraded library does not make a result stale.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from animate4d import __version__
from animate4d.assets.load import load_asset
from animate4d.core.hashing import hash_file, hash_json
from animate4d.pipeline.config import Request

RECEIPT = "receipt.json"
SCHEMA = 1
RECIPE = 2
"""Raised when the pipeline makes something else of the same request, so that older results are made anew."""

STAGES = ("load", "views", "video", "fit", "export", "pictures")
REPORTED_PACKAGES = ("torch", "numpy", "diffusers", "scipy", "embreex")
MODEL_FILES = ("config.json", "model.safetensors", "words.json")
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes per unit of ru_maxrss: kilobytes on Linux, bytes on macOS."""


class StageClock:
    """Takes seconds and the memory high-water mark of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_memory_mb: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage, which may come again; the memory noted is the process's highest so far, at its end."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
        self.peak_memory_mb[name] = round(peak / 1e6, 1)


def content_key(request: Request, asset_sha256: str, model_version: str) -> str:
    """Return the hash of everything that decides a result."""
    generated = request.video == "generated"
    options = asdict(request.options) | {"formats": request.options.wanted_formats(), "tracker": request.tracker}
    weights = options.pop("tracker_checkpoint")
    options["tracker_weights"] = "" if weights is None else hash_file(weights)
    # What cannot change a result must not make it stale: a fitted clip knows no model, and a model sets its own frames.
    for name in ("frames",) if generated else ("guidance", "steps", "negative_prompt", "free_init", "step_cache"):
        del options[name]
    return hash_json(
        {
            "recipe": RECIPE,
            "asset": asset_sha256,
            "video": request.video,
            "prompt": request.prompt,
            "seed": request.seed,
            "clip": request.clip,
            "options": options,
            "model": model_version if generated else "",
        }
    )


def model_version(folder: Path) -> str:
    """Return a short hash of a model folder's weights, configuration and words."""
    return hash_json({name: hash_file(folder / name) for name in MODEL_FILES if (folder / name).is_file()})[:16]


def write_receipt(
    folder: Path,
    request: Request,
    *,
    asset_sha256: str,
    model_version: str,
    clock: StageClock,
    fit: dict[str, Any],
    truth: dict[str, float | None] | None,
    warnings: list[str],
) -> dict[str, Any]:
    """Write `receipt.json` as the last file of a result folder and return its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    receipt = {
        "schema": SCHEMA,
        "key": content_key(request, asset_sha256, model_version),
        "request": _named(request),
        "asset_sha256": asset_sha256,
        "file_sha256": hash_file(request.asset),
        "model_version": model_version if request.video == "generated" else None,
        "versions": _versions(),
        "seconds": clock.seconds,
        "peak_memory_mb": clock.peak_memory_mb,
        "fit": fit,
        "truth": truth,
        "warnings": warnings,
        "files": {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": hash_file(path)}
            for path in files
        },
    }
    (folder / RECEIPT).write_text(json.dumps(receipt, indent=1, allow_nan=False, default=_plain) + "\n")
    return receipt


def matching_receipt(folder: Path, request: Request, model_version: str) -> dict[str, Any] | None:
    """Return the receipt of a whole result that is what is asked for now, else None.

    The asset is hashed again; a result whose files were removed or cut does not match.

    Raises:
        AssetError: an asset of several files can no longer be read.
    """
    try:
        receipt = json.loads((folder / RECEIPT).read_bytes())
        key, files, digest = receipt["key"], receipt["files"], receipt["asset_sha256"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    if receipt.get("schema") != SCHEMA or key != content_key(request, digest, model_version):
        return None
    if not request.asset.is_file() or hash_file(request.asset) != receipt["file_sha256"]:
        return None
    # An asset of several files (glTF + textures, OBJ + MTL) may have changed in one of the others.
    if digest != receipt["file_sha256"] and load_asset(request.asset).source_sha256 != digest:
        return None
    for name, facts in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != facts["bytes"]:
            return None
    return receipt


def _named(request: Request) -> dict[str, Any]:
    """Return the request with files by name: where they lay says nothing of the result."""
    said = asdict(request)
    weights = said["options"]["tracker_checkpoint"]
    said["options"]["tracker_checkpoint"] = weights and weights.name
    return said | {"asset": request.asset.name}


def _versions() -> dict[str, str]:
    found = {"animate4d": __version__, "python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        found[name] = metadata.version(name)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value)} does not belong into a receipt")
