import json

import pytest

from animate4d.batch.manifest import read_manifest
from animate4d.core.errors import ManifestError
from animate4d.pipeline.config import AnimateOptions


def read(tmp_path, *lines):
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return read_manifest(path, AnimateOptions())


def test_json_lines_ask_for_the_same_as_a_table(tmp_path):
    manifest = read(
        tmp_path,
        {
            "asset": "fox.glb",
            "prompt": 'a fox, "quick"\nand red',
            "seed": 7,
            "formats": ["ply", "spz"],
            "artist": "Kim",
        },
        "",
        {"prompt": "a cow", "asset": "cow.glb", "strength": 1.5, "clip": None, "shared": True},
    )
    fox, cow = manifest.rows
    assert (fox.line, cow.line) == (1, 3)
    assert fox.request.prompt == 'a fox, "quick"\nand red'
    assert (fox.request.seed, fox.request.options.formats) == (7, ("ply", "spz"))
    assert (cow.request.options.strength, cow.request.clip) == (1.5, None)
    assert manifest.extra_columns == ("artist", "shared")
    assert (fox.extra, cow.extra) == ({"artist": "Kim", "shared": ""}, {"artist": "", "shared": "true"})


def test_the_same_row_has_the_same_id_in_both_forms(tmp_path):
    (tmp_path / "manifest.csv").write_text("asset,prompt,seed\nfox.glb,runs,7\n")
    table = read_manifest(tmp_path / "manifest.csv", AnimateOptions())
    assert read(tmp_path, {"asset": "fox.glb", "prompt": "runs", "seed": 7}).rows[0].id == table.rows[0].id


@pytest.mark.parametrize("line", ["{", "[1]", '"fox"', "asset,prompt", "[" * 100_000])
def test_a_line_that_is_no_object_refuses_the_file_and_is_named(tmp_path, line):
    with pytest.raises(ManifestError, match="line 2"):
        read(tmp_path, {"asset": "a.glb", "prompt": "p"}, line)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "p"}, "'asset' is missing"),
        ({"asset": "a.glb"}, "'prompt' is missing"),
        ({"asset": "a.glb", "prompt": {"text": "p"}}, "'prompt' holds an object"),
        ({"asset": "a.glb", "prompt": "p", "seed": 1.5}, "not a whole number"),
    ],
)
def test_what_is_wrong_with_one_row_is_that_rows_failure(tmp_path, row, said):
    good, bad = read(tmp_path, {"asset": "a.glb", "prompt": "p"}, row).rows
    assert good.request is not None
    assert bad.request is None
    assert said in bad.problem
    assert "line 2" in bad.problem


def test_an_empty_file_has_no_rows(tmp_path):
    with pytest.raises(ManifestError, match="no rows"):
        read(tmp_path, "")
