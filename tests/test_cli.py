"""The command line: help for everything, one line for a mistake, exit codes."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from animate4d.cli import COMMANDS, load, main, run_job

ROOT = Path(__file__).resolve().parents[1]


def command(*words, cwd=ROOT):
    code = "from animate4d.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], cwd=cwd, capture_output=True, text=True, check=False)


def options_of(config):
    """Field names of a config; those of a part without a name of its own ("options", "sampler") stand for it."""
    for field in dataclasses.fields(config):
        if field.name in ("options", "sampler"):
            yield from options_of(field.default_factory)
        else:
            yield field.name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_explains_every_option(name, capsys):
    assert callable(load(COMMANDS[name].run))
    with pytest.raises(SystemExit) as stop:
        run_job(name, ["--help"])
    assert not stop.value.code
    text = capsys.readouterr().out
    assert COMMANDS[name].summary.split()[0] in text
    shown = options_of(load(COMMANDS[name].config))
    assert all(field.replace("_", "-") in text.lower() or field.upper() in text for field in shown)


def test_help_answers_in_about_a_second():
    command("train", "--help")
    begun = time.process_time()
    done = command("train", "--help")
    assert done.returncode == 0
    assert time.process_time() - begun < 1


def test_overview_lists_the_commands():
    done = command()
    assert done.returncode == 0
    assert all(name.split()[0] in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("words", [["bench"], ["bench", "--help"]])
def test_a_group_lists_its_commands_and_no_others(words):
    done = command(*words)
    assert done.returncode == 0
    assert "bench model" in done.stdout
    assert "animate-batch" not in done.stdout


def test_an_unknown_command_of_a_group_is_told_with_the_known_ones():
    done = command("bench", "modle")
    assert (done.returncode, done.stdout) == (2, "")
    assert "bench modle" in done.stderr
    assert "bench model" in done.stderr


def test_help_of_a_command_of_two_words_imports_nothing_heavy():
    heavy = ["torch", "ray", "diffusers", "transformers", "deepspeed", "mlflow", "cv2", "numpy"]
    code = (
        "import sys; sys.argv = ['animate4d', 'bench', 'model', '--help']\n"
        "from animate4d.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        f"loaded = [name for name in {heavy} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "animate4d bench model" in done.stdout


def test_unknown_command_is_told_on_stderr():
    done = command("animte")
    assert (done.returncode, done.stdout) == (2, "")
    assert "animte" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "--data", "nowhere"], "nowhere"),
        (["build-shards", "nowhere", "--out", "s"], "nowhere"),
        (["animate-batch", "nowhere.csv"], "nowhere.csv"),
        (["animate", "nowhere.glb", "a box bouncing"], "nowhere.glb"),
        (["animate", "box.glb", "a box bouncing", "--fit-device", "cuda"], "fit standard runs on the CPU"),
        (["animate", str(ROOT / "README.md"), "a", "--fit", "paper", "--fit-device", "cuda"], "torch sees no CUDA GPU"),
        (["evaluate", "--data", "nowhere"], "nowhere"),
        (["probe-features", "--data", "nowhere"], "nowhere"),
        (["serve", "--host", "0.0.0.0"], "token-file"),
        (["demo", "--steps", "0"], "steps"),
        (["bench", "model", "--minutes", "0"], "minutes"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words, expected, tmp_path, monkeypatch, capsys):
    # In this process: a process of its own per mistake would import torch each time.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["animate4d", *words])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 2, said
    assert expected in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_a_mistake_ends_a_process_with_exit_code_2(tmp_path):
    done = command("train", "--data", "nowhere", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_entry_point_is_the_jobs_function(capsys):
    with pytest.raises(SystemExit):
        run_job("train", ["--no-such-option"])
    assert "no-such-option" in capsys.readouterr().err
