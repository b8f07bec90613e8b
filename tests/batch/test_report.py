import csv
import json
import random

import pytest

from animate4d.batch.report import (
    FORMULA_STARTS,
    best_of_seeds,
    safe_cell,
    table_row,
    write_records,
    write_results,
)


def table(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_one_line_per_row_in_manifest_order_with_numbers(tmp_path, done, failed, manifest_of):
    truth = {"e_fit": 0.0168, "e_static": 0.091, "ratio": 0.18, "psnr": 35.1, "psnr_unseen": 33.9}
    results = [done("fox", video="ground-truth", truth=truth, lost=(4, 5)), failed("cow", "line 3: no such file")]
    write_results(tmp_path / "results.csv", manifest_of(results), results)
    fox, cow = table(tmp_path / "results.csv")
    assert (fox["state"], fox["ratio"], fox["e_fit"], fox["lost_frames"]) == ("done", "0.18", "0.0168", "4 5")
    assert (fox["psnr"], fox["psnr_unseen"], cow["psnr"]) == ("35.1", "33.9", "")
    assert (fox["seconds"], fox["seconds_fit"], fox["glb"]) == ("15.0", "2.5", "fox/animated.glb")
    assert (cow["state"], cow["kind"], cow["column"], cow["message"]) == (
        "failed",
        "bad input",
        "asset",
        "line 3: no such file",
    )
    assert cow["glb"] == ""


def test_unknown_manifest_columns_come_back_even_when_named_like_ours(tmp_path, done, manifest_of):
    results = [done("fox", extra={"artist": "Kim", "state": "draft"})]
    write_results(tmp_path / "results.csv", manifest_of(results, extra=("artist", "state")), results)
    (row,) = table(tmp_path / "results.csv")
    assert (row["artist"], row["manifest_state"], row["state"]) == ("Kim", "draft", "done")


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_text_a_spreadsheet_would_run_is_defused(start):
    assert safe_cell(f"{start}cmd|' /C calc'!A0").startswith("'")


def test_numbers_stay_numbers():
    assert safe_cell(-0.5) == -0.5
    assert safe_cell("a fox") == "a fox"


def test_no_cell_of_any_prompt_starts_like_a_formula(tmp_path, done, failed, manifest_of):
    dice = random.Random(0)
    alphabet = "=+-@\t\r\n\0 a\"',;|1é\u202e"
    prompts = ["".join(dice.choice(alphabet) for _ in range(dice.randint(1, 12))) for _ in range(300)]
    results = [done(f"r{i}", text, line=i, extra={"=HYPERLINK(1)": text}) for i, text in enumerate(prompts)]
    results += [failed(f"f{i}", text, text) for i, text in enumerate(prompts)]
    write_results(tmp_path / "results.csv", manifest_of(results, extra=("=HYPERLINK(1)",)), results)
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert len(rows) == 601
    assert not [cell for row in rows for cell in row if cell.startswith(FORMULA_STARTS)]


def test_a_result_without_a_glb_has_no_link_to_one(done):
    files = ("splats/static.ply", "motion.npz", "views.mp4", "thumb.webp", "still.webp")
    cells = table_row(done("scan", files=files))
    assert "glb" not in cells
    assert (cells["ply"], cells["receipt"]) == ("scan/splats/static.ply", "scan/receipt.json")
    assert table_row(done("fox"))["glb"] == "fox/animated.glb"


def test_the_best_seed_of_a_row_is_marked_and_json_lines_hold_every_text_exactly(tmp_path, done, failed, manifest_of):
    results = [
        done("fox.seed0", "=fox", group="fox", iou=0.9),
        done("fox.seed1", "=fox", group="fox", iou=0.95, shrunk=True),
        done("fox.seed2", "=fox", group="fox", iou=0.99, lost=(3, 4, 5, 6)),
        done("cow", extra={"artist": "-Kim"}),
        failed("bad", "line 3: no"),
    ]
    assert best_of_seeds(results) == {"fox.seed1"}, "lost frames count against the sharper outline"
    write_results(tmp_path / "results.csv", manifest_of(results, extra=("artist",)), results)
    write_records(tmp_path / "results.jsonl", results)
    rows = table(tmp_path / "results.csv")
    assert [row["best"] for row in rows] == ["0", "1", "0", "0", ""]
    assert [row["group"] for row in rows] == ["fox"] * 3 + ["cow", "bad"]
    assert "fit=draft" in rows[1]["warnings"]
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == [result.row.id for result in results]
    assert records[0]["prompt"] == "=fox"
    assert rows[0]["prompt"] == "'=fox"
    assert records[3]["manifest"] == {"artist": "-Kim"}
    assert records[1]["score"] == 0.95


def test_where_the_truth_is_known_it_is_the_score(done, failed):
    truth = {"e_fit": 0.01, "e_static": 0.1, "ratio": 0.1, "psnr": 35.0, "psnr_unseen": 33.0}
    assert done("a", truth=truth).score == pytest.approx(0.9)
    assert done("a", truth=truth | {"ratio": 1.5}).score == 0.0
    assert done("a", truth=truth | {"ratio": None}, iou=0.8).score == 0.8
    assert failed("b", "no").score is None
