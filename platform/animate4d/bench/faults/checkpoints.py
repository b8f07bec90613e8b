"""Faults of checkpoints (D30 to D32, D35, D37, D38): killed, cut, changed, no room, other workers, other settings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from animate4d.bench.faults.runs import EVERY, STEPS, go_on, run_config, run_differences, same_weights, undisturbed
from animate4d.bench.faults.scenario import Account, Scenario, Watch, scenario, worst
from animate4d.bench.faults.tiny import FAULT, TinyParts, steps_repeated, steps_taken
from animate4d.bench.faults.workbench import ITEMS, Workbench
from animate4d.bench.faults.workers import train_forked
from animate4d.core.errors import ConfigError
from animate4d.core.failpoint import LOG, POINTS
from animate4d.training.checkpoint import list_checkpoints, newest_sound
from animate4d.training.config import TrainConfig
from animate4d.training.launch import train
from animate4d.training.recipe import smoke

BATCH = smoke().optimizer.batch_size
LAST = f"step-{STEPS:06d}"


def save_points(bench: Workbench) -> list[str]:
    """Return the fail points that one save passes, in order."""
    out = bench.fresh_folder("points") / "run"
    log = out.parent / "passed"
    train_forked(run_config(bench, out, steps=1), TinyParts(environment={LOG: str(log)}))
    return [name for name in log.read_text().split() if name.startswith("save.")]


@scenario(
    "D30",
    "SIGKILL at each point of a save",
    then="goes on from the last whole checkpoint, bit for bit",
    unit="steps",
    most_lost=EVERY,
)
def d30(bench: Workbench) -> Account:
    """Kill the worker at every fail point of the last save; and one of two, whose part the other one then waits for."""
    points, saves = save_points(bench), STEPS // EVERY
    assert len(points) > 5
    ways = [(1, f"{point}=kill@{saves}") for point in points] + [(2, f"{points[0]}=kill@{2 * saves - 1}")]
    return worst([killed_in_save(bench, workers, kill) for workers, kill in ways])


def killed_in_save(bench: Workbench, workers: int, kill: str) -> Account:
    """Train with a fail point, go on after the kill, and compare with the undisturbed run."""
    out = bench.fresh_folder("d30") / "run"
    config = run_config(bench, out, workers=workers)
    ended = train_forked(config, TinyParts(environment={POINTS: kill, LOG: str(out.parent / "passed")}))
    watch = Watch()
    assert -9 in ended.codes, (kill, ended)
    go_on(config)
    watch.recovered()
    return watch.account(lost=steps_repeated(out), silent=run_differences(undisturbed(bench, workers), out))


def damaged_newest(bench: Workbench, name: str, damage: Callable[[Path], object]) -> Account:
    """Damage the last checkpoint of a whole run, which must go on from the one before and end as it did."""
    whole = undisturbed(bench, 2)
    out = bench.fresh_folder(name) / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "model")
    damage(out / "checkpoints" / LAST)
    watch = Watch()
    found = newest_sound(out)
    if found.damaged and found.folder is not None:
        watch.detected(found.damaged[0])
    ended = go_on(run_config(bench, out, workers=2))
    watch.recovered()
    unsaid = watch.message not in ended.said  # the user must see it too
    return watch.account(lost=steps_repeated(out), silent=run_differences(whole, out) + unsaid)


@scenario(
    "D31",
    "newest checkpoint with an empty file",
    then="goes on from the one before, and says so",
    unit="steps",
    most_lost=EVERY,
    says=(LAST, "0 bytes instead of"),
)
def d31(bench: Workbench) -> Account:
    """Empty a file of the optimiser's state."""
    return damaged_newest(bench, "d31", lambda folder: os.truncate(next((folder / "deepspeed").iterdir()), 0))


@scenario(
    "D32",
    "newest checkpoint with one byte changed, in each of its files",
    then="told by its hash, not loaded; goes on from the one before",
    unit="steps",
    most_lost=EVERY,
    says=(LAST, "has changed (sha256 differs)"),
)
def d32(bench: Workbench) -> Account:
    """Flip a bit in the middle of each file in turn; the run itself is repeated for the weights."""
    out = undisturbed(bench, 2)
    unseen = 0
    for file in sorted(path for path in (out / "checkpoints" / LAST).rglob("*") if path.is_file()):
        sound = file.read_bytes()
        flip(file)
        unseen += newest_sound(out).folder == out / "checkpoints" / LAST
        file.write_bytes(sound)
    account = damaged_newest(bench, "d32", lambda folder: flip(folder / "model.safetensors"))
    return replace(account, silent=account.silent + unseen)


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@scenario(
    "D35",
    "no room for a checkpoint's files",
    then="stops with what to do; the checkpoint before is whole, and goes on when there is room",
    unit="steps",
    most_lost=STEPS // 2,
    says=("could not be written", "make room", "--resume"),
)
def d35(bench: Workbench) -> Account:
    """Let the files of one worker, then of two, fail to grow during the second of two saves."""
    return worst([full_disk(bench, workers) for workers in (1, 2)])


