"""The two commands as users call them: exit codes, one line for a mistake, the way there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from animate4d.cli import run_job
from animate4d.models.layouts.checkpoint import read_checkpoint


def words(files, stable_diffusion, out: Path, **changes) -> list[str]:
    given = {
        "model-config": files.config,
        "base": files.pipeline,
        "motion": files.motion,
        "ip-adapter": files.image,
        "image-encoder": stable_diffusion / "image_encoder",
        "animate3d": files.animate3d,
        "out": out,
    } | changes
    return ["--no-forward", *(str(word) for name, value in given.items() for word in (f"--{name}", value))]


def test_there_and_back_on_the_command_line(files, stable_diffusion, tmp_path, capsys):
    assert run_job("import-weights", words(files, stable_diffusion, tmp_path / "m")) == 0
    back = ["--layout", "animate3d", "--out", str(tmp_path / "back.ckpt")]
    assert run_job("export-weights", [str(tmp_path / "m"), *back]) == 0
    told = capsys.readouterr().out
    assert "verified: 1614 tensors" in told
    assert "888 tensors, read back equal" in told
    found, expected = (read_checkpoint(path).tensors for path in (tmp_path / "back.ckpt", files.animate3d))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"base": "nowhere.pt"}, "nowhere.pt: there is no such file or folder"),
        ({"preset": "smoke", "model-config": "x.json"}, "x.json: cannot be read"),
        ({"motion": "page.ckpt"}, "page.ckpt: this is a text or web page"),
        ({"ip-adapter": "cut.safetensors"}, "cut.safetensors: cut off or damaged"),
    ],
)
def test_a_mistake_is_one_line(change, expected, files, stable_diffusion, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("page.ckpt").write_text("<html>404</html>")
    Path("cut.safetensors").write_bytes(files.image.read_bytes()[:3000])
    assert run_job("import-weights", words(files, stable_diffusion, tmp_path / "m", **change)) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: ")
    assert expected in told
    assert "\n" not in told
    assert not (tmp_path / "m").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_model_that_is_not_there(tmp_path, capsys):
    out = ["--layout", "animate3d", "--out", str(tmp_path / "a.ckpt")]
    assert run_job("export-weights", [str(tmp_path / "nowhere"), *out]) == 2
    assert "nowhere" in capsys.readouterr().err
