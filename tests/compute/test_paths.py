from pathlib import Path

from animate4d.compute.paths import durable_path, input_path, inside_job_copy


def test_relative_outputs_mean_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert durable_path(Path("runs/a")) == tmp_path / "runs" / "a"


def test_outputs_of_a_job_copy_outlast_it(tmp_path, monkeypatch):
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    copy.mkdir(parents=True)
    (copy / "shards").mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("ANIMATE4D_HOME", str(tmp_path / "home"))
    assert inside_job_copy()
    assert durable_path(Path("runs/a")) == tmp_path / "home" / "runs" / "a"
    assert input_path(Path("shards")) == copy / "shards"
    assert input_path(Path("other")) == tmp_path / "home" / "other"
    assert durable_path(Path("/data/a")) == Path("/data/a")
