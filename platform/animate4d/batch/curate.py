"""Curation of a folder of shards: measure in Ray tasks, one shard each; judge in the driver; change no shard.

Measurements are kept per shard (`facts/`), under the shard's sha256 and the measuring options: a second run, with other
thresholds or after more shards were built, measures only what it has not seen. What is written is a list of the clips
to keep, which the trainer reads (`--keep-list`), so nothing is copied. The driver holds 2 kB per clip.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from animate4d.batch.curate_config import CurateShardsConfig
from animate4d.batch.curate_report import (
    Verdict,
    borderline,
    dropped_by_rule,
    write_borderline,
    write_keep_list,
    write_summary,
    write_table,
)
from animate4d.batch.ledger import folder_lock
from animate4d.batch.shard_build import MAX_RETRIES, collect, make_folder
from animate4d.compute.paths import durable_path, input_path
from animate4d.compute.session import ray_session, require_resources
from animate4d.core.errors import ShardError
from animate4d.core.hashing import hash_json
from animate4d.io.arrays import pack_arrays, unpack_arrays
from animate4d.io.atomic import write_bytes
from animate4d.io.progress import Progress
from animate4d.io.shards import ShardInfo, iterate_shard, read_index
from animate4d.pipeline.curation import (
    LOOK_FRAMES,
    LOOK_SIDE,
    ClipFacts,
    Finding,
    MeasureOptions,
    Thresholds,
    find_duplicates,
    judge,
    measure_clip,
)

LOOK_SHAPE = (LOOK_FRAMES, 2, LOOK_SIDE, LOOK_SIDE, 3)
POLL_SECONDS = 1.0


def curate_shards(config: CurateShardsConfig) -> int:
    """Write keep.txt, clips.csv, curation.json and borderline.png.

    Returns:
        0 when clips are kept, 1 when none are.

    Raises:
        ShardError: no index.
        ConfigError: a setting out of range, or a folder that another run writes to.
        ClusterError: the cluster has no CPU to give.
    """
    shards = input_path(config.shards)
    out = durable_path(config.out) if config.out is not None else shards / "curation"
    options = MeasureOptions(**{field.name: getattr(config, field.name) for field in fields(MeasureOptions)})
    limits = Thresholds(**{field.name: getattr(config, field.name) for field in fields(Thresholds)})
    infos = read_index(shards)
    if not infos:
        raise ShardError(f"{shards} has no samples in its index: build shards first (jobs/build_shards.py)")
    make_folder(out)
    with folder_lock(out), Progress(len(infos), "shards") as progress:
        paths = [facts_path(out, info, options) for info in infos]
        missing = [pair for pair in zip(infos, paths, strict=True) if not pair[1].exists()]
        done = len(infos) - len(missing)
        progress.update(done)
        problems = {}
        if missing:
            with ray_session(cpus=config.workers):
                problems = measure(shards, missing, options, config.workers, lambda more: progress.update(done + more))
        for name, problem in problems.items():
            progress.say(f"failed: {name}: {problem}")
        verdicts = decide(infos, paths, problems, limits)
        write_keep_list(out / "keep.txt", verdicts)
        write_table(out / "clips.csv", verdicts)
        write_summary(out / "curation.json", verdicts, asdict(options) | asdict(limits))
        whole = [info for info in infos if info.name not in problems]
        write_borderline(out / "borderline.png", shards, whole, borderline(verdicts, config.borderline))
        kept = sum(verdict.kept for verdict in verdicts)
        dropped = ", ".join(f"{rule} {count}" for rule, count in dropped_by_rule(verdicts).items())
        progress.say(
            f"{kept} of {len(verdicts)} clips stay{f' (dropped: {dropped})' if dropped else ''}; reasons in clips.csv, "
            f"look at borderline.png in {out}; train with --keep-list {out / 'keep.txt'}"
        )
        return 0 if kept else 1


def facts_path(out: Path, info: ShardInfo, options: MeasureOptions) -> Path:
    """Return where the measurements of a shard are kept: another shard or other options have another place."""
    made_from = hash_json([info.sha256, asdict(options), [field.name for field in fields(ClipFacts)], LOOK_SHAPE])
    return out / "facts" / f"{info.name.removesuffix('.tar')}-{made_from[:16]}.npz"


def measure(
    shards: Path,
    missing: list[tuple[ShardInfo, Path]],
    options: MeasureOptions,
    workers: int | None,
    moved: Callable[[int], None],
) -> dict[str, str]:
    """Measure shards in tasks, as many at a time as there are slots; `moved` is told how many are done.

    Returns:
        Shard name -> why it could not be measured, for those that could not.
    """
    import ray

    require_resources(cpus=1)
    slots = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(measure_shard)
    waiting, running, problems = list(reversed(missing)), dict[Any, str](), dict[str, str]()
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                info, path = waiting.pop()
                running[task.remote(shards, info, path, options)] = info.name
            ready, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for reference in ready:
                name = running.pop(reference)
                problem, _kind, trouble = collect(reference)
                if problem or trouble:
                    problems[name] = str(problem or trouble)
            moved(len(missing) - len(waiting) - len(running))
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
    return problems


def measure_shard(shards: Path, info: ShardInfo, path: Path, options: MeasureOptions) -> str:
    """Measure the clips of one shard, one in memory at a time; returns what is wrong with the shard, if anything."""
    cv2.setNumThreads(1)  # the other cores belong to other tasks
    facts, looks = [], []
    try:
        for key, members in iterate_shard(shards / info.name, info):
            fact, look = measure_clip(key, members, options)
            facts.append(asdict(fact))
            looks.append(look)
    except ShardError as error:
        return str(error)
    lines = np.array([json.dumps(fact).encode() for fact in facts])  # padded with zeros to the longest
    note = lines.view(np.uint8).reshape(len(lines), -1)
    write_bytes(path, pack_arrays({"facts": note, "looks": np.array(looks, np.uint8)}))
    return ""


def decide(infos: list[ShardInfo], paths: list[Path], problems: dict[str, str], limits: Thresholds) -> list[Verdict]:
    """Judge every clip of the index, in its order."""
    facts: list[ClipFacts] = []
    looks: list[np.ndarray] = []
    for info, path in zip(infos, paths, strict=True):
        if info.name in problems:
            facts += [ClipFacts(key=key, problem=problems[info.name]) for key in info.keys]
            looks += [np.zeros(LOOK_SHAPE, np.uint8)] * len(info.keys)
            continue
        for fact, look in read_facts(path):
            facts.append(fact)
            looks.append(look)
    findings = [judge(fact, limits) for fact in facts]
    sound = [number for number, found in enumerate(findings) if not any(finding.dropped for finding in found)]
    chosen = np.array([looks[number] for number in sound]).reshape(-1, *LOOK_SHAPE)
    same = find_duplicates([facts[number] for number in sound], chosen, limits.duplicates)
    for fact, found in zip(facts, findings, strict=True):
        if fact.key in same:
            text = f"the same as {same[fact.key]}"
            found.append(Finding(rule="duplicate", value=1, threshold=0, dropped=True, text=text))
    return [
        Verdict(facts=fact, findings=tuple(found), duplicate_of=same.get(fact.key, ""))
        for fact, found in zip(facts, findings, strict=True)
    ]


def read_facts(path: Path) -> Iterator[tuple[ClipFacts, np.ndarray]]:
    """Read what `measure_shard` wrote.

    Raises:
        ShardError: the file is damaged.
    """
    try:
        wanted = {"facts": ("uint8", (None, None)), "looks": ("uint8", (None, *LOOK_SHAPE))}
        arrays = unpack_arrays(path.read_bytes(), wanted)
        facts = [ClipFacts(**json.loads(line.tobytes().rstrip(b"\0"))) for line in arrays["facts"]]
        yield from zip(facts, arrays["looks"], strict=True)
    except (ShardError, ValueError, TypeError) as error:
        raise ShardError(f"{path} is damaged ({error}): delete it and curate again") from error
