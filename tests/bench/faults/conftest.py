import pytest

from animate4d.bench.faults.workbench import Workbench


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    """The shards and runs that all scenarios share."""
    return Workbench(tmp_path_factory.mktemp("faults"))
