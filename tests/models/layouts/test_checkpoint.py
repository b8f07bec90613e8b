"""Files that are not what they seem: one clear line each, and no code is run."""

from __future__ import annotations

import gzip
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from animate4d.core.errors import ModelError
from animate4d.models.layouts.checkpoint import read_checkpoint


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def refused(path: Path, match: str) -> str:
    with pytest.raises(ModelError, match=match) as error:
        read_checkpoint(path)
    line = str(error.value)
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, zipped: bool):
    proof, path = tmp_path / "proof", tmp_path / "model.ckpt"
    torch.save(
        {"a": torch.zeros(2), "b": Malicious(proof)}, path, _use_new_zipfile_serialization=zipped, pickle_protocol=2
    )
    line = refused(path, "holds code")
    assert "system" in line
    assert "safetensors" in line
    assert not proof.exists()


def test_a_bare_pickle_with_code_is_refused_too(tmp_path: Path):
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "proof")))
    refused(path, "holds code|cut off or damaged")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_cut_torch_file(tmp_path: Path, zipped: bool, share: float):
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.randn(3000), "b": torch.randn(3000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "download it again" in refused(path, "cut off")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_cut_safetensors_file(tmp_path: Path, share: float):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.randn(3000), "b": torch.randn(3000)}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "download it again" in refused(path, "cut off|damaged")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"<!DOCTYPE html><html><head><title>404</title>", "text or web page"),
        (b"\n  <html>", "text or web page"),
        (b'{"error": "Access denied"}', "text or web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 99\n", "Git LFS pointer"),
        (b"", "is empty"),
        (b"Entry not found", "neither safetensors nor a PyTorch file"),
        (gzip.compress(b"weights", mtime=0), "packed archive"),
        (pickle.dumps({"a": 1}, protocol=2), "cut off or damaged PyTorch file"),
        (bytes(range(1, 65)), "neither safetensors nor a PyTorch file"),
    ],
    ids=["page", "indented page", "answer", "pointer", "empty", "text", "gzip", "cut pickle", "bytes"],
)
def test_something_else_under_a_checkpoints_name(tmp_path: Path, content: bytes, match: str):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    refused(path, match)


@pytest.mark.parametrize(("content", "match"), [([1, 2], "holds a list"), ({"epoch": 3}, "no tensors")])
def test_a_torch_file_without_named_tensors(tmp_path: Path, content: object, match: str):
    path = tmp_path / "model.ckpt"
    torch.save(content, path)
    refused(path, match)


def test_a_zip_of_something_else(tmp_path: Path):
    path = tmp_path / "model.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/model.safetensors", b"x" * 100)
    refused(path, "ZIP archive without PyTorch weights")


def test_missing_files_and_empty_folders(tmp_path: Path):
    refused(tmp_path / "nowhere.ckpt", "no such file or folder")
    refused(tmp_path, "no weight file of a usual name")
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    refused(tmp_path, "split over several files")


def test_half_precision_files_are_the_last_choice_of_a_folder(tmp_path: Path):
    save_file({"a": torch.zeros(1).half()}, tmp_path / "model.fp16.safetensors")
    assert read_checkpoint(tmp_path).tensors["a"].dtype == torch.float16
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert read_checkpoint(tmp_path).tensors["a"].dtype == torch.float32


@pytest.mark.parametrize("zipped", [True, False])
def test_what_trainers_pack_is_unpacked(tmp_path: Path, zipped: bool):
    path = tmp_path / "run.ckpt"
    content = {
        "epoch": 2,
        "state_dict": OrderedDict({"module.a": torch.ones(2), "module.b": torch.nn.Parameter(torch.zeros(1))}),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}},
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(path)
    assert sorted(checkpoint.tensors) == ["a", "b"]
    assert checkpoint.stripped == "module."
    assert torch.equal(checkpoint.tensors["a"], torch.ones(2))
    assert not checkpoint.tensors["b"].requires_grad


def test_large_files_are_mapped_and_not_read(tmp_path: Path):
    """Opening costs no memory of its own: 200 MB on disk, far less of private memory."""
    path = tmp_path / "large.ckpt"
    torch.save({f"t{index}": torch.zeros(5_000_000) for index in range(10)}, path)

    def private() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) * 1024

    before = private()
    checkpoint = read_checkpoint(path)
    assert len(checkpoint.tensors) == 10
    assert private() - before < 50e6
