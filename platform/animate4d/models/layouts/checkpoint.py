"""Weight files as named tensors, whatever they are packed in: safetensors, or PyTorch pickles without running code.

Nothing is read before it is asked for: tensors stay mapped from disk, so a file of any size opens at once. A pickle is
read with `weights_only=True`, which refuses everything but tensors and plain containers.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from animate4d.core.errors import ModelError

FOLDER_FILES = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
)
"""What the weights in a folder are called, best first: full precision before half, safetensors before pickles."""

TEXT_STARTS = (b"<", b"{", b"[")
"""First characters of web pages and JSON answers that a failed download leaves under the name of a checkpoint."""


class Safetensors(Mapping[str, torch.Tensor]):
    """The tensors of a safetensors file, each mapped from disk when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, framework="pt", device="cpu")
        self._names = list(self._file.keys())
        self._known = frozenset(self._names)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._known:
            raise KeyError(name)
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._known


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Named tensors of one file or of several that belong together.

    Attributes:
        path: what the user gave.
        tensors: name -> tensor, mapped from disk.
        stripped: prefix that every name of the file had and that was taken off ("module."), or "".
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    stripped: str = ""


def read_checkpoint(path: Path) -> Checkpoint:
    """Open a weight file, or the weight file of a diffusers folder.

    Nested dictionaries are joined with dots (`{"image_proj": {"proj.weight": ...}}`); a `state_dict` entry is taken for
    the whole; a prefix `module.` of all names is taken off.

    Raises:
        ModelError: there is no file, it is cut off, is no weight file, or holds code instead of tensors.
    """
    file = weight_file(path)
    head = _head(file)
    if _is_safetensors(head):
        tensors: Mapping[str, torch.Tensor] = _open_safetensors(file)
    else:
        tensors = _flatten(file, _load_pickle(file, head))
    if not tensors:
        raise ModelError(f"{file}: holds no tensors; give the file with the weights")
    if all(name.startswith("module.") for name in tensors):
        return Checkpoint(path, {name.removeprefix("module."): tensors[name] for name in tensors}, "module.")
    return Checkpoint(path, tensors)


def weight_file(path: Path) -> Path:
    """Return `path` if it is a file, else the one weight file in the folder.

    Raises:
        ModelError: there is none.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise ModelError(f"{path}: there is no such file or folder; give the local path of the downloaded weights")
    for name in FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    if any(path.glob("*.index.json")):
        raise ModelError(f"{path}: the weights are split over several files; save them as one (max_shard_size) first")
    raise ModelError(f"{path}: no weight file of a usual name in this folder ({FOLDER_FILES[0]}, ...); give the file")


def _head(file: Path) -> bytes:
    try:
        with open(file, "rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from error
    if not head:
        raise ModelError(f"{file}: the file is empty; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{file}: this is a Git LFS pointer, not the weights; fetch the real file (git lfs pull)")
    if head.lstrip().startswith(TEXT_STARTS):
        raise ModelError(f"{file}: this is a text or web page, not weights (a failed download?); download it again")
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")):
        raise ModelError(f"{file}: this is a packed archive; unpack it and give the weight file inside")
    return head


def _is_safetensors(head: bytes) -> bool:
    # Eight bytes of header length, then the header's opening brace; no pickle or ZIP has one there.
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def _open_safetensors(file: Path) -> Safetensors:
    try:
        return Safetensors(file)
    except SafetensorError as error:
        raise ModelError(f"{file}: cut off or damaged safetensors file ({_first(error)}); download it again") from error


def _load_pickle(file: Path, head: bytes) -> Any:
    zipped = head.startswith(b"PK\x03\x04")
    if zipped:
        if not zipfile.is_zipfile(file):
            raise ModelError(f"{file}: cut off (a PyTorch file without its end); download it again")
        with zipfile.ZipFile(file) as archive:
            if not any(name.endswith("/data.pkl") or name == "data.pkl" for name in archive.namelist()):
                raise ModelError(f"{file}: a ZIP archive without PyTorch weights; unpack it and give the file inside")
    elif not head.startswith(b"\x80"):
        raise ModelError(f"{file}: neither safetensors nor a PyTorch file; give .safetensors, .ckpt, .pt or .bin")
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global) `?([\w.]+)", str(error))
        if found is None:
            raise ModelError(f"{file}: cut off or damaged PyTorch file ({_first(error)}); download it again") from error
        raise ModelError(
            f"{file}: holds code ({found[1]}), which is never run; if you trust it, save its tensors as safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, TypeError, IndexError) as error:
        raise ModelError(f"{file}: cut off or damaged PyTorch file ({_first(error)}); download it again") from error


def _flatten(file: Path, content: Any) -> dict[str, torch.Tensor]:
    """Return the named tensors of nested dictionaries, names joined with dots; everything else is left out."""
    if not isinstance(content, Mapping):
        raise ModelError(f"{file}: holds a {type(content).__name__}, not named tensors; give a checkpoint of weights")
    if isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    found: dict[str, torch.Tensor] = {}
    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            found[str(name)] = value.detach()
        elif isinstance(value, Mapping):
            found.update({f"{name}.{inner}": x.detach() for inner, x in value.items() if isinstance(x, torch.Tensor)})
    return found


def _first(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]
