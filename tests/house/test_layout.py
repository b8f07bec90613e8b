"""The shape of the repository: imports go upwards, heavy libraries stay in their rooms, `platform/` is no package."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "platform" / "animate4d"

LAYERS = [
    {"core"},
    {"config", "metrics", "compute"},
    {"io"},
    {"assets", "tracks", "models"},
    {"views", "data"},
    {"videos", "fourd", "training"},
    {"export", "pipeline"},
    {"runs", "batch", "serve"},
    {"cli", "jobs", "demo", "bench"},
]
SIBLINGS = {
    ("pipeline", "export"),
    ("batch", "runs"),
    ("serve", "runs"),
    ("serve", "batch"),
    ("cli", "jobs"),
    ("cli", "demo"),
    ("cli", "bench"),
    ("demo", "jobs"),
    ("bench", "jobs"),
}
FORBIDDEN = {("training", "runs"), ("fourd", "models"), ("models", "data")}
OWNERS = {
    "ray": {"compute", "data", "training", "batch", "serve"},
    "deepspeed": {"training"},
    "mlflow": {"runs"},
    "gsplat": {"fourd"},
    "cotracker": {"tracks"},
    "embreex": {"views"},
}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_upwards_only(path):
    level = {room: index for index, layer in enumerate(LAYERS) for room in layer}
    room = room_of(path)
    for name in imports_of(path):
        if not name.startswith("animate4d."):
            continue
        other = name.split(".")[1]
        allowed = other == room or level[other] < level[room] or (room, other) in SIBLINGS
        assert allowed, f"{room} must not import {other}"
        assert (room, other) not in FORBIDDEN, f"{room} must not import {other}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_stay_in_their_rooms(path):
    for name in imports_of(path):
        library = name.split(".")[0]
        if library in OWNERS:
            assert room_of(path) in OWNERS[library], f"{library} belongs to {sorted(OWNERS[library])}"


def test_platform_is_a_source_root_and_never_a_package():
    assert sorted(entry.name for entry in (ROOT / "platform").iterdir() if entry.suffix != ".egg-info") == ["animate4d"]
    code = "import platform; assert platform.system(); print(platform.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert str(ROOT) not in found


@pytest.mark.slow
def test_wheel_holds_only_the_package(tmp_path):
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"animate4d"}
    kept = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(PACKAGE.parent)) for path in kept} <= set(names)


@pytest.mark.parametrize("job", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.stem)
def test_jobs_are_thin(job):
    assert len(job.read_text().splitlines()) <= 60


@pytest.mark.parametrize("job", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.stem)
def test_help_imports_nothing_heavy(job):
    heavy = ["torch", "ray", "diffusers", "transformers", "deepspeed", "mlflow", "cv2", "gsplat", "scipy", "pandas"]
    code = (
        f"import runpy, sys; sys.argv = ['{job.name}', '--help']\n"
        f"try: runpy.run_path({str(job)!r}, run_name='__main__')\n"
        f"except SystemExit as stop: assert not stop.code, stop.code\n"
        f"loaded = [name for name in {heavy} if name in sys.modules]\n"
        f"assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
