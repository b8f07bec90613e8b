import io
import re

from rich.console import Console

from animate4d.batch import progress as progress_module
from animate4d.batch.progress import Progress


def screen(width=60, term="xterm"):
    return Console(
        file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=20, _environ={"TERM": term}
    )


def shown(console):
    """What was written, without the codes that move the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", console.file.getvalue())


def test_one_line_per_row_with_the_time_left(capsys, done, failed):
    progress = Progress(6)
    progress.workers = 2
    progress.skip_done(1)
    progress.row(done("fox"))
    progress.row(failed("cow", "line 3: cow.glb: there is no such file"))
    progress.row(done("owl", video="ground-truth", truth={"e_fit": 0.02, "e_static": 0.1, "ratio": 0.2}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 of 6 rows are done already"
    assert lines[1] == "[2/6] done    fox: 15 s, outline overlap 93%, about 30 s left"
    assert lines[2] == "[3/6] failed  cow: line 3: cow.glb: there is no such file"
    assert lines[3] == "[4/6] done    owl: 15 s, vertex error 2.0% of the size, 0.20 of standing still, about 15 s left"


def test_control_characters_cannot_fake_a_line_or_move_the_cursor(capsys, failed):
    Progress(1).row(failed("cow", "line 3: a\n[1/1] done    cow\x1b[2J\r\x9bK"))
    assert capsys.readouterr().out == "[1/1] failed  cow: line 3: a [1/1] done    cow [2J K\n"


def test_where_there_is_no_terminal_a_sign_of_life_comes_now_and_then(capsys, monkeypatch):
    progress = Progress(3)
    progress.at_work({"fox": 3.0}, {"fox": "fit"})
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(progress_module, "HEARTBEAT_SECONDS", -1.0)
    progress.at_work({"fox": 3.0, "cow": 1.0}, {"fox": "fit"})
    progress.at_work({}, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "[0/3] fox fit (3 s), cow working (1 s)",
        "waiting for workers: they are starting, or the cluster is busy",
    ]


def test_a_terminal_shows_the_rows_at_work_and_lines_above(done):
    console = screen()
    progress = Progress(30, console)
    progress.at_work({}, {})
    progress.at_work({f"row{number}": float(number) for number in range(14)}, {"row13": "video"})
    progress.row(done("[bold]fox"))
    progress.close()
    text = " ".join(shown(console).split())
    assert "waiting for workers" in text
    assert "row13 video 13 s" in text
    assert "row3 working 3 s" in text
    assert "row1 working" not in text
    assert "and 2 more" in text
    assert "[1/30] done [bold]fox: 15 s" in text


def test_a_terminal_that_cannot_rewrite_gets_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "HEARTBEAT_SECONDS", -1.0)
    Progress(3, screen(term="dumb")).at_work({"fox": 3.0}, {"fox": "fit"})
    assert capsys.readouterr().out == "[0/3] fox fit (3 s)\n"


def test_a_long_name_leaves_room_for_its_stage():
    console = screen(width=30)
    progress = Progress(1, console)
    progress.at_work({"a-very-long-name-of-a-row-that-does-not-fit": 5.0}, {})
    progress.close()
    line = next(line for line in shown(console).splitlines() if "a-very" in line)
    assert line.startswith("a-very-lon…  working       5 s")
