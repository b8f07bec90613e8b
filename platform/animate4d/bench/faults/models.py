"""Faults of models (D11-D20): each is read as a worker reads it, in a child process with limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from animate4d.assets.guarded import check_untrusted
from animate4d.assets.load import load_asset
from animate4d.bench.faults.broken_models import mesh_ply, png, splat_ply, spz, textured_glb, triangle_glb
from animate4d.bench.faults.scenario import Account, Scenario, Watch, scenario, worst
from animate4d.bench.faults.workbench import Workbench
from animate4d.core.errors import AssetError

CORNERS = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
HUGE = [{"bufferView": 0, "componentType": 5126, "count": 10**9, "type": "VEC3"}]
SMALL, LARGE, SAME = 1e-9, 1e9, 1e-4


def refused(bench: Workbench, name: str, files: dict[str, bytes]) -> Account:
    """Read a model that must be refused, the first of some files, and then a sound one in its place."""
    folder = bench.fresh_folder(name)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    path = folder / next(iter(files))
    watch = Watch()
    with watch.expecting(AssetError):
        check_untrusted(path)
    sound = path.with_suffix(".glb")
    sound.write_bytes(triangle_glb())
    silent = int(check_untrusted(sound)["faces"] != 1)
    watch.recovered()
    return watch.account(lost=0, silent=silent)


def model(name: str, what: str, says: tuple[str, ...], *ways: dict[str, bytes]) -> Scenario:
    """Return the scenario of a model that is refused; each of the `ways` is a folder's files, the model first."""
    then = "refused by name; the next model is read"
    make = scenario(name, what, then=then, unit="models", says=says)
    return make(lambda bench: worst([refused(bench, name.lower(), files) for files in ways]))


@scenario("D15-flat", "model of a single triangle", then="it is a model like others", unit="models")
def d15_flat(bench: Workbench) -> Account:
    """Read one flat triangle."""
    path = bench.fresh_folder("d15") / "one.glb"
    path.write_bytes(triangle_glb())
    watch = Watch()
    facts = check_untrusted(path)
    watch.recovered()
    return watch.account(lost=0, silent=int(facts["faces"] != 1))


@scenario(
    "D19",
    "texture that is missing",
    then="drawn without it, and the result says so",
    unit="textures",
    most_lost=1,
    says=("missing.png", "without it"),
)
def d19(bench: Workbench) -> Account:
    """Read a model whose texture is not there."""
    path = bench.fresh_folder("d19") / "model.glb"
    path.write_bytes(textured_glb("missing.png"))
    watch = Watch()
    facts = check_untrusted(path)
    for warning in facts["warnings"]:
        watch.detected(warning)
    watch.recovered()
    return watch.account(lost=1, silent=int(facts["faces"] != 1))


@scenario("D20", "one model a billion times smaller, and larger", then="the same in the canonical frame", unit="models")
def d20(bench: Workbench) -> Account:
    """Compare what three sizes of a model become."""
    folder = bench.fresh_folder("d20")
    watch = Watch()
    found = [canonical(folder / f"{scale}.glb", scale) for scale in (1.0, SMALL, LARGE)]
    watch.recovered()
    return watch.account(lost=0, silent=sum(float(np.abs(one - found[0]).max()) > SAME for one in found))


def canonical(path: Path, scale: float) -> np.ndarray:
    """Return the canonical vertices of the triangle, written at a scale."""
    path.write_bytes(triangle_glb(scale))
    mesh = load_asset(path).mesh
    assert mesh is not None
    return mesh.vertices


SCENARIOS = (
    model("D11", "empty file", ("empty",), *({f"model.{kind}": b""} for kind in ("glb", "ply", "spz", "splat"))),
    model(
        "D12",
        "model cut in half",
        ("cut",),
        {"model.glb": triangle_glb()[:300]},
        {"model.ply": splat_ply(9, 4)},
        {"model.spz": spz(11)},
    ),
    model(
        "D13",
        "text that calls itself a GLB",
        ("plain text", "give"),
        {"model.glb": b"Dear reader,\nthis is a letter.\n"},
    ),
    model(
        "D14", "vertex that is no number", ("NaN",), {"model.ply": mesh_ply([*CORNERS[:2], (0, "nan", 0)], [(0, 1, 2)])}
    ),
    model("D15", "model without triangles", ("no triangles",), {"model.ply": mesh_ply(CORNERS, [])}),
    d15_flat,
    model(
        "D16",
        "header that declares a billion rows",
        ("model.",),
        {"model.ply": splat_ply(10**9, 10)},
        {"model.spz": spz(10**9)},
        {"model.glb": triangle_glb(accessors=HUGE)},
    ),
    model(
        "D17",
        "buffer outside the model's own folder",
        ("model.glb",),
        {"model.glb": triangle_glb(buffers=[{"byteLength": 36, "uri": "../secret.bin"}])},
        {"model.glb": triangle_glb(buffers=[{"byteLength": 36, "uri": "file:///etc/passwd"}])},
    ),
    model(
        "D18",
        "texture of 900 million pixels",
        ("pixels", "8192"),
        {"model.glb": textured_glb("big.png"), "big.png": png(30_000)},
    ),
    d19,
    d20,
)
