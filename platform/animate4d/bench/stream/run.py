"""`animate4d bench stream`: every limit of the stream, measured in one run and printed as a ratio."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from animate4d.bench.machine import machine_facts
from animate4d.bench.stream.config import BenchStreamConfig
from animate4d.bench.stream.memory import measure_large_samples
from animate4d.bench.stream.shards import rendered_shards, stream_config
from animate4d.bench.stream.sides import SIDES, WORK, ours
from animate4d.bench.stream.timing import in_turns, ratio, summary
from animate4d.compute.paths import durable_path, input_path
from animate4d.compute.session import quiet_ray_data, ray_session
from animate4d.data.config import DataConfig
from animate4d.data.order import Cursor
from animate4d.io.atomic import write_json

SPEED, LABELS, READER = 1.0, 1.05, 3.0
"""Limits: steady rate of the Ray loader in webdataset's; time of an epoch that finds its labels in one without labels;
a reader's memory in what the stream gives Ray Data as its target block."""

TRACKER = "opencv-lk"


def bench_stream(config: BenchStreamConfig) -> int:
    """Measure, print the tables and write the file; returns 1 if a limit does not hold.

    Raises:
        ShardError: the shards given cannot be read.
        ClusterError: the cluster has no room for a reader.
    """
    torch.set_num_threads(1)  # what is compared is one decoder per side
    quiet_ray_data()
    report: dict[str, Any] = {
        "bench": "stream",
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()},
        "machine": machine_facts(torch.device("cpu")),
        "limits": [],
    }
    with tempfile.TemporaryDirectory(prefix="bench-stream-") as name:
        folder = Path(name)
        if {"speed", "labels"} & set(config.parts):
            if config.data is None:
                say(f"rendering {config.clips} clips of {config.size} px")
            shards = input_path(config.data) if config.data else rendered_shards(folder, config.clips, config.size)
            data = stream_config(shards, config.batch_size)
            with ray_session(private=True):
                if "speed" in config.parts:
                    measure_speed(config, data, report)
                if "labels" in config.parts:
                    measure_labels(config, replace(data, labels=folder / "labels"), report)
        if "memory" in config.parts:
            measure_memory(config, folder, report)
    print(text(report))
    out = durable_path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, report)
    print(f"\n{out}")
    return 0 if all(limit["holds"] for limit in report["limits"]) else 1


def measure_speed(config: BenchStreamConfig, data: DataConfig, report: dict[str, Any]) -> None:
    """Compare both loaders with webdataset's."""
    say(f"{config.rounds} turns of {config.steps} batches: {', '.join(SIDES)}")
    sides = {name: partial(side, data) for name, side in SIDES.items()}
    turns = in_turns(sides, steps=config.steps, rounds=config.rounds)
    report["speed"] = {name: summary(found) for name, found in turns.items()}
    for name in ("ray", "inprocess"):
        for what in ("steady", "whole"):
            report["speed"][name][f"{what}_ratio"] = round(ratio(turns[name], turns["webdataset"], what), 4)
        value = report["speed"][name]["steady_ratio"]
        report["limits"].append(limit(f"{name}: steady state, in webdataset's rate", value, SPEED, at_least=True))


def measure_labels(config: BenchStreamConfig, data: DataConfig, report: dict[str, Any]) -> None:
    """Compare epochs that find their labels with epochs that want none, in both loaders."""
    report["labels"] = {}
    labelled, plain = replace(data, tracker=TRACKER), replace(data, tracker="none")
    for loader in ("inprocess", "ray"):
        say(f"an epoch that labels, then {config.rounds} turns with and without labels: {loader}")
        folder = replace(labelled, labels=data.labels_folder / loader)
        began = time.perf_counter()
        items = read_one_epoch(loader, folder)
        first = time.perf_counter() - began
        sides = {
            "found": partial(ours, loader, folder, start=Cursor(1, 0)),
            "none": partial(ours, loader, plain, start=Cursor(1, 0)),
        }
        turns = in_turns(sides, steps=config.steps, rounds=config.rounds)
        value = round(ratio(turns["none"], turns["found"], "steady"), 4)
        report["labels"][loader] = {name: summary(found) for name, found in turns.items()} | {
            "first_epoch_s": round(first, 3),
            "items": items,
            "ratio": value,
        }
        name = f"{loader}: second epoch with labels, in one without"
        report["limits"].append(limit(name, value, LABELS, at_least=False))


