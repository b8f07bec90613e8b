"""The bench sees what it is there for: a platform that loses something fails it."""

import json
from dataclasses import replace

import pytest

from animate4d.bench.faults import run as run_module
from animate4d.bench.faults.config import BenchFaultsConfig
from animate4d.bench.faults.report import COLUMNS, Row, csv_table, read_table, seconds, text_table, worse
from animate4d.bench.faults.run import SCENARIOS, bench_faults, choose, happen
from animate4d.bench.faults.scenario import Account, Watch, scenario, worst
from animate4d.bench.faults.workbench import data_config, differences, read_items
from animate4d.core.errors import ConfigError, ShardError
from animate4d.data import reader, store
from animate4d.data.order import ItemOrder
from animate4d.serve.job_store import JobStore


def account(**changes):
    base = Account(detected_s=0.1, recovered_s=2.0, lost=0, silent=0, messages=("shard-000001.tar is cut: copy again",))
    return replace(base, **changes)


@scenario("D99", "a thing breaks", then="it is mended", unit="steps", most_lost=3, says=("shard-000001.tar", "again"))
def d99(bench):
    """Break nothing."""
    return account(lost=2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"detected_s": None}, "not detected"),
        ({"recovered_s": None}, "not recovered"),
        ({"lost": 4}, "lost 4 steps, at most 3"),
        ({"silent": 1}, "1 silent losses"),
        ({"messages": ("something is wrong",)}, "does not say 'again'"),
        ({"messages": ("shard-000001.tar:\nagain",)}, "not one line"),
    ],
)
def test_everything_that_is_not_as_documented_is_a_problem(changes, said):
    assert d99.problems(account()) == []
    assert any(said in problem for problem in d99.problems(account(**changes)))


def test_what_must_simply_work_needs_no_message():
    @scenario("D98", "nothing breaks", then="all goes on")
    def d98(bench):
        """Break nothing."""
        return account(detected_s=None, messages=())

    assert d98.problems(d98.run(None)) == []


def test_several_ways_count_as_their_worst():
    both = worst([account(lost=1), account(detected_s=3.0, recovered_s=None, lost=2, silent=1, messages=("other",))])
    assert (both.detected_s, both.recovered_s, both.lost, both.silent) == (3.0, None, 2, 1)
    assert both.messages[1:] == ("other",)


def test_a_watch_tells_what_was_raised_from_what_was_not():
    watch = Watch()
    with watch.expecting(ShardError):
        pass
    assert watch.account(lost=0, silent=0).detected_s is None
    with watch.expecting(ShardError):
        raise ShardError("gone")
    watch.detected("later")
    watch.recovered()
    measured = watch.account(lost=0, silent=0)
    assert measured.messages == ("gone",)
    assert 0 <= measured.detected_s <= measured.recovered_s


def test_the_table_comes_back_from_its_file(tmp_path):
    rows = [Row(scenario=d99, account=account(lost=2), problems=()), Row(scenario=d99, account=None, problems=("x",))]
    (tmp_path / "faults.csv").write_text(csv_table(rows[:1]))
    assert read_table(tmp_path / "faults.csv")["D99"] == rows[0].cells()
    shown = text_table(rows).splitlines()
    assert shown[0].split() == ["fault", "what", "detected", "s", "recovered", "s", "lost", "silent"]
    assert shown[1].split()[-4:] == ["2", "2", "steps", "0"]
    assert shown[2].split()[-2:] == ["?", "?"]
    assert set(rows[0].cells()) == set(COLUMNS)
    assert [seconds(value) for value in (None, 0.0001, 0.0123, 1.23, 12.3)] == ["-", "<0.001", "0.012", "1.2", "12"]


@pytest.mark.parametrize(("lost", "silent", "said"), [(3, 0, "lost 2 -> 3"), (2, 1, "silent 0 -> 1"), (1, 0, "")])
def test_only_more_losses_are_worse(lost, silent, said):
    kept = {"D99": Row(scenario=d99, account=account(lost=2), problems=()).cells()}
    now = Row(scenario=d99, account=account(lost=lost, silent=silent, detected_s=99.0), problems=())
    assert (said in worse(now, kept)) if said else worse(now, kept) == ""
    assert "not in" in worse(now, {})


def test_faults_are_chosen_by_number_or_name():
    assert choose(()) == list(SCENARIOS.values())
    assert [entry.name for entry in choose(["D25-ray", "D21"])] == ["D21", "D25-ray"]
    assert [entry.name for entry in choose(["D25"])] == ["D25", "D25-ray"]
    with pytest.raises(ConfigError, match="'D60' is no fault"):
        choose(["D60"])


def test_the_command_writes_the_table_and_its_exit_code_says_whether_all_is_well(tmp_path, capsys, monkeypatch):
    assert bench_faults(BenchFaultsConfig(only=("D22",), out=tmp_path)) == 0
    printed = capsys.readouterr()
    assert "1 of 1 as documented" in printed.out
    assert "D22" in printed.err
    found = json.loads((tmp_path / "faults.json").read_text())
    assert found["machine"]["cpu"]
    (fault,) = found["faults"]
    assert fault["messages"][0].startswith("d22-")
    assert read_table(tmp_path / "faults.csv")["D22"]["silent"] == "0"

    @scenario("D22", "a thing breaks", then="it is mended")
    def broken(bench):
        """Break down."""
        raise ZeroDivisionError("oh")

    monkeypatch.setitem(run_module.SCENARIOS, "D22", broken)
    assert bench_faults(BenchFaultsConfig(only=("D22",), out=tmp_path)) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_unchecked_sizes_are_noticed(bench, monkeypatch):
    monkeypatch.setattr(store, "check_size", lambda path, info: None)
    monkeypatch.setattr(store, "_member_offsets", lambda path, info: {key: {} for key in info.keys})
    row = happen(SCENARIOS["D21"], bench)
    assert row.problems


def test_samples_skipped_without_a_word_are_noticed(bench, monkeypatch):
    monkeypatch.setattr(reader.ItemReader, "_skip", lambda self, encoded, error: None)
    row = happen(SCENARIOS["D25"], bench)
    assert row.account.silent
    assert any("not detected" in problem for problem in row.problems)


def test_a_label_without_checks_is_noticed(bench, monkeypatch):
    monkeypatch.setattr("animate4d.data.schema.decode_tracks", lambda members, meta, views, frames: None)
    assert happen(SCENARIOS["D27"], bench).problems


def test_a_service_that_forgets_keys_is_noticed(bench, monkeypatch):
    monkeypatch.setattr(JobStore, "with_key", lambda self, client, key: None)
    assert happen(SCENARIOS["D49"], bench).account.silent


def test_items_that_training_never_sees_are_noticed(bench, monkeypatch):
    def short(order, cursor, batch_size, rank, world):
        items, after = step(order, cursor, batch_size, rank, world)
        return items, order.advance(after, cursor.position == 8)

    step = ItemOrder.step
    sound = bench.epoch
    monkeypatch.setattr(ItemOrder, "step", short)
    assert differences(sound, read_items(data_config(bench.shards))) > 0
