import pytest

from animate4d.batch.manifest import BATCH_FILES, read_manifest
from animate4d.core.errors import ManifestError
from animate4d.pipeline.config import AnimateOptions


def read(tmp_path, text, *, encoding="utf-8", defaults=None):
    path = tmp_path / "manifest.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_manifest(path, defaults or AnimateOptions())


def only_row(tmp_path, text):
    (row,) = read(tmp_path, text).rows
    return row


def test_reads_what_a_row_asks_for(tmp_path):
    row = only_row(
        tmp_path,
        "id,asset,prompt,seed,video,clip,strength,fit,note\n"
        "fox,a/fox.glb, a fox runs ,7,ground-truth,Gallop,1.5,draft,x\n",
    )
    request = row.request
    assert (row.id, row.line, row.prompt, row.extra) == ("fox", 2, "a fox runs", {"note": "x"})
    assert request.asset == tmp_path / "a/fox.glb"
    assert (request.seed, request.video, request.clip) == (7, "ground-truth", "Gallop")
    assert (request.options.strength, request.options.fit, request.options.frames) == (1.5, "draft", 16)


def test_files_and_how_the_motion_ends_are_columns(tmp_path):
    request = only_row(tmp_path, 'asset,prompt,formats,loop,fps\nfox.glb,runs,"Default, spz",Ping-Pong,30\n').request
    assert (request.options.formats, request.options.loop, request.options.fps) == (
        ("default", "spz"),
        "ping-pong",
        30.0,
    )
    assert "spz" in request.options.wanted_formats()


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [("formats", "ply fbx", "'fbx'"), ("loop", "spin", "ping-pong"), ("fps", "0", "1 to 240")],
)
def test_wrong_export_options_name_their_column(tmp_path, column, cell, said):
    row = only_row(tmp_path, f"asset,prompt,{column}\nfox.glb,runs,{cell}\n")
    assert (row.request, row.column) == (None, column)
    assert said in row.problem


def test_a_trackers_weights_lie_beside_the_manifest(tmp_path):
    (tmp_path / "scaled_offline.pth").write_bytes(b"weights")
    row = only_row(
        tmp_path, "asset,prompt,tracker,tracker_checkpoint,clips\nfox.glb,runs,CoTracker3,scaled_offline.pth,2\n"
    )
    assert row.request.tracker == "cotracker3"
    assert row.request.options.tracker_checkpoint == tmp_path / "scaled_offline.pth"
    assert row.request.options.clips == 2


def test_empty_cells_take_the_defaults_of_the_batch(tmp_path):
    defaults = AnimateOptions(strength=0.5, fit="draft")
    (row,) = read(tmp_path, "asset,prompt,strength,fit\nfox.glb,runs,,\n", defaults=defaults).rows
    assert row.request.options == defaults


def test_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    text = 'asset,prompt,seed\nfox.glb,"a fox, running",1\n'
    plain = read(tmp_path, text)
    windows = read(tmp_path, text.replace("\n", "\r\n"), encoding="utf-8-sig")
    assert windows.rows == plain.rows


def test_quoted_commas_and_newlines_stay_in_the_prompt_and_line_numbers_stay_right(tmp_path):
    text = 'asset,prompt,seed\na.glb,"one,\ntwo\nthree",1\n\nb.glb,next,x\n'
    first, second = read(tmp_path, text).rows
    assert first.prompt == "one,\ntwo\nthree"
    assert first.line == 2
    assert second.line == 6
    assert second.problem.startswith("line 6, column seed:")


def test_derived_ids_follow_the_content_and_not_the_order(tmp_path):
    one, two = read(tmp_path, "asset,prompt\nFox Red.glb,runs\nfox red.glb,jumps\n").rows
    swapped = read(tmp_path, "asset,prompt\nfox red.glb,jumps\nFox Red.glb,runs\n").rows
    assert {one.id, two.id} == {row.id for row in swapped}
    assert one.id.startswith("fox-red-")
    assert one.id != two.id


