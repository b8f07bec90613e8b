"""Content hashes and stable ids."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes as hex; reads 1 MB at a time."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """Return the sha256 of a JSON value, independent of key order, as hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def slug(text: str) -> str:
    """Turn any text into a name of lower-case letters, digits, '-' and '_' that is safe as a file name."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")[:80] or "unnamed"
