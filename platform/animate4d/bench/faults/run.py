"""Make faults happen, one after the other, and print what each one cost."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from animate4d.bench.faults import batches, checkpoints, manifests, models, samples, service, shards, training
from animate4d.bench.faults.config import BenchFaultsConfig
from animate4d.bench.faults.report import Row, csv_table, text_table
from animate4d.bench.faults.scenario import Scenario
from animate4d.bench.faults.workbench import Workbench
from animate4d.bench.machine import machine_facts
from animate4d.compute.session import ray_session
from animate4d.core.errors import ConfigError
from animate4d.io.atomic import write_json, write_text
from animate4d.io.progress import Progress

SCENARIOS: dict[str, Scenario] = {
    entry.name: entry
    for entry in sorted(
        (
            *manifests.SCENARIOS,
            *models.SCENARIOS,
            *shards.SCENARIOS,
            *samples.SCENARIOS,
            *checkpoints.SCENARIOS,
            *training.SCENARIOS,
            *batches.SCENARIOS,
            *service.SCENARIOS,
        ),
        key=lambda entry: (entry.name[0] != "D", entry.name),
    )
}
"""All faults, by name, in the order of the table."""


def bench_faults(config: BenchFaultsConfig) -> int:
    """Make the chosen faults happen; returns 0 if all went as documented, else 1.

    Raises:
        ConfigError: a fault that is asked for is not known.
    """
    chosen = choose(config.only)
    with working_folder(config.keep) as folder, Progress(len(chosen), "faults", stream=sys.stderr) as progress:
        rows: list[Row] = []
        bench = Workbench(folder)
        for number, entry in enumerate(in_good_order(chosen)):
            progress.update(number, f"{entry.name}: {entry.what}")
            rows.append(happen(entry, bench))
            for problem in rows[-1].problems:
                progress.say(f"{entry.name}: {problem}")
            rows.sort(key=lambda row: list(SCENARIOS).index(row.scenario.name))
            write_results(config.out, rows)  # an interrupted bench keeps what it has measured
        progress.update(len(chosen))
    print(text_table(rows))
    failed = sum(bool(row.problems) for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} as documented; results: {config.out}")
    return 1 if failed else 0


def write_results(out: Path, rows: Sequence[Row]) -> None:
    """Write faults.json and faults.csv."""
    facts = machine_facts(torch.device("cpu"))
    write_json(out / "faults.json", {"faults": [row.to_json() for row in rows], "machine": facts})
    write_text(out / "faults.csv", csv_table(rows))


def choose(names: Sequence[str]) -> list[Scenario]:
    """Return the scenarios of some faults, all without any; D25 stands for D25-ray too.

    Raises:
        ConfigError: there is no such fault.
    """
    for name in names:
        if not any(name in (known, known.partition("-")[0]) for known in SCENARIOS):
            raise ConfigError(f"only: {name!r} is no fault: give some of {', '.join(SCENARIOS)}")
    return [entry for name, entry in SCENARIOS.items() if not names or {name, name.partition("-")[0]} & set(names)]


def in_good_order(chosen: Sequence[Scenario]) -> Iterator[Scenario]:
    """Yield first what needs no Ray, then the rest inside one Ray."""
    yield from (entry for entry in chosen if not entry.needs_ray)
    rest = [entry for entry in chosen if entry.needs_ray]
    if rest:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        with ray_session(cpus=2, private=True):
            yield from rest


def happen(entry: Scenario, bench: Workbench) -> Row:
    """Make one fault happen; a scenario that breaks down is a row with the reason."""
    try:
        account = entry.run(bench)
    except Exception as error:  # noqa: BLE001 - the other faults are still to be seen
        traceback.print_exc()
        return Row(scenario=entry, account=None, problems=(f"broke down: {type(error).__name__}: {error}",))
    here = f"{bench.folder}/"
    account = replace(account, messages=tuple(message.replace(here, "") for message in account.messages))
    return Row(scenario=entry, account=account, problems=tuple(entry.problems(account)))


@contextmanager
def working_folder(keep: bool) -> Iterator[Path]:
    """Give an empty folder that is deleted at the end, or named."""
    folder = Path(tempfile.mkdtemp(prefix="animate4d-faults-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"the faults happened in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
