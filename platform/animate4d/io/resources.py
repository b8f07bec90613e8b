"""The files an asset refers to: data URIs and siblings in its own folder, never anything else.

Nothing here opens a network connection, and no path may leave the folder of the file that names it.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from animate4d.core.errors import AssetError

MAX_FILE_BYTES = 1 << 30
"""Largest file read into memory: 1 GiB, an order of magnitude above the heaviest models people publish."""

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*:")


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Read a whole file, or its first `limit` bytes.

    Raises:
        AssetError: it is missing, not a regular file, empty, unreadable, or above `MAX_FILE_BYTES`.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise AssetError(f"{path}: this is not a file; give the path of one 3D model")
        size = path.stat().st_size
        if size == 0:
            raise AssetError(f"{path}: the file is empty")
        if size > MAX_FILE_BYTES:
            raise AssetError(f"{path}: {size / 1e9:.1f} GB is above the limit of {MAX_FILE_BYTES / 1e9:.1f} GB a file")
        with open(path, "rb") as stream:
            return stream.read(limit if limit is not None else -1)
    except FileNotFoundError as error:
        raise AssetError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        raise AssetError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def is_file(path: Path) -> bool:
    """Whether there is a regular file of that name; a name no file system takes is not an error."""
    try:
        return path.is_file()
    except OSError:
        return False


def sibling_path(owner: Path, uri: str) -> Path:
    """Resolve a relative reference made by the file `owner` to a path inside the owner's folder.

    Args:
        owner: the file that holds the reference.
        uri: as written in it, possibly percent-encoded.

    Raises:
        AssetError: the reference has a scheme, is absolute, or leaves the folder (also through a link).
    """
    text = unquote(uri).replace("\\", "/")
    if _SCHEME.match(text) or text.startswith("/") or "\0" in text:
        raise AssetError(
            f"{owner}: refers to {_short(uri)}; only files beside the model are read, so put the file there"
        )
    folder = owner.parent.resolve()
    path = (folder / text).resolve()
    if not path.is_relative_to(folder):
        raise AssetError(f"{owner}: refers to {_short(uri)}, which is outside its own folder; put the file beside it")
    return path


def read_uri(owner: Path, uri: str) -> tuple[bytes, Path | None]:
    """Return the bytes behind a `data:` URI or a sibling file of `owner`, and the sibling's path.

    Raises:
        AssetError: the reference is unsafe, damaged, or the file is missing.
    """
    if not isinstance(uri, str):
        raise AssetError(f"{owner}: a file reference is not text")
    if uri[:5].lower() != "data:":
        path = sibling_path(owner, uri)
        if not is_file(path):
            raise AssetError(f"{owner}: needs the file {_short(uri)}, which is not beside it")
        return read_bytes(path), path
    head, comma, body = uri.partition(",")
    if not comma:
        raise AssetError(f"{owner}: holds a damaged data URI (no comma)")
    if not head.endswith(";base64"):
        return unquote_to_bytes(body), None
    try:
        return base64.b64decode(body, validate=True), None
    except (binascii.Error, ValueError) as error:
        raise AssetError(f"{owner}: holds a damaged base64 data URI ({error})") from error


def _short(uri: str) -> str:
    return repr(uri if len(uri) <= 80 else uri[:77] + "...")
