"""Trained models by name: `mv-vdm` with the alias `champion`, and the way from a model's name to its folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from animate4d.compute.paths import input_path
from animate4d.core.errors import ModelError
from animate4d.io.atomic import atomic_folder
from animate4d.runs.store import connect, failures, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME, CHAMPION = "mv-vdm", "champion"
SHIPPED = Path(__file__).resolve().parents[1] / "models" / "weights" / "smoke"
REGISTRY_SPEC = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")


def register_model(client: MlflowClient, run_id: str, *, name: str = NAME, alias: str = CHAMPION) -> str:
    """Register a run's artifact `model` and give it the alias; returns the version. A run registers once."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name='{name}' and run_id='{run_id}'")
    version = known[0] if known else client.create_model_version(name, f"runs:/{run_id}/model", run_id=run_id)
    client.set_registered_model_alias(name, alias, version.version)
    return str(version.version)


def resolve_model(spec: str | Path, *, uri: str | None = None) -> Path:
    """Return the folder of a model.

    Args:
        spec: "shipped" (the weights in this package), a model folder, or a registered model: "models:/mv-vdm@champion",
            "models:/mv-vdm/3".
        uri: of the MLflow store; default as in `store.tracking_uri`.

    Returns:
        A folder to read only: a local store gives its own artifact folder.

    Raises:
        ModelError: there is no such model.
    """
    text = str(spec)
    if text == "shipped":
        return model_folder(SHIPPED, "shipped: this installation has no weights at {}: train with jobs/train.py")
    if text.startswith("models:"):
        return registered_folder(text, tracking_uri(uri))
    folder = input_path(Path(text))
    return model_folder(
        folder, f"model '{text}': no model folder at {{}}: give 'shipped', a folder, or models:/NAME@ALIAS"
    )


def registered_folder(spec: str, uri: str) -> Path:
    """Return the folder of a registered model, downloaded if the store is a server."""
    match = REGISTRY_SPEC.fullmatch(spec)
    if match is None:
        raise ModelError(f"model '{spec}': write models:/NAME@ALIAS or models:/NAME/VERSION")
    try:
        client = connect(uri)
        name, alias, number = match.groups()
        version = number or client.get_model_version_by_alias(name, alias).version
        found = client.get_model_version(name, version)
        if found.run_id is None or found.source is None:
            raise ModelError(f"model '{spec}' was registered by hand without a run: give its folder instead")
        folder = local_artifacts(client, found.run_id, "model") or downloaded(found.source, found.run_id, uri)
    except failures() as error:
        first = str(error).splitlines()[0][:200]
        raise ModelError(f"model '{spec}' is not in MLflow at {uri} ({first}): train one, or use 'shipped'") from error
    return model_folder(
        folder, f"model '{spec}': its artifacts at {{}} hold no config.json: train and register it again"
    )


def local_artifacts(client: MlflowClient, run_id: str, path: str) -> Path | None:
    """Return where a run's artifact lies on this machine, or None if a server keeps it."""
    location = urlparse(client.get_run(run_id).info.artifact_uri)
    return Path(unquote(location.path)) / path if location.scheme in ("", "file") else None


def downloaded(source: str, run_id: str, uri: str) -> Path:
    """Download a run's model once; a version never changes, so a copy that is there is taken."""
    import mlflow.artifacts

    folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "animate4d" / "models" / run_id
    if not folder.is_dir():
        with atomic_folder(folder) as fresh:
            mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(fresh), tracking_uri=uri)
    return folder / "model"


def model_folder(folder: Path, complaint: str) -> Path:
    """Return the folder if it holds a model, else raise ModelError with the complaint."""
    if not (folder / "config.json").is_file():
        raise ModelError(complaint.format(folder))
    return folder