def read_one_epoch(loader: str, data: DataConfig) -> int:
    """Read every item once, labelling it; returns how many."""
    seen: set[str] = set()
    for batch in ours(loader, data):
        if seen.issuperset(batch.sample_ids):  # the second epoch has begun
            return len(seen)
        seen.update(batch.sample_ids)
    raise AssertionError("a stream has no end")


def measure_memory(config: BenchStreamConfig, folder: Path, report: dict[str, Any]) -> None:
    """Stream large samples and look at readers and object store."""
    say(f"{config.large_steps} batches of two samples of {config.sample_mb:g} MB, store of {config.store_mb} MB")
    found = measure_large_samples(
        folder,
        sample_bytes=round(config.sample_mb * 1e6),
        steps=config.large_steps,
        store_bytes=config.store_mb * 10**6,
    )
    found["ratio"] = round(found["reader_bytes"] / found["target_block_bytes"], 4)
    report["memory"] = found
    report["limits"].append(limit("bytes spilled, by Ray's counter", found["spilled_bytes"], 0, at_least=False))
    report["limits"].append(
        limit("a reader's peak memory above its imports, in target blocks", found["ratio"], READER, at_least=False)
    )


def limit(name: str, value: float, bound: float, *, at_least: bool) -> dict[str, Any]:
    """Return a limit and whether it holds."""
    holds = value >= bound if at_least else value <= bound
    return {"name": name, "value": value, "bound": bound, "at_least": at_least, "holds": bool(holds)}


def text(report: dict[str, Any]) -> str:
    """Return the tables for people."""
    machine = report["machine"]
    lines = [f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average']}", ""]
    head = f"{'items/s':<22}{'steady':>9}{'quartiles':>18}{'whole':>9}{'first batch':>13}"
    if "speed" in report:
        lines.append(head)
        lines += [row(name, found) for name, found in report["speed"].items()]
        lines += [f"  {name}: {work}" for name, work in WORK.items()] + [""]
    for loader, found in report.get("labels", {}).items():
        lines.append(f"{loader}: {found['items']} items, first epoch (labels made) {found['first_epoch_s']:.1f} s")
        lines += [row(f"  labels {name}", found[name]) for name in ("found", "none")] + [""]
    if found := report.get("memory"):
        lines.append(
            f"{found['streamed_bytes'] / 1e6:.0f} MB in samples of {found['sample_bytes'] / 1e6:.1f} MB through a "
            f"store of {found['store_bytes'] / 1e6:.0f} MB; a reader held {found['reader_bytes'] / 1e6:.1f} MB above "
            f"the {found['reader_base_bytes'] / 1e6:.1f} MB of one of tiny samples; target block "
            f"{found['target_block_bytes'] / 1e6:.1f} MB"
        )
        lines.append("")
    for entry in report["limits"]:
        sign, verdict = ">=" if entry["at_least"] else "<=", "holds" if entry["holds"] else "DOES NOT HOLD"
        lines.append(f"{entry['name']}: {entry['value']:g} ({sign} {entry['bound']:g}: {verdict})")
    return "\n".join(lines)


def row(name: str, found: dict[str, Any]) -> str:
    """Return a line of the table."""
    quartiles = f"{found['steady_low']:.1f}-{found['steady_high']:.1f}"
    return f"{name:<22}{found['steady']:>9.1f}{quartiles:>18}{found['whole']:>9.1f}{found['first_s']:>11.2f} s"


def say(sentence: str) -> None:
    """Tell what takes time, on stderr."""
    sys.stderr.write(f"{sentence}\n")