def test_a_short_row_is_filled_with_empty_cells(tmp_path):
    assert only_row(tmp_path, "asset,prompt,seed,video\nfox.glb,runs\n").request.seed == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        ("\n\n", "no rows"),
        ("asset,prompt\n", "no rows"),
        ("asset,promt\nfox.glb,runs\n", "column 'prompt' is missing (found: asset, promt)"),
        ("asset;prompt\nfox.glb;runs\n", "not separated by commas"),
        ("asset,prompt,asset\nfox.glb,runs,b.glb\n", "column 'asset' stands twice"),
        ("id,asset,prompt\nfox,a.glb,runs\nother,b.glb,runs\nFOX,c.glb,runs\n", "lines 2 and 4 share the id 'FOX'"),
        ("asset,prompt\nfox.glb,runs\nfox.glb,runs\n", "lines 2 and 3 share the id"),
        ('asset,prompt\nfox.glb,"runs\n', "line 2"),
        (b"asset,prompt\nfox.glb,caf\xe9\n", "not UTF-8"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path, text, said):
    with pytest.raises(ManifestError) as error:
        read(tmp_path, text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "manifest.csv" in str(error.value)


def test_a_row_says_how_its_video_is_sampled(tmp_path):
    text = "asset,prompt,steps,negative_prompt,free_init,step_cache\nfox.glb,runs,25,A still fox,3,2\n"
    sampler = only_row(tmp_path, text).request.options.sampler()
    assert (sampler.steps, sampler.guidance, sampler.negative_prompt) == (25, None, "A still fox")
    assert (sampler.free_init.rounds, sampler.step_cache.interval) == (3, 2)


def test_a_missing_manifest_and_a_folder_are_named(tmp_path):
    with pytest.raises(ManifestError, match="no such file"):
        read_manifest(tmp_path / "none.csv", AnimateOptions())
    with pytest.raises(ManifestError, match="is a folder"):
        read_manifest(tmp_path, AnimateOptions())


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("seed", "x", "whole number"),
        ("seed", "-1", "from 0 to 9223372036854775807"),
        ("seed", str(2**64), "from 0 to 9223372036854775807"),
        ("seed", "1.5", "whole number"),
        ("seed", "1_0", "whole number"),
        ("strength", "nan", "from 0 to 3"),
        ("strength", "lots", "not a number"),
        ("frames", "1", "from 2 to 64"),
        ("fit", "best", "draft, standard, paper"),
        ("tracker", "best", "give one of auto, none, flow"),
        ("tracker", "cotracker3", "path of its weights"),
        ("tracker", "exact", "video is generated"),
        ("clips", "0", "from 1 to 16"),
        ("steps", "0", "from 1 to 200"),
        ("guidance", "-3", "from 0 to 30"),
        ("negative_prompt", "x" * 501, "at most 500"),
        ("free_init", "0", "from 1 to 10"),
        ("step_cache", "half", "whole number"),
        ("step_cache", "51", "from 1 to 50"),
        ("video", "real", "generated or ground-truth"),
        ("clip", "Run", "ground-truth"),
        ("prompt", "  ", "say what the object should do"),
        ("prompt", "x" * 501, "at most 500"),
        ("asset", "", "empty"),
        ("asset", "http://127.0.0.1:8265/x.glb", "URL"),
        ("asset", "file:///etc/passwd", "URL"),
        ("id", "../up", "cannot name a folder"),
        ("id", "/abs", "cannot name a folder"),
        ("id", "a\0b", "cannot name a folder"),
        ("id", "CON", "cannot name a folder"),
        ("id", "nul.txt", "cannot name a folder"),
        ("id", "..%2f", "cannot name a folder"),
        ("id", "trailing.", "cannot name a folder"),
        ("id", "x" * 300, "cannot name a folder"),
        ("id", "index.html", "file of the batch"),
    ],
)
def test_a_wrong_cell_is_that_rows_failure_and_the_others_go_on(tmp_path, column, value, said):
    cells = {"id": "bad", "asset": "fox.glb", "prompt": "runs", column: value}
    text = f"{','.join(cells)}\n{','.join(cells.values())}\n" + ",".join(
        {"id": "good", "asset": "b.glb", "prompt": "jumps"}.get(name, "") for name in cells
    )
    bad, good = read(tmp_path, text).rows
    assert bad.request is None
    assert bad.column == column
    assert bad.problem.startswith(f"line 2, column {column}: ")
    assert said in bad.problem
    assert good.request is not None


def test_too_many_cells_point_at_the_missing_quotes(tmp_path):
    row = only_row(tmp_path, "asset,prompt\nfox.glb,a fox, running\n")
    assert row.request is None
    assert "quote a prompt that holds a comma" in row.problem


