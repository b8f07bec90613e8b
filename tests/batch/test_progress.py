from animate4d.batch.progress import Progress


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
