"""The files under cluster/ and dashboards/ are what their readers accept."""

import json
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_serve_config_is_valid_and_names_a_real_builder():
    from ray.serve.schema import ServeDeploySchema

    from animate4d.cli import load
    from animate4d.serve.config import ServeConfig

    document = yaml.safe_load((ROOT / "cluster" / "serve.yaml").read_text())
    application = ServeDeploySchema.model_validate(document).applications[0]
    assert callable(load(application.import_path))
    ServeConfig(**application.args)


def test_start_script_is_a_shell_script():
    subprocess.run(["bash", "-n", ROOT / "cluster" / "start-local.sh"], check=True)


def test_training_board_asks_for_metrics_that_training_reports():
    board = json.loads((ROOT / "dashboards" / "grafana" / "training.json").read_text())
    asked = {target["expr"] for panel in board["panels"] for target in panel["targets"]}
    source = "".join(path.read_text() for path in (ROOT / "platform" / "animate4d" / "training").glob("*.py"))
    names = {word.strip("()") for expression in asked for word in expression.split() if "ray_animate4d" in word}
    assert names
    for name in names:
        assert name.removeprefix("sum(").removeprefix("ray_") in source, name
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