def test_an_empty_prompt_is_fine_for_ground_truth(tmp_path):
    assert only_row(tmp_path, "asset,prompt,video\nfox.glb,,ground-truth\n").request is not None


def test_a_misspelled_option_is_kept_and_pointed_out(tmp_path):
    manifest = read(tmp_path, "asset,prompt,sead\nfox.glb,runs,3\n")
    assert manifest.extra_columns == ("sead",)
    assert "did you mean 'seed'" in manifest.warnings[0]


def test_ids_cannot_hide_what_the_batch_writes():
    assert {"ledger.jsonl", "results.csv", "index.html"} <= BATCH_FILES


def test_ten_thousand_rows_with_one_bad(tmp_path):
    lines = "".join(f"row{number},a.glb,runs {number},{number}\n" for number in range(9999))
    manifest = read(tmp_path, f"id,asset,prompt,seed\n{lines}last,a.glb,runs,never\n")
    assert sum(row.request is not None for row in manifest.rows) == 9999
    assert manifest.rows[-1].line == 10_001


def test_a_row_with_several_seeds_stands_for_a_row_per_seed(tmp_path):
    rows = read(tmp_path, 'id,asset,prompt,seeds\nfox,fox.glb,runs,"0-2, 7"\n,cow.glb,walks,5\n').rows
    assert [row.id for row in rows[:4]] == ["fox.seed0", "fox.seed1", "fox.seed2", "fox.seed7"]
    assert {row.group for row in rows[:4]} == {"fox"}
    assert [row.request.seed for row in rows] == [0, 1, 2, 7, 5]
    assert rows[4].group == rows[4].id, "one seed is no choice"
    assert {row.line for row in rows[:4]} == {2}


@pytest.mark.parametrize("cell", ["a", "1-", "3-1", "0-100", "1.5", "-4", "0-9999999999999999999"])
def test_seeds_that_are_none_name_their_column(tmp_path, cell):
    row = only_row(tmp_path, f"asset,prompt,seeds\nfox.glb,runs,{cell}\n")
    assert (row.request, row.column) == (None, "seeds")


def test_seed_and_seeds_exclude_each_other(tmp_path):
    assert "keep one" in only_row(tmp_path, "asset,prompt,seed,seeds\nfox.glb,runs,1,2\n").problem


def test_a_pattern_stands_for_a_row_per_file_in_order_of_names(tmp_path):
    for name in ("b.glb", "a.glb", "a.txt"):
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / name).write_bytes(b"")
    (tmp_path / "models" / "dir.glb").mkdir()
    rows = read(tmp_path, "id,asset,prompt\nall,models/*.glb,runs\n,models/[ab].glb,sits\n").rows
    assert [row.asset for row in rows] == ["models/a.glb", "models/b.glb"] * 2
    assert [row.id for row in rows[:2]] == ["all.a", "all.b"]
    assert rows[0].request.asset == tmp_path / "models/a.glb"
    assert len({row.id for row in rows}) == 4


def test_a_file_whose_name_looks_like_a_pattern_is_meant_itself_and_one_that_fits_nothing_fails(tmp_path):
    (tmp_path / "fox[1].glb").write_bytes(b"")
    for asset in ("fox[1].glb", str(tmp_path / "fox[1].glb")):
        assert only_row(tmp_path, f"asset,prompt\n{asset},runs\n").asset == asset
    row = only_row(tmp_path, "asset,prompt\nfoxes/*.glb,runs\n")
    assert (row.request, row.column) == (None, "asset")
    assert "no file" in row.problem


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("/**/*.glb", "leads out"), ("../*.glb", "leads out"), ("**x.glb", "cannot be searched"), ("a" * 300 + "*", "")],
)
def test_patterns_stay_in_the_manifests_folder_and_wrong_ones_are_that_rows_failure(tmp_path, pattern, said):
    good, bad = read(tmp_path, f"asset,prompt\nfox.glb,runs\n{pattern},runs\n").rows
    assert good.request is not None
    assert (bad.request, bad.column) == (None, "asset")
    assert said in bad.problem
    assert "\n" not in bad.problem


def test_all_rows_that_share_an_id_are_told_at_once(tmp_path):
    with pytest.raises(ManifestError, match=r"lines 2 and 3 share the id 'a'; lines 4 and 5 share the id 'B'"):
        read(tmp_path, "id,asset,prompt\na,x.glb,p\na,y.glb,p\nb,x.glb,p\nB,y.glb,p\n")
