"""Faults of manifests (D01-D10): what is wrong is told before any work, and every other row is worked on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from animate4d.batch.manifest import Manifest, read_manifest
from animate4d.batch.plan import PlannedRow, plan_rows
from animate4d.bench.faults.scenario import Account, Scenario, Watch, scenario, worst
from animate4d.bench.faults.workbench import Workbench
from animate4d.core.errors import ManifestError
from animate4d.pipeline.config import AnimateOptions, Request

ROWS = 20
VICTIM = 7
"""Number of the row that is spoiled; it stands in line 9."""
HEADER = "id,asset,prompt,video,seed"


def sound_rows(count: int = ROWS) -> list[str]:
    """Return lines without fault."""
    return [f"row{number},model.obj,a thing moves,ground-truth,{number}" for number in range(count)]


def spoiled(line: str) -> str:
    """Return a manifest one line of which is another."""
    rows = sound_rows()
    rows[VICTIM] = line
    return "\n".join([HEADER, *rows]) + "\n"


def write(bench: Workbench, name: str, text: str | bytes) -> Path:
    """Write a manifest beside the model that its rows name."""
    folder = bench.fresh_folder(name)
    (folder / "model.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (folder / "a-folder").mkdir()
    path = folder / "manifest.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def planned(path: Path) -> tuple[Manifest, list[PlannedRow]]:
    """Read a manifest and look at its rows, as a batch does before it works."""
    manifest = read_manifest(path, AnimateOptions(fit="draft"))
    return manifest, plan_rows(manifest, path.parent / "out", "")


def refused(bench: Workbench, name: str, text: str | bytes) -> Account:
    """Read a manifest that must be refused as a whole, then the sound one."""
    path = write(bench, name, text)
    watch = Watch()
    with watch.expecting(ManifestError):
        planned(path)
    path.write_text("\n".join([HEADER, *sound_rows()]) + "\n")
    _, rows = planned(path)
    watch.recovered()
    return watch.account(lost=0, silent=ROWS - sum(row.need == "to do" for row in rows))


def row_fails(bench: Workbench, name: str, line: str) -> Account:
    """Read a manifest with one wrong row: that one is named, all others are to be done."""
    path = write(bench, name, spoiled(line))
    watch = Watch()
    _, rows = planned(path)
    wrong = [row for row in rows if row.need == "wrong"]
    if wrong:
        watch.detected(wrong[0].problem)
    watch.recovered()
    lost = len(wrong)
    return watch.account(lost=lost, silent=ROWS - lost - sum(row.need == "to do" for row in rows))


def same_as_sound(bench: Workbench, name: str, text: str | bytes) -> Account:
    """Read a manifest that asks for the very same as the sound one, written another way."""
    wanted = [row.request for row in planned(write(bench, name, "\n".join([HEADER, *sound_rows()]) + "\n"))[0].rows]
    watch = Watch()
    path = write(bench, name, text)
    found = [row.request for row in planned(path)[0].rows]
    watch.recovered()
    pairs = itertools.zip_longest(map(asked, wanted), map(asked, found))
    return watch.account(lost=0, silent=sum(one != two for one, two in pairs))


def asked(request: Request | None) -> tuple[str, int, AnimateOptions] | None:
    """Return what a row asks for, but for the folder its model lies in."""
    return None if request is None else (request.prompt, request.seed, request.options)


def whole(name: str, what: str, text: str | bytes, says: tuple[str, ...]) -> Scenario:
    """Return the scenario of a manifest that is refused."""
    make = scenario(name, what, then="refused before any work; goes on when it is mended", unit="rows", says=says)
    return make(lambda bench: refused(bench, name, text))


def one_row(name: str, what: str, lines: tuple[str, ...], says: tuple[str, ...]) -> Scenario:
    """Return the scenario of a row that is wrong in one of several ways."""
    then = "that row fails by line and column; all others are worked on"
    make = scenario(name, what, then=then, unit="rows", most_lost=1, says=("line 9", *says))
    run: Callable[[Workbench], Account] = lambda bench: worst([row_fails(bench, name, line) for line in lines])  # noqa: E731
    return make(run)


def row(asset: str = "model.obj", prompt: str = "a thing moves", seed: str = "7", video: str = "ground-truth") -> str:
    """Return the line of the victim."""
    return f"row{VICTIM},{asset},{prompt},{video},{seed}"


@scenario("D08", "byte-order mark and Windows line ends", then="the same rows as without", unit="rows")
def d08(bench: Workbench) -> Account:
    """Write the sound manifest as spreadsheets do."""
    text = "\r\n".join([HEADER, *sound_rows()]) + "\r\n"
    return same_as_sound(bench, "d08", b"\xef\xbb\xbf" + text.encode())


@scenario("D09", "comma and line break inside a prompt", then="one row; line numbers stay right", unit="rows")
def d09(bench: Workbench) -> Account:
    """Put a prompt of three lines before a wrong row, whose line number must count them."""
    rows = sound_rows()
    rows[3] = 'row3,model.obj,"a thing, moves\nand\nstops",ground-truth,3'
    rows[VICTIM] = row(asset="none.obj")
    watch = Watch()
    _, found = planned(write(bench, "d09", "\n".join([HEADER, *rows]) + "\n"))
    watch.recovered()
    wrong = [one for one in found if one.need == "wrong"]
    right = [one.row.line for one in wrong] == [VICTIM + 4] and found[3].row.prompt == "a thing, moves\nand\nstops"
    return watch.account(lost=0, silent=abs(len(found) - ROWS) + (not right))


@scenario(
    "D10",
    "10,000 rows, one of them wrong",
    then="9,999 are worked on, the wrong one fails by line",
    unit="rows",
    most_lost=1,
    says=("line 7002", "none.obj"),
)
def d10(bench: Workbench) -> Account:
    """Plan a long manifest."""
    rows = sound_rows(10_000)
    rows[7000] = "row7000,none.obj,a thing moves,ground-truth,1"
    watch = Watch()
    _, found = planned(write(bench, "d10", "\n".join([HEADER, *rows]) + "\n"))
    wrong = [one for one in found if one.need == "wrong"]
    if wrong:
        watch.detected(wrong[0].problem)
    watch.recovered()
    return watch.account(lost=len(wrong), silent=10_000 - len(wrong) - sum(one.need == "to do" for one in found))


SCENARIOS = (
    whole("D01", "required column missing", "id,asset\na,model.obj\n", ("'prompt' is missing", "id, asset")),
    whole("D02", "manifest without rows", f"{HEADER}\n", ("no rows",)),
    one_row("D03", "asset that does not exist", (row(asset="none.obj"),), ("none.obj", "no such file")),
    one_row("D04", "asset that is a folder", (row(asset="a-folder"),), ("a-folder", "is a folder")),
    whole(
        "D05",
        "two rows of one id",
        "\n".join([HEADER, *sound_rows(), "ROW3,model.obj,again,ground-truth,1"]) + "\n",
        ("lines 5 and 22", "ROW3"),
    ),
    one_row(
        "D06",
        "seed that is no number, negative or too large",
        (row(seed="x"), row(seed="-1"), row(seed=str(2**64)), row(seed="1.5")),
        ("seed", "from 0 to 9223372036854775807"),
    ),
    one_row("D07", "prompt of spaces, and a video to generate", (row(prompt="  ", video="generated"),), ("prompt",)),
    d08,
    d09,
    d10,
)
