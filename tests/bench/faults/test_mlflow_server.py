"""The MLflow server as the README starts it: it answers this machine under its own name, and no other."""

import urllib.error
import urllib.request

import pytest

from animate4d.bench.faults.mlflow_server import MlflowServer


@pytest.mark.slow
def test_a_page_that_names_this_machine_its_own_is_refused(tmp_path):
    with MlflowServer(tmp_path) as server:
        path = f"{server.uri}/api/2.0/mlflow/experiments/search?max_results=1"
        for headers, status in (({}, 200), ({"Host": "evil.example"}, 403)):
            try:
                with urllib.request.urlopen(urllib.request.Request(path, headers=headers)) as answer:
                    found = answer.status
            except urllib.error.HTTPError as error:
                found = error.code
            assert found == status