def full_disk(bench: Workbench, workers: int) -> Account:
    """Fill the disk when the first checkpoint is whole, and make room when the training has ended."""
    out = bench.fresh_folder("d35") / "run"
    config = run_config(bench, out, workers=workers, checkpoint_every=STEPS // 2)
    ended = train_forked(config, TinyParts(at=STEPS // 2 + 1, wait_for="checkpoints/step-*", full=True))
    watch = Watch()
    watch.started_with(out / FAULT)
    if ended.outcome is not None and ended.outcome["state"] == "failed":
        watch.detected(ended.outcome["message"])
    kept = [folder.name for folder in list_checkpoints(out)] == [f"step-{STEPS // 2:06d}"]
    leftovers = list((out / "checkpoints").glob(".*"))
    go_on(config)
    watch.recovered()
    silent = run_differences(undisturbed(bench, workers), out) + (not kept) + len(leftovers)
    return watch.account(lost=steps_repeated(out), silent=silent)


@scenario(
    "D37",
    "another number of workers after a kill, which share the optimiser's state or not",
    then="goes on; every item of the epoch comes once; same weights up to rounding",
    unit="steps",
    most_lost=EVERY,
    says=("workers: its state is dealt out to",),
)
def d37(bench: Workbench) -> Account:
    """Kill two steps after a checkpoint, and go on with other workers through a whole epoch."""
    out = bench.fresh_folder("d37") / "run"
    train_forked(run_config(bench, out, steps=ITEMS // BATCH), TinyParts(noise=False))
    ways = (((2, True), (2, False), (1, False)), ((1, False), (2, True)), ((2, True), (4, True)))
    return worst([other_workers(bench, out, way) for way in ways])


def other_workers(bench: Workbench, whole: Path, way: Sequence[tuple[int, bool]]) -> Account:
    """Train an epoch with one number of workers after another, all but the last ones killed.

    Args:
        bench: where.
        whole: run to which nothing happened.
        way: how many workers, and whether they share the optimiser's state.
    """
    out = bench.fresh_folder("d37") / "run"
    watch = Watch()
    for attempt, (workers, zero) in enumerate(way, start=1):
        config = run_config(bench, out, workers=workers, zero=zero, steps=ITEMS // BATCH, run_name=str(attempt))
        last, saved = attempt == len(way), attempt * EVERY
        kill = {POINTS: f"step-{saved + 2}.rank-0=kill"}
        wait = f"checkpoints/step-{saved:06d}"
        parts = TinyParts(noise=False, at=saved + 2, wait_for=wait, environment=kill)
        ended = train_forked(config, TinyParts(noise=False) if last else parts)
        assert last or -9 in ended.codes, ended
        if attempt == 1:
            watch.start()
        elif "dealt out" in ended.said:
            watch.detected(ended.said.splitlines()[-1])
    if (out / "model").is_dir():
        watch.recovered()
    seen = [name for names in steps_taken(out).values() for name in names]
    wanted = [name for name, _ in bench.epoch]
    silent = len(set(wanted) ^ set(seen)) + abs(len(seen) - len(wanted)) + (not same_weights(whole, out))
    return watch.account(lost=steps_repeated(out), silent=silent)


@scenario(
    "D38",
    "settings that differ from the checkpoint's",
    then="refused, naming each with both values; goes on with the first ones",
    unit="steps",
    says=("other settings", "(checkpoint", "give the settings of the first run"),
)
def d38(bench: Workbench) -> Account:
    """Go on with another seed, learning rate, network, and other shards."""
    out = bench.fresh_folder("d38") / "run"
    shutil.copytree(undisturbed(bench, 1), out)
    shutil.rmtree(out / "model")
    config = run_config(bench, out)
    accounts = []
    for key, changed in other_settings(bench, config):
        watch = Watch()
        with watch.expecting(ConfigError):
            train(changed, make_parts=TinyParts())
        unsaid = key not in watch.message
        watch.start()
        go_on(config)
        watch.recovered()
        accounts.append(watch.account(lost=0, silent=int(unsaid)))
    account = worst(accounts)
    differing = run_differences(undisturbed(bench, 1), out)
    return replace(account, lost=steps_repeated(out), silent=account.silent + differing)


def other_settings(bench: Workbench, config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Yield what each difference is called, and a config with it."""
    yield "seed (checkpoint 0, now 5)", replace(config, seed=5)
    yield "recipe.optimizer.learning_rate (checkpoint 0.002, now 0.004)", replace(config, learning_rate=0.004)
    yield "data.sha256", replace(config, data=bench.write_shards("other", per_shard=3))


SCENARIOS: tuple[Scenario, ...] = (d30, d31, d32, d35, d37, d38)
